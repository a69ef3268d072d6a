"""Algorithm 1: decides which step comes next, from the plan and the decisions so far, and from nothing else.

So a run's history is enough to continue the run: in the same process, in a new process after a crash, or in a pipeline
whose tasks run on different machines.

A warm run, which the paper does not have, has a schedule: the steps that an earlier run kept. It jumps along that as
far as the gate allows; where the gate accepts no jump, it goes on as printed.
"""

from collections import Counter
from collections.abc import Generator, Iterable
from dataclasses import dataclass

from lmmpress.plan import Plan
from lmmpress.result import Decision, StepResult
from lmmpress.settings.schedule import ScheduledStep
from lmmpress.stages import Stage


@dataclass(frozen=True)
class Planned:
    """The next step of a stage. `parent` and `reference` are digests of checkpoints: the one to cut, and the one to
    compare accuracy with. `tower` None means the largest tower. `index` counts the steps of a stage from 0. `removed`
    is how much the step removes. A jump makes all steps in `jump` at once; the other fields are those of the first.
    `distils` is False for a jump that the gate is to judge as it was cut. `last` is True for the last step that the
    stages can make, which is known before any decision."""

    parent: str
    reference: str
    stage: Stage
    index: int
    tower: str | None
    removed: int
    jump: tuple[ScheduledStep, ...] = ()
    distils: bool = True
    last: bool = False


Steps = Generator[Planned, StepResult, str]


def compress_stages(plan: Plan, original: str) -> Steps:
    """Algorithm 1 from line 3: yields each step and receives its result by `send`.

    Returns the digest of the final checkpoint when every stage has ended.
    """
    made: Counter[str] = Counter()  # steps of each stage
    current, ended = (yield from _jumps(plan, original, made)) if plan.schedule else (original, 0)
    loops = [(stage, tower) for stage in plan.stages for tower in plan.stage_towers(stage)]
    for number, (stage, tower) in enumerate(loops[ended:], start=ended + 1):
        reference = original if plan.tolerance.reference == "original" else current
        removals = stage.removals(tower)
        for at, removed in enumerate(removals, start=1):
            last = (number, at) == (len(loops), len(removals))
            step = yield Planned(current, reference, stage, made[stage.name], tower, removed, last=last)
            made[stage.name] += 1
            if takes_over(step.decision):
                current = step.checkpoint or current
            if ends_stage(step.decision):
                break
    return current


def _jumps(plan: Plan, original: str, made: Counter[str]) -> Generator[Planned, StepResult, tuple[str, int]]:
    """Jump along the schedule: to its end at once; if the gate does not accept that, half as far, and so on. A jump
    that carries over what an earlier run has learned may need no distilling: the gate says so first.

    Returns the checkpoint that was reached, and how many loops have ended: all of them at the end of the schedule. No
    jump is longer than half of one that was not accepted, so that few are made in vain. A jump over one step is that
    step as printed; if it is not accepted, it ends its loop, and the loops after it go the gradual way.

    A jump may lose less than alpha over all its stages together. It is compared with the original, or with the last
    checkpoint that has nothing removed by the loop in which the jump begins.
    """
    assert plan.schedule
    schedule, loops = plan.schedule.steps, plan.schedule_loops()
    current = reference = original
    done, reach = 0, len(schedule)
    distils = plan.carried_over(reach) is None
    while done < len(schedule):
        over = schedule[done : done + reach]
        first, stage = over[0], plan.stage(over[0].stage)
        if done == 0 or loops[done] != loops[done - 1]:
            reference = current
        against = original if plan.tolerance.reference == "original" else reference
        tower = None if first.tower == "largest" else first.tower
        jump = tuple(over) if len(over) > 1 else ()
        step = yield Planned(current, against, stage, made[stage.name], tower, first.removed, jump, distils)
        made[stage.name] += 1
        if not ends_stage(step.decision):
            done += len(over)
            if loops[done - 1] != loops[done - len(over)]:
                reference = current
        if takes_over(step.decision):
            current = step.checkpoint or current
        if ends_stage(step.decision):
            if not jump:
                return current, loops[done] + 1
            if distils or not plan.jumps.carry_epochs:
                reach = len(over) // 2
            distils = True
    return current, sum(len(plan.stage_towers(stage)) for stage in plan.stages)


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
