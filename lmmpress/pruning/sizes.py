"""The sizes of a model after every step of a plan, from configs alone."""

from dataclasses import dataclass

import torch

from lmmpress.axes.cut import Cut
from lmmpress.errors import UserError
from lmmpress.lmm.anatomy import Anatomy, count_by_tower
from lmmpress.lmm.read_anatomy import anatomy_after
from lmmpress.plan import Plan, Stage
from lmmpress.pruning.choose import check_removed, choose


@dataclass(frozen=True)
class Size:
    """The model after a step: parameters by tower (with embeddings, heads and the rest) and widths of the tower."""

    stage: str
    index: int
    tower: str
    removed: int
    parameters_by_tower: dict[str, int]
    widths: dict[str, int]


def predict(anatomy: Anatomy, plan: Plan) -> list[Size]:
    """The sizes after every step if the gate accepts them all, the uncut model first.

    Raises UserError if a step or a maximum is not legal for the model, before any work is done.
    """
    sizes = [_size("original", 0, ", ".join(towers_of(plan, anatomy)), 0, anatomy)]
    for stage in plan.stages:
        try:
            made, anatomy = _predict_stage(anatomy, plan, stage)
        except UserError as error:
            if len(sizes) == 1:
                raise
            raise UserError(f"stage {stage.name}, after the steps before it: {error}") from None
        sizes += made
    return sizes


def _predict_stage(anatomy: Anatomy, plan: Plan, stage: Stage) -> tuple[list[Size], Anatomy]:
    """The sizes after every step of a stage, and the anatomy after the last. The stage starts from the anatomy that the
    stages before it leave, because stages along one axis share its width."""
    sizes = []
    for tower in plan.stage_towers(stage):
        if tower is not None:
            check_removed(anatomy.axis(tower, stage.axis), tower, stage.axis, stage.max)
        for index, removed in enumerate(stage.removals()):
            name = tower or anatomy.largest_tower()
            anatomy = anatomy_after(anatomy, _any_cut(anatomy, name, stage.axis, removed))
            sizes.append(_size(stage.name, index, name, removed, anatomy))
    return sizes, anatomy


def towers_of(plan: Plan, anatomy: Anatomy) -> list[str]:
    """The towers that a plan may cut: those it names, or all if it says `largest`."""
    used = plan.towers_in_use()
    return list(anatomy.towers) if "largest" in used else list(used)


def _any_cut(anatomy: Anatomy, tower: str, axis: str, removed: int) -> Cut:
    """A cut of the right size; sizes do not depend on which dimensions it removes."""
    groups = anatomy.axis(tower, axis).groups
    return choose(anatomy, tower, axis, removed, {group.name: torch.zeros(group.size) for group in groups})


def _size(stage: str, index: int, tower: str, removed: int, anatomy: Anatomy) -> Size:
    towers = tower.split(", ")
    widths = {f"{name}.{axis}": body.width for name in towers for axis, body in anatomy.tower(name).axes.items()}
    return Size(stage, index, tower, removed, count_by_tower(anatomy), widths)
