"""How far the run of a claim is: its stages and steps, read from the state of the run in its store."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from lmmpress.engine.algorithm import Planned, next_step
from lmmpress.engine.resume import read_history
from lmmpress.errors import UserError
from lmmpress.following.run_in_store import RunInStore
from lmmpress.plan import Plan
from lmmpress.result import StepResult
from lmmpress.store import Store, open_store
from lmmpress.store.address import is_store
from lmmpress.tasks.approval import missing_approval, note_approval
from lmmpress.trigger.claims import Claim, NotAllowedError
from lmmpress.trigger.local_files import RunFiles
from lmmpress.trigger.settings import EngineName
from lmmpress.trigger.texts import Text
from lmmpress.trigger.trigger import Trigger

StageState = Literal["ended", "waits", "under way", "to come"]
_ABOUT = {EngineName.kubeflow: "pipeline_run", EngineName.argo: "workflow"}
"""What a submission says of the pipeline that works for it."""


@dataclass(frozen=True)
class StageSeen:
    """A stage of a run: how many of its steps are decided, of how many at most. `waits`: it has ended, and the run goes
    on once a person has approved it. `accuracy` is that of its last step that was not rolled back."""

    name: str
    done: int
    most: int
    state: StageState
    accuracy: float | None


@dataclass(frozen=True)
class Progress:
    """A run that has begun: where it is kept, and what is decided."""

    store: Store
    key: str
    plan: Plan
    original: str
    steps: list[StepResult]
    missing: str | None
    """The stage after which the run waits for an approval."""

    @property
    def alpha(self) -> float:
        """The loss of accuracy that a step may have."""
        return self.plan.tolerance.alpha

    @property
    def stages(self) -> list[StageSeen]:
        """The stages in their order."""
        planned = next_step(self.plan, self.original, self.steps)
        now = planned.stage.name if isinstance(planned, Planned) else None
        seen: list[StageSeen] = []
        state: StageState = "ended"
        for stage in self.plan.stages:
            steps = [step for step in self.steps if step.stage == stage.name]
            if stage.name == now:
                state = "under way" if self.missing is None else "to come"
            measured = [step.accuracy for step in steps if step.decision != "rolled back"]
            shown: StageState = "waits" if stage.name == self.missing else state
            last = measured[-1] if measured else None
            seen.append(StageSeen(stage.name, len(steps), self.plan.most_steps(stage), shown, last))
            if stage.name == now:
                state = "to come"
        return seen


class _Identity(BaseModel):
    """What question.json in a run's folder says: the key of the run, and the digest of its original."""

    run_key: str
    teacher: str


def folder_of(trigger: Trigger, claim: Claim) -> Path | None:
    """The folder of the run of a claim, for engine local."""
    if claim.question.pipeline != EngineName.local:
        return None
    return RunFiles(Path(trigger.settings.runs) / claim.key, claim.run).out


def progress_of(trigger: Trigger, claim: Claim, found: dict[str, RunInStore] | None = None) -> Progress | None:
    """How far the run of a claim is; None where it has decided nothing that could be read yet. `found` keeps the runs
    that were found, so that the next call need not look for them.

    Raises UserError or OSError if the store of the run cannot be read.
    """
    if claim.sent is None:
        return None
    if (folder := folder_of(trigger, claim)) is not None:
        return _in_folder(folder)
    plan = trigger.order(claim.question, claim.attempt).plan
    if plan.store is None:
        return None
    kept: dict[str, RunInStore] = {} if found is None else found
    about = {_ABOUT[EngineName(claim.question.pipeline)]: claim.sent.id}
    run = kept.setdefault(claim.run, RunInStore(plan.store, about))
    run.look()
    if (made := run.submission) is None:
        return None
    store = open_store(plan.store, make=False)
    missing = missing_approval(store, made.key, made.plan, made.original, run.steps) if claim.is_open else None
    return Progress(store, made.key, made.plan, made.original, run.steps, missing)


def approve_stage(trigger: Trigger, claim: Claim, stage: str, by: str) -> str:
    """Let the run of a claim go on after a stage; what came of it, in one line.

    NotAllowedError if the run does not wait for that; UserError if its store does not answer.
    """
    progress = progress_of(trigger, claim)
    if progress is None or progress.missing != stage:
        raise NotAllowedError(Text("refused.not_waiting", run=claim.run, stage=repr(stage)))
    given = note_approval(progress.store, progress.key, stage, by)
    said = f"stage {stage} is approved by {given.by}"
    if claim.question.pipeline != EngineName.argo:
        return said
    return f"{said}; {_resume(trigger, claim, progress.key, stage, by)}"


def _resume(trigger: Trigger, claim: Claim, key: str, stage: str, by: str) -> str:
    """Resume the suspended workflow, which looks into the store only before it is suspended."""
    from lmmpress.argo.cluster import connect
    from lmmpress.argo.resume import resume

    name = claim.sent.id if claim.sent else ""
    try:
        workflows = connect(trigger.order(claim.question, claim.attempt).profile, trigger.settings.context)
        names = resume(workflows, key, stage, by, name)
    except UserError as error:
        return f"the workflow was not resumed: {error.lines[0]}"
    return f"workflow {', '.join(names)} goes on" if names else "no workflow was suspended"


def _in_folder(out: Path) -> Progress | None:
    """The run in the folder of `lmmpress run`; None if it has not begun."""
    try:
        plan = Plan.model_validate_json((out / "plan.json").read_text("utf-8"))
        identity = _Identity.model_validate_json((out / "question.json").read_text("utf-8"))
    except (FileNotFoundError, ValidationError):
        return None
    address = plan.store or str(out / "store")
    if not is_store(address):
        return None
    store = open_store(address, make=False)
    steps = read_history(store, plan, identity.teacher, store.history(identity.run_key))
    return Progress(store, identity.run_key, plan, identity.teacher, steps, None)
