"""For the loop of a stage: which steps there may be, and whether one is due. This needs the store but no torch, and
takes a second."""

from lmmpress.engine.algorithm import Planned, next_step
from lmmpress.engine.resume import read_history
from lmmpress.tasks.exit_codes import for_people
from lmmpress.tasks.submission import open_submission


@for_people
def steps(store: str, run: str, stage: str) -> list[int]:
    """The numbers of the steps that a stage makes if the gate accepts them all."""
    _, asked = open_submission(store, run)
    plan = asked.plan
    return list(range(plan.most_steps(plan.stage(stage))))


@for_people
def due(store: str, run: str, stage: str, index: int) -> str:
    """Whether a step is due: `open`, or `closed` if it is done or its stage has ended."""
    return "open" if _next_of(store, run, stage) == int(index) else "closed"


@for_people
def next_due(store: str, run: str, stage: str) -> int | None:
    """The number of a stage's step that is due; None if its turn has not come, or it has ended."""
    return _next_of(store, run, stage)


def _next_of(store: str, run: str, stage: str) -> int | None:
    opened, asked = open_submission(store, run)
    known = read_history(opened, asked.plan, asked.original, opened.history(asked.key))
    planned = next_step(asked.plan, asked.original, known)
    if isinstance(planned, Planned) and planned.stage.name == stage:
        return planned.index
    return None
