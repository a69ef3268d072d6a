"""The sizes of a model after every step of a plan, from configs alone."""

from collections import Counter
from dataclasses import dataclass
from math import prod

import torch

from lmmpress.axes.cut import Cut
from lmmpress.axes.slices import Shape
from lmmpress.errors import UserError
from lmmpress.lmm.anatomy import Anatomy, count_by_tower
from lmmpress.lmm.read_anatomy import anatomy_after
from lmmpress.plan import Plan
from lmmpress.pruning.choose import check_removed, choose
from lmmpress.pruning.importance import other_axes, scored_axes
from lmmpress.pruning.memory import Need, Weights, needs_of
from lmmpress.stages import Stage


@dataclass(frozen=True)
class Size:
    """The model after a step: parameters by tower (with embeddings, heads and the rest) and widths of the tower."""

    stage: str
    index: int
    tower: str
    removed: int
    parameters_by_tower: dict[str, int]
    widths: dict[str, int]


@dataclass(frozen=True)
class StepSize:
    """The model after a step: its size, the axis of the cut (none for the uncut model), and its anatomy."""

    size: Size
    axis: str
    anatomy: Anatomy


def predict(anatomy: Anatomy, plan: Plan) -> list[Size]:
    """The sizes after every step if the gate accepts them all, the uncut model first; see `sizes_of`."""
    return [step.size for step in sizes_of(anatomy, plan)]


def sizes_of(anatomy: Anatomy, plan: Plan) -> list[StepSize]:
    """The model after every step if the gate accepts them all, the uncut model first.

    The plan has no shares any more: `lmmpress.pruning.amounts.with_numbers`. Raises UserError if a step or a maximum is
    not legal for the model, before any work is done.
    """
    steps = [StepSize(_size("original", 0, ", ".join(towers_of(plan, anatomy)), 0, anatomy), "", anatomy)]
    for stage in plan.stages:
        try:
            steps += _steps_of(steps[-1].anatomy, plan, stage)
        except UserError as error:
            if len(steps) == 1:
                raise
            raise UserError(f"stage {stage.name}, after the steps before it: {error}") from None
    return steps


def _steps_of(anatomy: Anatomy, plan: Plan, stage: Stage) -> list[StepSize]:
    """The model after every step of a stage. The stage starts from the anatomy that the stages before it leave, because
    stages along one axis share its width."""
    steps = []
    for tower in plan.stage_towers(stage):
        if tower is not None:
            check_removed(anatomy.axis(tower, stage.axis), tower, stage.axis, stage.numbers(tower)[1])
        for index, removed in enumerate(stage.removals(tower)):
            name = tower or anatomy.largest_tower()
            anatomy = anatomy_after(anatomy, _any_cut(anatomy, name, stage.axis, removed))
            steps.append(StepSize(_size(stage.name, index, name, removed, anatomy), stage.axis, anatomy))
    return steps


def towers_of(plan: Plan, anatomy: Anatomy) -> list[str]:
    """The towers that a plan may cut: those it names, or all if it says `largest`."""
    used = plan.towers_in_use()
    return list(anatomy.towers) if "largest" in used else list(used)


def frozen_side(plan: Plan, anatomy: Anatomy) -> tuple[str, ...]:
    """Prefixes of the tensors that no step changes: the image side, unless one of its towers is cut."""
    cut = set(towers_of(plan, anatomy)) & set(anatomy.image_towers)
    return () if cut else anatomy.image_side


def predict_memory(anatomy: Anatomy, plan: Plan, sizes: list[Size], processes: int | None = None) -> tuple[Need, ...]:
    """What each part of a plan needs at least, with these sizes of its steps. `processes` distil on one machine; as
    many as the plan says by default."""
    frozen = frozen_side(plan, anatomy)
    cut = max((sum(size.parameters_by_tower.values()) for size in sizes[1:]), default=anatomy.parameters)
    groups = anatomy.groups(scored_axes(other_axes(stage.axis for stage in plan.stages))).values()
    every = plan.importance.owned == "all"
    scored = {piece.tensor for group in groups for piece in group.slices if piece.counted or every}
    sees_once = plan.distillation.cached is not None and bool(frozen)
    reached = {name for name in scored if not (sees_once and name.startswith(frozen))}
    numbers = {name: prod(shape) for name, shape in anatomy.shapes.items()}
    outside, block = outside_and_block(anatomy)
    weights = Weights(
        original=anatomy.parameters,
        cut=cut,
        trained=cut - sum(count for name, count in numbers.items() if frozen and name.startswith(frozen)),
        scored=sum(numbers[name] for name in scored),
        reached=sum(numbers[name] for name in reached),
        largest=max(numbers.values()),
        moments=_moments(anatomy, plan),
        head=sum(map(prod, head_shapes(anatomy))),
        outside=outside,
        block=block,
    )
    return needs_of(weights, plan, sees_once, processes)


def outside_and_block(anatomy: Anatomy) -> tuple[int, int]:
    """How many parameters are outside of blocks, and how many the largest block has: what processes that have a share
    of each tensor gather together."""
    outside, blocks = 0, Counter[tuple[str, int]]()
    stacks = [stack for tower in anatomy.towers.values() for stack in tower.stacks]
    for name, shape in anatomy.shapes.items():
        found = ((stack.prefix, number) for stack in stacks if (number := stack.number(name)) is not None)
        if block := next(found, None):
            blocks[block] += prod(shape)
        else:
            outside += prod(shape)
    return outside, max(blocks.values(), default=0)


def head_shapes(anatomy: Anatomy) -> tuple[Shape, ...]:
    """The shapes of the head's tensors, the vocabulary first; a tied head shares them with the embedding."""
    names = {name: anatomy.ties.get(name, name) for name in (*anatomy.shapes, *anatomy.ties)}
    return tuple(anatomy.shapes[owner] for name, owner in names.items() if name.startswith(anatomy.heads))


def _moments(anatomy: Anatomy, plan: Plan) -> int:
    """How many numbers refitting holds of the layer that needs the most: the products of its inputs with each other
    and with its outputs, as sums in float32 and, while they are solved, in float64."""
    towers = [anatomy.tower(name) for name in towers_of(plan, anatomy)]
    bodies = [body for tower in towers for body in tower.axes.values()]
    slices = [piece for body in bodies for group in body.groups for piece in group.slices]
    layers = [anatomy.shapes[piece.tensor] for piece in slices if piece.counted and piece.dim == 1]
    return 4 * max((inputs * (inputs + outputs) for outputs, inputs in layers), default=0)


def _any_cut(anatomy: Anatomy, tower: str, axis: str, removed: int) -> Cut:
    """A cut of the right size; sizes do not depend on which dimensions it removes."""
    groups = anatomy.axis(tower, axis).groups
    return choose(anatomy, tower, axis, removed, {group.name: torch.zeros(group.size) for group in groups})


def _size(stage: str, index: int, tower: str, removed: int, anatomy: Anatomy) -> Size:
    towers = tower.split(", ")
    widths = {f"{name}.{axis}": body.width for name in towers for axis, body in anatomy.tower(name).axes.items()}
    return Size(stage, index, tower, removed, count_by_tower(anatomy), widths)
