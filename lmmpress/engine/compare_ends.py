"""Compares the ends of a run: its original and its result, on the rows of its test split.

It is what `lmmpress compare ORIGINAL RESULT` finds. Which rows the two answer right is known from the closing
measurement, so only rows that one of them answers wrong are asked again, and in the dtype of the run. Where other
metrics than exact score the rows, all are asked again: a comparison is of answers that are right to the last token.
"""

import numpy as np

from lmmpress.engine.final_result import Ends, measure_ends
from lmmpress.engine.kept import keep_comparison, kept_comparison, note_uncompared
from lmmpress.engine.parts.evaluate import Evaluated
from lmmpress.engine.run import Run
from lmmpress.engine.run_splits import split_of
from lmmpress.errors import AwayError, UserError, traceback_of
from lmmpress.evaluation.compare_checkpoints import Asked, Side, compare_measured
from lmmpress.evaluation.comparison import Comparison
from lmmpress.evaluation.metrics_by_task import only_exact
from lmmpress.evaluation.opened import open_to_measure
from lmmpress.printing.one_line import printable
from lmmpress.progress import say
from lmmpress.result import StepResult


def compare_ends(run: Run, known: list[StepResult]) -> Comparison | None:
    """The comparison of a run whose stages have ended. It is made once, and then read from the store.

    The run is whole without it. So a comparison that cannot be made is no error: why is said and noted in the store,
    and None is returned. Raises UserError where a step is open, and AwayError where the store is away: then it is worth
    another try.
    """
    if found := kept_comparison(run.store, run.key):
        return found
    ends = measure_ends(run, known)
    try:
        keep_comparison(run.store, run.key, _compared(run, ends))
    except AwayError:
        raise
    except Exception as error:
        why = error.lines[0] if isinstance(error, UserError) else printable(f"{type(error).__name__}: {error}")
        if not isinstance(error, UserError):
            for line in traceback_of(error).split("\n"):
                say(line)
        say(f"original and result are not compared: {why}")
        note_uncompared(run.store, run.key, why)
    return kept_comparison(run.store, run.key)


def _compared(run: Run, ends: Ends) -> Comparison:
    run.materials.split("test")  # UserError where the rows have changed since the run began
    rows = split_of(run.plan, "test")  # with the digest that `lmmpress compare` gives them
    if run.plan.reading.unlabelled and (row := next((row for row in rows.rows if not row.answer), None)):
        raise UserError(f"{rows.place(row)}: the row has no answer, and a comparison is of right answers")
    before = _side(run, run.original, ends.answers_before)
    after = _side(run, ends.final, ends.answers_after)
    asked = Asked(split=rows.name, settings=run.plan.evaluation)
    return compare_measured(before, after, run.plan.data, rows, asked)


def _side(run: Run, checkpoint: str, answers: Evaluated) -> Side:
    opened = open_to_measure(run.store.checkpoint(checkpoint), run.materials.dtype, run.plan.template)
    exact = only_exact(run.plan.metrics, run.materials.facts("test").tasks)
    right = answers.values.astype(np.bool_) if exact else None
    return Side(run.store.address(checkpoint), opened, checkpoint, right)
