"""Approvals: after a stage that the plan names, a pipeline waits until a person lets it go on.

The truth is a record in the store, whatever runs the pipeline: `lmmpress approve` writes it, or the task after Argo's
suspended node, once somebody has resumed that.
"""

import getpass
import time
from dataclasses import dataclass

from lmmpress.engine.algorithm import Planned, next_step
from lmmpress.engine.resume import read_history
from lmmpress.errors import UserError
from lmmpress.plan import Plan
from lmmpress.printing.visible import visible
from lmmpress.progress import say
from lmmpress.result import StepResult
from lmmpress.settings.faults import nearest
from lmmpress.store import Store
from lmmpress.store.address import existing_store
from lmmpress.store.records import APPROVAL
from lmmpress.tasks.exit_codes import for_people
from lmmpress.tasks.late_lineage import submission_named
from lmmpress.tasks.submission import Submission, open_submission, read_submission

_PAUSE = 15.0  # seconds between two looks at the store


@dataclass(frozen=True)
class Approved:
    """An approval: the run, the stage after which it goes on, and who gave it."""

    run_key: str
    stage: str
    by: str


@dataclass(frozen=True)
class Known:
    """A run of a store, with the name of its last submission."""

    name: str
    submission: Submission

    @property
    def key(self) -> str:
        return self.submission.key


def approval_of(store: Store, key: str, stage: str) -> Approved | None:
    """The approval after a stage of a run; None if nobody has given it."""
    found = store.read_record(_record(key, stage))
    return None if found is None else Approved(key, stage, visible(str(found.get("by", "somebody"))))


def note_approval(store: Store, key: str, stage: str, by: str) -> Approved:
    """Write an approval, unless there is one; the one that counts."""
    found = store.write_record(_record(key, stage), {"stage": stage, "by": by})
    return Approved(key, stage, visible(str(found.get("by", "somebody"))))


@for_people
def approval(store: str, run: str, stage: str, resumed: bool = False) -> str:
    """Whether the pipeline may go on after a stage: `given` or `missing`. With `resumed` somebody has resumed the
    workflow, which is an approval."""
    opened, asked = open_submission(store, run)
    key = asked.key
    if resumed:
        note_approval(opened, key, stage, "somebody who resumed the workflow")
    return "given" if approval_of(opened, key, stage) else "missing"


@for_people
def wait_for_approval(store: str, run: str, stage: str, pause: float = _PAUSE) -> str:
    """Wait until the approval is in the store; who has given it. This holds the lease of the run, so that nobody else
    works on it meanwhile."""
    opened, asked = open_submission(store, run)
    key = asked.key
    with opened.run_state(key, holder=run):
        told = False
        while (found := approval_of(opened, key, stage)) is None:
            if not told:
                say(f"waiting after stage {stage}: lmmpress approve {key[:12]} --store {opened.root_address}")
                told = True
            time.sleep(pause)
    say(f"stage {stage} was approved by {found.by}")
    return found.by


def approve(address: str, run: str, stage: str | None = None) -> tuple[Known, Approved]:
    """Let the run go on after `stage`; without one, after the stage that it waits for now.

    `run` is a run key or its beginning, or the name of a submission. Raises UserError if the store has no such run, or
    several; if its plan waits for nobody after that stage; and without a stage, if the run does not wait.
    """
    store = existing_store(address)
    name = submission_named(store, run)
    known = Known(name, read_submission(store, name))
    waits = known.submission.plan.pipeline.approve
    if not waits:
        raise UserError(f"run {known.key[:12]} waits for no approval: its plan has no pipeline.approve")
    if stage is None:
        stage = _waiting(store, known)
    elif stage not in waits:
        raise UserError(f"run {known.key[:12]} waits for no approval after stage {stage!r}; {nearest(stage, waits)}")
    return known, note_approval(store, known.key, stage, _somebody())


def missing_approval(store: Store, key: str, plan: Plan, original: str, steps: list[StepResult]) -> str | None:
    """The stage after which a run with these steps waits for an approval; None if it waits for none."""
    missing = _missing(store, key, plan)
    return next((name for name in _ended(plan, original, steps) if name in missing), None)


def _missing(store: Store, key: str, plan: Plan) -> list[str]:
    """The stages that a plan wants approved, and nobody has."""
    return [name for name in plan.pipeline.approve if approval_of(store, key, name) is None]


def _waiting(store: Store, known: Known) -> str:
    """The stage after which a run waits now."""
    plan, original = known.submission.plan, known.submission.original
    steps = read_history(store, plan, original, store.history(known.key))
    if waiting := missing_approval(store, known.key, plan, original, steps):
        return waiting
    missing = _missing(store, known.key, plan)
    if not missing:
        raise UserError(f"run {known.key[:12]}: every approval of its plan is given")
    raise UserError(
        f"run {known.key[:12]} does not wait yet: {missing[0]} has not ended; --stage {missing[0]} approves in advance"
    )


def _ended(plan: Plan, original: str, steps: list[StepResult]) -> list[str]:
    """The stages that have ended, in their order."""
    planned = next_step(plan, original, steps)
    names = [stage.name for stage in plan.stages]
    return names[: names.index(planned.stage.name)] if isinstance(planned, Planned) else names


def _record(key: str, stage: str) -> str:
    return f"{APPROVAL}{key}-{stage}"


def _somebody() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user id without a name
        return "somebody"
