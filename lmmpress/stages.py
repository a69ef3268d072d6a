"""A plan's stages: along which axis, of which tower, how much a step removes, and how much in all."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, PrivateAttr, Tag, field_validator, model_validator

from lmmpress.axes import axes, axis_named, unusable
from lmmpress.errors import UserError
from lmmpress.settings.amounts import Amount, amount_for, each, fraction_of, in_one_form
from lmmpress.settings.base import Settings
from lmmpress.settings.faults import nearest
from lmmpress.settings.schedule import MOST_STEPS, TowerName

MOST_STAGES = 100
"""Of a plan."""
_MOST_ROUNDED = Fraction(3, 2)
"""A share of 1.5 units becomes one unit: no other is larger than its number by as much. A maximum becomes larger by
half a unit at most."""


def _known_key(name: str) -> str:
    """Check the name of an axis that is a key."""
    known = [axis.name for axis in axes()]
    if name in unusable():
        return _known_axis(name)
    if name not in known:
        raise ValueError(f"unknown key; {nearest(name, known)}")
    return name


def _known_axis(name: str) -> str:
    try:
        return axis_named(name).name
    except UserError as error:
        raise ValueError(str(error)) from None


class Amounts(Settings):
    """How much one step of a stage removes, and how much the whole stage may remove, as `lmmpress.settings.amounts`
    says."""

    step: Amount
    max: Amount

    @field_validator("max")
    @classmethod
    def _leaves_something(cls, amount: Amount) -> Amount:
        if "100%" in each(amount):
            raise ValueError("is the whole width, of which something has to stay; write less than 100%")
        return amount

    @model_validator(mode="after")
    def _can_be_made(self) -> "Amounts":
        for step, most in self._pairs():
            count = _steps_asked(step, most)
            if count is not None and count > MOST_STEPS:
                raise ValueError(f"asks for {count} steps; a stage has at most {MOST_STEPS}")
        return self

    @property
    def in_numbers(self) -> bool:
        """Whether no amount is a share."""
        return all(isinstance(one, int) for amount in (self.step, self.max) for one in each(amount))

    @property
    def by_tower(self) -> bool:
        """Whether an amount is a mapping of towers."""
        return isinstance(self.step, dict) or isinstance(self.max, dict)

    def amounts(self) -> dict[str, Amount]:
        """Step and maximum, as a plan writes them."""
        return {"step": self.step, "max": self.max}

    def numbers(self, tower: str | None = None) -> tuple[int, int]:
        """Step and maximum of a tower; None stands for the largest. ValueError if they are still shares."""
        step, most = amount_for(self.step, tower), amount_for(self.max, tower)
        if isinstance(step, str) or isinstance(most, str):
            raise ValueError("a share has no number before the model is known")
        return step, most

    def removals(self, tower: str | None = None) -> list[int]:
        """The amount of each step of the stage on a tower: `step`, and a smaller last one if `step` does not divide
        `max`."""
        step, most = self.numbers(tower)
        whole, rest = divmod(most, step)
        return [step] * whole + ([rest] if rest else [])

    def most_steps(self, tower: str | None = None) -> int:
        """How many steps the stage makes on a tower if the gate accepts them all. Of shares this is the most that any
        width leads to: MOST_STEPS if one amount is a share and the other is none."""
        step, most = amount_for(self.step, tower), amount_for(self.max, tower)
        if isinstance(step, int) and isinstance(most, int):
            return -(-most // step)
        if isinstance(step, int) or isinstance(most, int):
            return MOST_STEPS
        exact = fraction_of(most) / fraction_of(step)
        return min(math.ceil(_MOST_ROUNDED * exact + Fraction(1, 2)), MOST_STEPS)

    def _pairs(self) -> Iterator[tuple[int | str, int | str]]:
        """Step and maximum of each tower that has both."""
        towers = [amount.keys() for amount in (self.step, self.max) if isinstance(amount, dict)]
        for tower in set.intersection(*map(set, towers)) if towers else {None}:
            yield amount_for(self.step, tower), amount_for(self.max, tower)


def _steps_asked(step: int | str, most: int | str) -> int | None:
    """How many whole steps fit into a maximum; of two shares how many steps there are, up to rounding. None if only the
    model's width says it."""
    if isinstance(step, int) and isinstance(most, int):
        return most // step
    return None if isinstance(step, int) or isinstance(most, int) else math.ceil(fraction_of(most) / fraction_of(step))


