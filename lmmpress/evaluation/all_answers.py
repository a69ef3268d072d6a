"""What a checkpoint answers to every row of a split: right or wrong by one forward pass, and the text of wrong ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from lmmpress.data import Split
from lmmpress.data.facts import Marks
from lmmpress.evaluation.accuracy import Judged, judged
from lmmpress.evaluation.comparison import Said
from lmmpress.evaluation.generate import longest_reply, write_answers
from lmmpress.evaluation.opened import Opened
from lmmpress.evaluation.speed import Subject
from lmmpress.lmm.examples import Examples
from lmmpress.lmm.forward import visual_features
from lmmpress.lmm.processor import decoded


@dataclass(frozen=True)
class AllAnswers:
    """A checkpoint's answers to the rows of a split, in their order. `right` [rows] are those that `evaluate` counts;
    the others were generated: `wrong` has their texts by the number of the row, and whether they ended."""

    right: Marks
    likelihood: list[float]
    wrong: dict[int, tuple[str, bool]]
    wanted: list[str]

    def said(self, row: int) -> Said:
        """The answer to a row."""
        text, ended = self.wrong.get(row, (self.wanted[row], True))
        likelihood = self.likelihood[row] if math.isfinite(self.likelihood[row]) else None
        return Said(text=text, right=bool(self.right[row]), ended=ended, log_probability=likelihood)


def all_answers(opened: Opened, examples: Examples, batch_size: int) -> AllAnswers:
    """The answers of a checkpoint to all of its examples. Its model is loaded, and gone when they are there."""
    with opened.loaded(examples) as subject:
        found = _judged(subject, opened, batch_size)
        wrong = _wrong_answers(subject, found.right, batch_size)
    wanted = [decoded(opened.tokenizer, example.answer) for example in examples.rows]
    return AllAnswers(found.right.numpy(), found.likelihood.tolist(), wrong, wanted)


def answers_to(opened: Opened, split: Split, rows: Sequence[int], right: Marks, batch_size: int) -> AllAnswers:
    """The answers of a checkpoint of which it is known which rows of a split it answers `right`. Only `rows` are asked
    again; among them have to be all that it answers wrong."""
    wanted, likelihood = [row.answer for row in split.rows], [0.0] * len(split.rows)
    wrong: dict[int, tuple[str, bool]] = {}
    if rows:
        few = replace(split, rows=tuple(split.rows[row] for row in rows))
        found = all_answers(opened, opened.encoded(few), batch_size)
        for number, row in enumerate(rows):
            wanted[row], likelihood[row] = found.wanted[number], found.likelihood[number]
            if not right[row]:  # another batch rounds otherwise: the row may just be right this time
                wrong[row] = found.wrong.get(number, (found.wanted[number], True))
    return AllAnswers(right, likelihood, wrong, wanted)


def same_answers(a: AllAnswers, b: AllAnswers) -> Marks:
    """Which rows get equal answers, booleans [rows]: both right, or both wrong in the same words."""
    same: Marks = a.right & b.right
    same[[row for row in a.wrong.keys() & b.wrong.keys() if a.wrong[row] == b.wrong[row]]] = True
    return same


def _judged(subject: Subject, opened: Opened, batch_size: int) -> Judged:
    features = visual_features(subject.model, subject.examples, opened.anatomy, batch_size)
    return judged(subject.model, subject.examples, opened.anatomy.projector, features, batch_size, opened.ends)


def _wrong_answers(subject: Subject, right: torch.Tensor, batch_size: int) -> dict[int, tuple[str, bool]]:
    """The text of each answer that is not right, and whether it ended."""
    examples = subject.examples
    rows = (~right).nonzero().flatten().tolist()
    written = write_answers(subject.model, examples, rows, longest_reply(examples), subject.ends, batch_size)
    return {
        row: (decoded(subject.tokenizer, ids), bool(ids) and ids[-1] in subject.ends) for row, ids in written.items()
    }
