"""How much of a run one task of a pipeline makes."""

from enum import StrEnum

from lmmpress.errors import UserError
from lmmpress.plan import Plan


class Granularity(StrEnum):
    """A task makes a part of a `step`, or a whole `stage`."""

    step = "step"
    stage = "stage"


class Choice(StrEnum):
    """What a person asks for: `auto` takes step where the engine can show and keep the whole run, else stage."""

    auto = "auto"
    step = "step"
    stage = "stage"


def refuse_jumps(plan: Plan, granularity: Granularity) -> None:
    """Raise UserError if a plan may jump along the steps of an earlier run and a task is a part of a step: a jump cuts
    along several axes, and the parts of a step along one."""
    if plan.start_from and granularity == Granularity.step:
        raise UserError("start_from: a pipeline by step makes no jumps; take --granularity stage")
