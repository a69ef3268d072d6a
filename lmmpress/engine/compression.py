"""Makes a whole run in one process: the steps of Algorithm 1 in order, then the delivery of the compressed model."""

import time
from pathlib import Path

from lmmpress.engine.delivery import deliver
from lmmpress.engine.final_result import close
from lmmpress.engine.run import begin, check_original, describe, make_steps, open_run
from lmmpress.engine.run_folder import COMPRESSED, take_folder
from lmmpress.plan import Plan
from lmmpress.result import NotRecorded, Recorder, Result


def compress(plan: Plan, out: Path, recorder: Recorder | None = None, resume: bool = False) -> Result:
    """Compress the plan's model and write `result.json`, `plan.json` and `compressed/` into the folder `out`.

    With `resume` a run in `out` or in the plan's store is continued: finished parts of steps are read from the store.
    Raises UserError before any work if plan, model and data do not fit together, or if `out` holds a run of another
    plan, model or data.
    """
    started = time.perf_counter()
    recorder = recorder or NotRecorded()
    folder = take_folder(plan, out, resume)
    begun = begin(plan, folder.store, folder.teacher)
    with folder.store.run_state(begun.key) as state:
        recorder.take_over(begun.key)
        run = open_run(plan, folder.store, begun.key, begun.original)
        check_original(run)
        recorder.begin(describe(run))
        result = close(run, make_steps(run, state, recorder.step), time.perf_counter() - started)
        deliver(run, result, out)
        recorder.end(result, out / COMPRESSED)
    return result
