"""How long the steps of a run still take at most, by those that are decided. Needs no torch."""

from collections.abc import Sequence
from statistics import fmean

from lmmpress.engine.algorithm import Planned
from lmmpress.plan import Plan
from lmmpress.progress import Outlook
from lmmpress.result import StepResult

_PARTS = ("importance", "prune", "distill", "evaluate")
"""The parts of a step, in their order."""


def outlook(plan: Plan, known: Sequence[StepResult], planned: Planned) -> Outlook:
    """What is known of a step before it is made, by the steps before it: how long its parts usually take, and how long
    the steps still take after each part if the gate accepts every step. Nothing of the first step of a run, and nothing
    of a warm run, whose jumps are of different lengths. Later steps, on smaller models, mostly take less."""
    name = step_name(plan, planned.stage.name, planned.index + 1)
    computed = [step for step in known if sum(step.seconds.values())]
    if plan.schedule or not computed:
        return Outlook(name)
    usual = {part: fmean(step.seconds.get(part, 0.0) for step in computed) for part in _PARTS}
    rest = most_steps_after(plan, planned.stage.name, planned.index) * sum(usual.values())
    later = {part: rest + sum(usual[after] for after in _PARTS[at + 1 :]) for at, part in enumerate(_PARTS)}
    return Outlook(name, usual, later)


def most_steps_after(plan: Plan, stage: str, index: int) -> int:
    """How many steps a run makes after the one with this index, from 0, of a stage, if the gate accepts them all."""
    names = [one.name for one in plan.stages]
    at = names.index(stage)
    return plan.most_steps(plan.stages[at]) - index - 1 + sum(map(plan.most_steps, plan.stages[at + 1 :]))


def step_name(plan: Plan, stage: str, number: int) -> str:
    """A step for people; `number` counts from 1 within its stage: `block, step 2 of 4`."""
    if plan.start_from or plan.schedule:  # a jump goes over several steps, and may be tried in vain
        return f"{stage}, step {number}"
    return f"{stage}, step {number} of {plan.most_steps(plan.stage(stage))}"
