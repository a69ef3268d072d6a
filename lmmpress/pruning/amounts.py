"""From the shares of a plan to whole numbers, by the widths of the model that a run starts from.

This is the one place where that happens: all behind it sees whole numbers, and a run key is that of the plan with whole
numbers.
"""

import math
from fractions import Fraction
from typing import Any

from pydantic import ValidationError

from lmmpress.axes.slices import AxisAnatomy
from lmmpress.errors import UserError
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.plan import Plan
from lmmpress.settings.amounts import Amount, amount_for, fraction_of
from lmmpress.settings.faults import faults_of, lines_of
from lmmpress.stages import Stage


def with_numbers(plan: Plan, anatomy: Anatomy) -> Plan:
    """The plan with a whole number in place of each share; `anatomy` is the original's, also for the second stage along
    an axis. A plan without shares is returned as it is.

    Raises UserError if a tower has nothing to remove along the axis of a stage.
    """
    if plan.in_numbers:
        return plan
    stages = [_with_numbers(plan, stage, anatomy) for stage in plan.stages]
    try:
        return Plan.model_validate(plan.model_dump() | {"stages": stages})
    except ValidationError as error:
        raise UserError(*lines_of(faults_of(error, Plan), "plan")) from None


def what_shares_became(plan: Plan, numbered: Plan) -> list[str]:
    """A line for people for each tower of each stage of a plan that has a share; `numbered` is the plan with whole
    numbers."""
    return [
        f"{stage.name} of the {tower} tower: "
        f"step {_became(stage.step, tower, step)}, max {_became(stage.max, tower, most)}"
        for stage, after in zip(plan.stages, numbered.stages, strict=True)
        if not stage.in_numbers
        for tower in plan.stage_towers(stage)
        for step, most in [after.numbers(tower)]
    ]


def nearest_legal(share: Fraction, width: int, unit: int) -> int:
    """The multiple of `unit` that is nearest to a share of a width; of two that are as near, the smaller one. At least
    one unit, and less than the width: 0 if there is no such number."""
    units = math.ceil(share * width / unit - Fraction(1, 2))
    return unit * min(max(units, 1), (width - 1) // unit)


def _with_numbers(plan: Plan, stage: Stage, anatomy: Anatomy) -> dict[str, Any]:
    """A stage as an entry of a list in a plan, with whole numbers."""
    if stage.in_numbers:
        return stage.as_written()
    numbers: dict[str, dict[str, int]] = {"step": {}, "max": {}}
    for tower in map(str, plan.stage_towers(stage)):
        body = anatomy.axis(tower, stage.axis)
        for key, amount in stage.amounts().items():
            numbers[key][tower] = _number(amount_for(amount, tower), body, tower, stage)
    return stage.as_written() | numbers


def _number(amount: int | str, body: AxisAnatomy, tower: str, stage: Stage) -> int:
    if isinstance(amount, int):
        return amount
    number = nearest_legal(fraction_of(amount), body.width, body.unit)
    if not number:
        raise UserError(
            f"{stage.name}: {stage.axis} of the {tower} tower is {body.width} wide and shrinks by multiples of "
            f"{body.unit}: there is nothing to remove; leave this tower out"
        )
    return number


def _became(amount: Amount, tower: str | None, number: int) -> str:
    written = amount_for(amount, tower)
    return f"{written} is {number}" if isinstance(written, str) else str(number)
