"""Task `prepare`: checks the submission, and writes it into the store under a name that all other tasks get."""

import os
import uuid
from dataclasses import dataclass
from typing import Any

from lmmpress.errors import UserError
from lmmpress.host.extras import is_installed, missing
from lmmpress.progress import say
from lmmpress.store import open_store
from lmmpress.tasks.exit_codes import for_people
from lmmpress.tasks.outcome import Outcome, table
from lmmpress.tasks.parameters import plan_of
from lmmpress.tasks.submission import Submission, note_submission


@dataclass(frozen=True)
class Prepared:
    """`run` is the submission's name."""

    run: str
    outcome: Outcome


@for_people
def prepare(name: str, **parameters: Any) -> Prepared:
    """Check a pipeline's parameters, copy the teacher into the store, and write the submission there.

    The parameters are those of `lmmpress.tasks.parameters.plan_of`.
    """
    from lmmpress.engine.row_checks import check_all_rows
    from lmmpress.engine.run import begin, check
    from lmmpress.tracking.registry import located

    if not os.environ.get("MLFLOW_TRACKING_URI"):
        say("MLFLOW_TRACKING_URI is not set: no lineage is recorded")
    elif not is_installed("mlflow"):
        raise missing("mlflow", "MLFLOW_TRACKING_URI is set, and lineage")
    plan = plan_of(**parameters)
    if not plan.store:
        raise UserError("store is not set: the tasks of a pipeline exchange checkpoints through it")
    store = open_store(plan.store)
    plan = plan.model_copy(update={"model": located(plan.model)})
    checked = check(plan)
    if rows_checked := check_all_rows(plan, checked.teacher, store):
        rows_checked.note(store)
    begun = begin(plan, store, checked.teacher)
    run = f"{begun.key[:12]}-{uuid.uuid4().hex[:8]}"
    with store.run_state(begun.key, holder=run):
        note_submission(store, run, Submission(plan=plan, name=name, key=begun.key, original=begun.original))
    counts = [sum(size.parameters_by_tower.values()) for size in checked.sizes]
    rows = [[size.stage, size.tower, size.removed, count] for size, count in zip(checked.sizes, counts, strict=True)]
    outcome = Outcome(
        store.address(begun.original),
        table(["stage", "tower", "removes", "parameters"], rows),
        {"parameters": counts[0], "parameters_planned": counts[-1]},
        {"run_key": begun.key},
    )
    return Prepared(run, outcome)
