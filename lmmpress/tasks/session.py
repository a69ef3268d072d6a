"""A task's work on a run: open the run, hold its state for the submission, and record lineage."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmmpress.engine.algorithm import Planned, next_step
from lmmpress.engine.decisions import decided_steps, position
from lmmpress.engine.remaining import outlook
from lmmpress.errors import UserError
from lmmpress.progress import Outlook, at_step
from lmmpress.result import StepResult
from lmmpress.tasks.lineage import link_to_lineage, note_lineage, recording_of
from lmmpress.tasks.outcome import Outcome
from lmmpress.tasks.submission import Submission, open_submission
from lmmpress.tasks.training_manifest import asked_training
from lmmpress.tasks.tries import halvings

if TYPE_CHECKING:  # torch takes seconds to import, and a task that only reads the state does not need it
    from lmmpress.engine.part_names import Part
    from lmmpress.engine.run import Run
    from lmmpress.engine.step import Step
    from lmmpress.store.run_state import RunState
    from lmmpress.tracking.background import Background


@dataclass(frozen=True)
class Session:
    """A run, opened by a task. `known` are the steps that were decided before the task. `recorder` is None if no
    lineage is recorded."""

    run: "Run"
    state: "RunState"
    known: list[StepResult]
    recorder: "Background | None"

    def step(self, stage: str, index: int) -> "Step":
        """The step of that number."""
        from lmmpress.engine.step import Step

        _, planned = position(self.run.plan, self.run.original, self.known, stage, int(index))
        return Step(self.run.materials, planned)

    def catch_up(self) -> None:
        """Record, beside the computation, what tasks before this one have decided."""
        if self.recorder and self.known:
            self.begin_recording()
            for step in self.known:
                self.recorder.step(step)

    def begin_recording(self) -> None:
        """Record the start of the run, which must be measured."""
        from lmmpress.engine.run import describe

        if self.recorder:
            self.recorder.begin(describe(self.run))
            self.recorder.then(lambda lineage: note_lineage(self.run.store, self.run.key, lineage))

    def with_link(self, outcome: Outcome) -> Outcome:
        """An outcome whose summary leads to the run in MLflow, if people reach it."""
        return outcome.linked(link_to_lineage(self.run.store, self.run.key))


def _due(submission: Submission, known: list[StepResult]) -> tuple[str, int]:
    """Stage and index of the step that a run is at."""
    planned = next_step(submission.plan, submission.original, known)
    assert isinstance(planned, Planned)  # nothing is distilled after the last step
    return planned.stage.name, planned.index


@contextmanager
def working(store: str, run: str, *makes: "Part", step: tuple[str, int] | None = None) -> Iterator[Session]:
    """Open the run of the submission `run`, for a task that makes some parts of its steps; of the step with this stage
    and index, if one is given."""
    opened, submission = open_submission(store, run)
    with opened.run_state(submission.key, holder=run) as state, recording_of(submission, run) as recorder:
        known = decided_steps(opened, submission.plan, submission.original, state)
        now = Outlook()
        if step:  # a task out of order ends here, before torch is imported
            _, planned = position(submission.plan, submission.original, known, step[0], int(step[1]))
            now = outlook(submission.plan, known, planned)
            if planned.jump:
                raise UserError("start_from: a pipeline by step makes no jumps; submit it with --granularity stage")
        from lmmpress.engine.run import open_run

        parts = frozenset(makes)
        settles, every_gpu = "evaluate" in parts, "distill" in parts
        asked = submission.plan, opened, submission.key, submission.original
        made = open_run(*asked, parts, settles, every_gpu, halvings())
        if (training := asked_training()) and "distill" in parts:

            def distil(part: str) -> None:
                from lmmpress.tasks.training import train  # which needs the client of Kubernetes

                stage, index = step or _due(
                    submission, decided_steps(opened, submission.plan, submission.original, state)
                )
                train(training, part, store=store, run=run, stage=stage, index=index)

            made.materials.elsewhere = {"distill": distil}
        with at_step(now):
            yield Session(made, state, known, recorder)
