"""A task at work on a run: the run is opened, its state is held for the submission, and lineage is recorded."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmmpress.engine.algorithm import Planned, next_step
from lmmpress.errors import UserError
from lmmpress.result import StepResult
from lmmpress.store import open_store
from lmmpress.tasks.submission import read_submission

if TYPE_CHECKING:  # torch takes seconds to import, and a task that only reads the state never needs it
    from lmmpress.engine.part_names import Part
    from lmmpress.engine.run import Run
    from lmmpress.engine.step import Step
    from lmmpress.store.run_state import RunState
    from lmmpress.tracking.lineage import Lineage


@dataclass(frozen=True)
class Session:
    """`recorder` is None where no lineage is recorded."""

    run: "Run"
    state: "RunState"
    recorder: "Lineage | None"

    def record(self, known: list[StepResult]) -> None:
        """Record all steps: one whose task was killed after it had decided is recorded by the next."""
        from lmmpress.engine.run import describe

        if self.recorder:
            self.recorder.begin(describe(self.run))
            for step in known:
                self.recorder.step(step)


@contextmanager
def working(store: str, run: str, *makes: "Part") -> Iterator[Session]:
    """Work on the run of the submission `run`, of which this task makes some parts of steps."""
    from lmmpress.engine.run import open_run

    opened = open_store(store)
    submission = read_submission(opened, run)
    with opened.run_state(submission.key, holder=run) as state:
        parts = frozenset(makes)
        settles, every_gpu = "evaluate" in parts, "distill" in parts
        made = open_run(submission.plan, opened, submission.key, submission.original, parts, settles, every_gpu)
        recorder = _recorder(submission.name, run)
        if recorder and recorder.within:
            with suppress(UserError):  # other tasks record lineage, and they say what is wrong with it
                recorder.take_over(submission.key)
        try:
            yield Session(made, state, recorder)
        except BaseException:
            if recorder:
                recorder.failed(submission.key)
            raise


@contextmanager
def working_on_step(store: str, run: str, stage: str, index: int, part: "Part") -> "Iterator[Step]":
    """The step of that number, of which this task makes one part."""
    from lmmpress.engine.run import known_steps
    from lmmpress.engine.step import Step

    with working(store, run, part) as session:
        _, planned = position(session.run, known_steps(session.run, session.state), stage, int(index))
        yield Step(session.run.materials, planned)


def position(run: "Run", known: list[StepResult], stage: str, index: int) -> tuple[int, Planned]:
    """A step that is known, or the one that comes next, after its number in the run; UserError where it is neither."""
    for number in range(len(known) + 1):
        planned = next_step(run.plan, run.original, known[:number])
        if isinstance(planned, Planned) and (planned.stage.name, planned.index) == (stage, index):
            return number, planned
    raise UserError(f"step {index + 1} of stage {stage} is not due: {len(known)} steps of this run are decided")


def _recorder(name: str, run: str) -> "Lineage | None":
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not uri:
        return None
    from lmmpress.tracking.lineage import Lineage

    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "lmmpress")
    return Lineage(uri, name, experiment, within=os.environ.get("MLFLOW_RUN_ID"), holder=run)