class Stage(Amounts):
    """A loop of steps along one axis, of the plan's towers or of a `tower` of its own.

    Its `name` is unique in its plan: the axis' name, with -2 for the second stage along the same axis, and so on.
    """

    axis: Annotated[str, AfterValidator(_known_axis)]
    tower: TowerName | None = None
    _name: str = PrivateAttr("")

    @property
    def name(self) -> str:
        return self._name or self.axis

    def as_written(self) -> dict[str, Any]:
        """The stage as an entry of a list in a plan."""
        tower = {"tower": self.tower} if self.tower else {}
        return {"axis": self.axis} | tower | self.amounts()


def stage_names(axes: Iterable[str]) -> list[str]:
    """The names of stages along these axes, in their order."""
    counts: Counter[str] = Counter()
    names = []
    for axis in axes:
        counts[axis] += 1
        names.append(axis if counts[axis] == 1 else f"{axis}-{counts[axis]}")
    return names


def _in_order(given: dict[str, Amounts] | list[Stage]) -> list[Stage]:
    """Stages by their axes as a list of them, each with its name."""
    if isinstance(given, dict):
        given = [Stage(axis=axis, step=stage.step, max=stage.max) for axis, stage in given.items()]
    stages = [stage.model_copy() for stage in given]
    for stage, name in zip(stages, stage_names(stage.axis for stage in stages), strict=True):
        stage._name = name
    return stages


def fitted(stages: list[Stage], towers: Sequence[str]) -> list[Stage]:
    """Stages whose amounts are checked against their towers, `towers` if they have none of their own, and are in one
    form. ValueError if a tower has no amount, or an amount no tower, or a number is needed."""
    found = []
    for stage in stages:
        goes_through = [stage.tower] if stage.tower else list(towers)
        for key, amount in stage.amounts().items():
            _check_towers(f"{stage.name}.{key}", amount, goes_through)
        found.append(stage.model_copy(update={key: in_one_form(one) for key, one in stage.amounts().items()}))
    return found


def _check_towers(name: str, amount: Amount, towers: Sequence[str]) -> None:
    if "largest" in towers and not isinstance(amount, int):
        raise ValueError(
            f"{name}: with towers: [largest] each step may cut another tower, and {name} counts over all of them; "
            "write a whole number, or name the towers, as in towers: [vision, language]"
        )
    if not isinstance(amount, dict):
        return
    lacking, needless = [name for name in towers if name not in amount], [name for name in amount if name not in towers]
    if lacking or needless:
        wrong = f"has nothing for tower {lacking[0]}" if lacking else f"names tower {needless[0]}, which is not cut"
        raise ValueError(f"{name} {wrong}; this stage cuts {', '.join(towers)}")


def _form(given: object) -> str | None:
    return "mapping" if isinstance(given, dict) else "list" if isinstance(given, list | tuple) else None


if TYPE_CHECKING:
    Stages = list[Stage]
else:
    Stages = Annotated[
        Annotated[dict[Annotated[str, AfterValidator(_known_key)], Amounts], Tag("mapping")]
        | Annotated[list[Stage], Field(max_length=MOST_STAGES), Tag("list")],
        Discriminator(
            _form,
            custom_error_type="stages_form",
            custom_error_message="input should be a mapping of axes, or a list of stages",
        ),
        AfterValidator(_in_order),
    ]
