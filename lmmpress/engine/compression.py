"""Makes a whole run in one process: the steps of Algorithm 1 in order, then the delivery of the compressed model."""

import time
from pathlib import Path

from lmmpress.engine.compare_ends import compare_ends
from lmmpress.engine.delivery import deliver
from lmmpress.engine.final_result import close
from lmmpress.engine.run import Begun, begin, check_original, describe, make_steps, open_run
from lmmpress.engine.run_folder import COMPRESSED, RunFolder, take_folder
from lmmpress.engine.warm import note_ended
from lmmpress.plan import Plan
from lmmpress.progress import doing, part
from lmmpress.result import NotRecorded, Recorder, Result
from lmmpress.store.run_state import RunState


def compress(
    plan: Plan, out: Path, recorder: Recorder | None = None, resume: bool = False, force: bool = False
) -> Result:
    """Compress the plan's model and write `result.json`, `plan.json` and `compressed/` into the folder `out`.

    With `compare` of the plan the result is then compared with the original, and the store keeps that.

    With `resume` a run in `out` or in the plan's store is continued: finished parts of steps are read from the store.
    Raises UserError before any work if plan, model and data do not fit together, if `out` holds a run of another plan,
    model or data, or, without `force`, if the run cannot fit into this machine's memory.
    """
    started = time.perf_counter()
    recorder = recorder or NotRecorded()
    with doing("prepare"):
        folder = take_folder(plan, out, resume, force)
        plan = folder.plan
        begun = begin(plan, folder.store, folder.teacher)
    with folder.store.run_state(begun.key) as state:
        recorder.take_over(begun.key)
        result = _compressed(folder, begun, state, out, recorder, started)
        if plan.compare:  # opened anew: what the steps had in memory is gone
            with part("compare"):
                compare_ends(open_run(plan, folder.store, begun.key, begun.original), result.steps)
    return result


def _compressed(
    folder: RunFolder, begun: Begun, state: RunState, out: Path, recorder: Recorder, started: float
) -> Result:
    run = open_run(folder.plan, folder.store, begun.key, begun.original)
    check_original(run)
    recorder.begin(describe(run))
    result = close(run, make_steps(run, state, recorder.step), started)
    with part("publish"):
        deliver(run, result, out)
    note_ended(run.store, run.key, folder.plan, run.materials.anatomy, result)
    recorder.end(result, out / COMPRESSED)
    return result
