"""A plan's stages: along which axis, of which tower, how much a step removes, and how much in all."""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, PrivateAttr, Tag, model_validator

from lmmpress.axes import axes, axis_named, unusable
from lmmpress.errors import UserError
from lmmpress.settings.base import Settings
from lmmpress.settings.faults import nearest
from lmmpress.settings.schedule import MOST_STEPS, TowerName

MOST_STAGES = 100
"""Of a plan."""


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
    """How much one step of a stage removes, and how much the whole stage may remove."""

    step: Annotated[int, Field(gt=0)]
    max: Annotated[int, Field(gt=0)]

    @model_validator(mode="after")
    def _can_be_made(self) -> "Amounts":
        if self.max // self.step > MOST_STEPS:
            raise ValueError(f"asks for {self.max // self.step} steps; a stage has at most {MOST_STEPS}")
        return self

    def amounts(self) -> dict[str, int]:
        """Step and maximum, as a plan writes them."""
        return {"step": self.step, "max": self.max}

    def removals(self) -> list[int]:
        """The amount of each step of the stage: `step`, and a smaller last one if `step` does not divide `max`."""
        whole, rest = divmod(self.max, self.step)
        return [self.step] * whole + ([rest] if rest else [])


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
