"""A run in one process: makes the steps of Algorithm 1 one after the other and delivers what is left of the model."""

import time
from pathlib import Path

from lmmpress.engine.delivery import deliver
from lmmpress.engine.row_checks import check_all_rows
from lmmpress.engine.run import begin, check, check_original, close, describe, make_steps, open_run
from lmmpress.engine.run_folder import COMPRESSED, check_folder, claim, held_store
from lmmpress.plan import Plan
from lmmpress.result import Recorder, Result, StepResult
from lmmpress.store import open_store


def compress(plan: Plan, out: Path, recorder: Recorder | None = None, resume: bool = False) -> Result:
    """Compress the plan's model and leave `result.json`, `plan.json` and `compressed/` in the folder `out`.

    With `resume` a run that `out` or the plan's store holds is carried on: every part of a step that was finished is
    found there. Raises UserError before any work where plan, model and data do not fit together, or where `out` holds
    a run of another plan, model or data.
    """
    started = time.perf_counter()
    check_folder(out)
    teacher = check(plan).teacher
    elsewhere = open_store(plan.store) if plan.store else None
    checked = check_all_rows(plan, teacher, elsewhere or held_store(out))
    claim(out, plan, teacher, resume)
    store = elsewhere or open_store(str(out / "store"))
    if checked:
        checked.note(store)
    begun = begin(plan, store, teacher)
    with store.run(begun.key) as state:
        if recorder:
            recorder.take_over(begun.key)
        run = open_run(plan, store, begun.key, begun.original)
        check_original(run)
        start = describe(run)
        if recorder:
            recorder.begin(start)

        def tell(step: StepResult) -> None:
            if recorder:
                recorder.step(step)

        result = close(run, make_steps(run, state, tell), time.perf_counter() - started)
        deliver(run, result, out)
        if recorder:
            recorder.end(result, out / COMPRESSED)
    return result
