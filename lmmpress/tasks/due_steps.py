"""What the loop of a stage asks: which steps there may be, and whether one is due. This needs the store and no torch,
and takes a second."""

from lmmpress.engine.algorithm import Planned, next_step
from lmmpress.engine.resume import read_history
from lmmpress.store import open_store
from lmmpress.tasks.exit_codes import for_people
from lmmpress.tasks.submission import read_submission


@for_people
def steps(store: str, run: str, stage: str) -> list[int]:
    """The numbers of the steps that a stage makes if the gate accepts them all."""
    plan = read_submission(open_store(store), run).plan
    return list(range(plan.most_steps(plan.stage(stage))))


@for_people
def due(store: str, run: str, stage: str, index: int) -> str:
    """Whether a step is the one to be made now: `open`, or `closed` where it is done or its stage has ended."""
    opened = open_store(store)
    asked = read_submission(opened, run)
    known = read_history(opened, asked.plan, asked.original, opened.history(asked.key))
    planned = next_step(asked.plan, asked.original, known)
    is_next = isinstance(planned, Planned) and (planned.stage.name, planned.index) == (stage, int(index))
    return "open" if is_next else "closed"
