"""Algorithm 1: decides which step comes next, from the plan and the decisions so far, and from nothing else.

So a run's history is enough to continue the run: in the same process, in a new process after a crash, or in a pipeline
whose tasks run on different machines.
"""

from collections.abc import Generator, Iterable
from dataclasses import dataclass

from lmmpress.plan import Plan, Stage
from lmmpress.result import Decision, StepResult


@dataclass(frozen=True)
class Planned:
    """The next step of a stage. `parent` and `reference` are digests of checkpoints: the one to cut, and the one to
    compare accuracy with. `tower` None means the largest tower. `index` counts the steps of a stage from 0. `removed`
    is how much the step removes."""

    parent: str
    reference: str
    stage: Stage
    index: int
    tower: str | None
    removed: int


def compress_stages(plan: Plan, original: str) -> Generator[Planned, StepResult, str]:
    """Algorithm 1 from line 3: yields each step and receives its result by `send`.

    Returns the digest of the final checkpoint when every stage has ended.
    """
    current = original
    for stage in plan.stages:
        index = 0
        for tower in plan.stage_towers(stage):
            reference = original if plan.tolerance.reference == "original" else current
            for removed in stage.removals():
                step = yield Planned(current, reference, stage, index, tower, removed)
                index += 1
                if takes_over(step.decision):
                    current = step.checkpoint or current
                if ends_stage(step.decision):
                    break
    return current


def next_step(plan: Plan, original: str, history: Iterable[StepResult]) -> Planned | str:
    """The step after those of a history, or the digest of the final checkpoint if every stage has ended."""
    stages = compress_stages(plan, original)
    try:
        planned = next(stages)
        for step in history:
            planned = stages.send(step)
    except StopIteration as ended:
        return str(ended.value)
    return planned


def ends_stage(decision: Decision) -> bool:
    """Whether a decision ends the stage, so that no further step of it is tried."""
    return decision != "accepted"


def takes_over(decision: Decision) -> bool:
    """Whether the next step starts from this step's checkpoint."""
    return decision != "rolled back"
