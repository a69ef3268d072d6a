"""Finds rows of the test split on which original and result of a run disagree, with what both answer.

What each row is worth to both is known from the closing measurement, so only the rows that are shown are asked again.
"""

import base64
from collections.abc import Sequence
from dataclasses import replace

from lmmpress.data import Row, Split
from lmmpress.data.rows import thumbnail
from lmmpress.engine.kept import keep_disagreements, kept_disagreements
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.evaluate import Evaluated
from lmmpress.engine.parts.models import subject_of
from lmmpress.errors import AwayError, UserError
from lmmpress.evaluation.comparison import Differing, Said
from lmmpress.evaluation.disagreements import SIDE, Disagreement, Disagreements, worst_rows
from lmmpress.evaluation.generate import longest_reply, write_answers
from lmmpress.evaluation.metrics_by_task import metric_infos
from lmmpress.lmm.processor import decoded
from lmmpress.printing.one_line import printable
from lmmpress.progress import doing, say_once
from lmmpress.result import MetricInfo


def note_disagreements(materials: Materials, key: str, ends: Sequence[tuple[str, Evaluated]]) -> None:
    """Keep in the store where the `ends` of the run with this key, the original and the result, disagree; made once.

    The run is whole without it. So if it cannot be made, that is only said. Raises AwayError where the store is away.
    """
    try:
        if "evaluate" in materials.makes and kept_disagreements(materials.store, key) is None:
            with doing("rows with other answers"):
                keep_disagreements(materials.store, key, _found(materials, ends))
    except AwayError:
        raise
    except Exception as error:
        why = error.lines[0] if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        say_once(f"the report shows no rows on which original and result disagree: {printable(why)}")


def _found(materials: Materials, ends: Sequence[tuple[str, Evaluated]]) -> Disagreements:
    facts, values = materials.facts("test"), [answers.values for _, answers in ends]
    metrics = metric_infos(materials.plan.metrics, facts.tasks)
    worst = worst_rows(values[0], values[1], facts, {task: metric.scale for task, metric in metrics.items()})
    numbers = [*worst.lost_rows, *worst.gained_rows]
    shown: tuple[Disagreement, ...] = ()
    if numbers:
        split = materials.split("test")
        rows = [split.rows[number] for number in numbers]
        told = [_answers(materials, checkpoint, split, rows) for checkpoint, _ in ends]
        shown = tuple(
            _row(
                split,
                row,
                metrics[row.task],
                number in worst.lost_rows,
                (float(values[0][number]), float(values[1][number])),
                (told[0][place], told[1][place]),
            )
            for place, (number, row) in enumerate(zip(numbers, rows, strict=True))
        )
    return Disagreements(rows=facts.rows, lost=worst.lost, gained=worst.gained, shown=shown)


def _answers(materials: Materials, checkpoint: str, split: Split, rows: Sequence[Row]) -> list[tuple[str, bool]]:
    """What a checkpoint answers to some rows, and whether it ended."""
    subject = subject_of(materials, checkpoint, replace(split, rows=tuple(rows)))
    settings = materials.plan.evaluation
    longest = longest_reply(materials.examples("test"), settings.max_new_tokens)
    numbers = range(len(subject.examples.rows))
    ids = write_answers(subject.model, subject.examples, numbers, longest, subject.ends, settings.batch_size)
    return [(decoded(subject.tokenizer, ids[row]), bool(set(ids[row]) & subject.ends)) for row in numbers]


def _row(
    split: Split,
    row: Row,
    metric: MetricInfo,
    lost: bool,
    worth: tuple[float, float],
    told: tuple[tuple[str, bool], tuple[str, bool]],
) -> Disagreement:
    sides = [_said(row, metric, value, *answer) for value, answer in zip(worth, told, strict=True)]
    found = Differing(
        kind="lost" if lost else "gained",
        line=row.line,
        file_name=row.picture,
        task=row.task,
        question=row.question,
        wanted=row.answer,
        a=sides[0],
        b=sides[1],
    )
    picture = None
    if row.picture is not None:
        picture = base64.b64encode(thumbnail(split, row.picture, SIDE)).decode("ascii")
    return Disagreement(row=found, metric=metric.title, worth=worth, picture=picture)


def _said(row: Row, metric: MetricInfo, value: float, text: str, ended: bool) -> Said:
    """An answer to a row. One that was measured as right is the right answer: asked in another batch, a model may just
    round otherwise."""
    best = metric.high if metric.better == "higher" else metric.low
    if metric.title == "exact" and value == best:
        text, ended = row.answer, True
    return Said(text=text, right=value == best, ended=ended, log_probability=None)
