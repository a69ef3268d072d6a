"""Task `prepare`: checks the submission, and writes it into the store under a name that all other tasks get."""

import uuid
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from lmmpress.errors import UserError
from lmmpress.host.extras import is_installed, missing
from lmmpress.host.patience import be_patient_from_now
from lmmpress.progress import say
from lmmpress.store import Store, open_store
from lmmpress.store.kinds import RUNS
from lmmpress.store.run_state import is_live, read_state
from lmmpress.tasks.exit_codes import for_people
from lmmpress.tasks.lineage import about_this_pipeline, lineage_of, tracking_uri
from lmmpress.tasks.outcome import Outcome, table
from lmmpress.tasks.parameters import plan_of
from lmmpress.tasks.submission import Submission, note_submission


@dataclass(frozen=True)
class Prepared:
    """`run` is the submission's name."""

    run: str
    outcome: Outcome


@for_people
def prepare(name: str, in_line: bool = False, **parameters: Any) -> Prepared:
    """Check a pipeline's parameters, copy the teacher into the store, and write the submission there.

    The parameters are those of `lmmpress.tasks.parameters.plan_of`. With `in_line` the engine lets submissions of one
    run wait for each other after this task, so it is no fault if another one works on the run now.
    """
    from lmmpress.engine.row_checks import check_all_rows
    from lmmpress.engine.run import begin, check
    from lmmpress.engine.warm import warmed
    from lmmpress.tracking.registry import is_registered, located

    if not tracking_uri():
        say("MLFLOW_TRACKING_URI is not set: no lineage is recorded")
    elif not is_installed("mlflow"):
        raise missing("mlflow", "MLFLOW_TRACKING_URI is set, and lineage")
    plan = plan_of(**parameters)
    if not plan.store:
        raise UserError("store is not set: the tasks of a pipeline exchange checkpoints through it")
    store = open_store(plan.store)
    store.objects.now()  # a wrong address ends the pipeline here, within seconds; from here on the store is waited for
    be_patient_from_now()
    model = {"model": plan.model} if is_registered(plan.model) else {}
    plan = plan.model_copy(update={"model": located(plan.model)})
    checked = check(plan)
    plan = checked.plan
    if rows_checked := check_all_rows(plan, checked.teacher, store):
        rows_checked.note(store)
    warm = warmed(plan, store, checked.teacher)
    warm.note(store)
    plan = warm.plan
    begun = begin(plan, store, checked.teacher)
    run = f"{begun.key[:12]}-{uuid.uuid4().hex[:8]}"
    about = about_this_pipeline() | model
    submission = Submission(plan=plan, name=name, key=begun.key, original=begun.original, about=about)
    with nullcontext() if in_line and _is_held(store, begun.key) else store.run_state(begun.key, holder=run) as state:
        if state and (lineage := lineage_of(submission, run)):
            try:
                lineage.take_over(begun.key)
            except UserError:
                if not state.history():  # nothing is computed yet: a wrong address is mended now, and not later
                    raise
        note_submission(store, run, submission)
    counts = [sum(size.parameters_by_tower.values()) for size in checked.sizes]
    rows = [[size.stage, size.tower, size.removed, count] for size, count in zip(checked.sizes, counts, strict=True)]
    outcome = Outcome(
        store.address(begun.original),
        table(["stage", "tower", "removes", "parameters"], rows),
        {"parameters": counts[0], "parameters_planned": counts[-1]},
        {"run_key": begun.key},
    )
    return Prepared(run, outcome)


def _is_held(store: Store, key: str) -> bool:
    """Whether a process works on a run now."""
    return is_live(store.objects, read_state(store.objects, RUNS.name(key)))
