"""Algorithm 1: which step comes next. It depends on the plan and on what was decided so far, and on nothing else.

So whoever knows a run's history knows where the run stands: the process that works on it, the one that carries it on
after a crash, and a pipeline whose every task runs on another machine.
"""

from collections.abc import Generator, Iterable
from dataclasses import dataclass

from lmmpress.plan import Plan, Stage
from lmmpress.result import Decision, StepResult


@dataclass(frozen=True)
class Planned:
    """A step of a stage, to be made. `parent` and `reference` are digests of checkpoints: the one to cut, and the one
    that accuracy is compared with. `tower` None stands for the largest. `index` counts the steps of a stage from 0."""

    parent: str
    reference: str
    stage: Stage
    index: int
    tower: str | None
    amount: int


def compress_stages(plan: Plan, original: str) -> Generator[Planned, StepResult, str]:
    """Algorithm 1 from its third line: yields each step and is sent what became of it.

    Returns the digest of the checkpoint that is left when every stage has ended.
    """
    current = original
    for stage in plan.stages:
        index = 0
        for tower in plan.stage_towers(stage):
            reference = original if plan.tolerance.reference == "original" else current
            for amount in stage.amounts():
                step = yield Planned(current, reference, stage, index, tower, amount)
                index += 1
                if takes_over(step.decision):
                    current = step.checkpoint or current
                if ends_stage(step.decision):
                    break
    return current


def next_step(plan: Plan, original: str, history: Iterable[StepResult]) -> Planned | str:
    """The step after those of a history, or the digest of what is left where the run is through."""
    stages = compress_stages(plan, original)
    try:
        planned = next(stages)
        for step in history:
            planned = stages.send(step)
    except StopIteration as ended:
        return str(ended.value)
    return planned


def ends_stage(decision: Decision) -> bool:
    """Whether no further step of the stage is tried."""
    return decision != "accepted"


def takes_over(decision: Decision) -> bool:
    """Whether the step's checkpoint becomes the one to go on from."""
    return decision != "rolled back"
