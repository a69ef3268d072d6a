"""A model's anatomy: its towers, and along each axis the slices of tensors that belong to each dimension.

Everything here is data, declared by a family file from the model's config alone.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from math import prod

from lmmpress.axes import axis_named
from lmmpress.axes.layout import Stack
from lmmpress.axes.slices import AxisAnatomy, Group, Shapes
from lmmpress.errors import UserError


@dataclass(frozen=True)
class Tower:
    """A module with one or more stacks of blocks (an encoder and a decoder that share their widths are one tower)."""

    name: str
    stacks: tuple[Stack, ...]
    axes: dict[str, AxisAnatomy]
    final_norms: tuple[str, ...]

    def owns(self, tensor: str) -> bool:
        """Whether the tensor is part of the tower's blocks or a final norm."""
        prefixes = (*(stack.prefix for stack in self.stacks), *self.final_norms)
        return tensor.startswith(tuple(f"{prefix}." for prefix in prefixes))


@dataclass(frozen=True)
class Projector:
    """The module that maps visual features to inputs of the language tower. The model takes the features as one tensor,
    or as a list with one entry per image if `listed`."""

    module: str
    listed: bool = False


@dataclass(frozen=True)
class Anatomy:
    """A model seen as towers. `shapes` holds every stored tensor; `ties` maps further names to the stored one.

    `heads` and `embeddings` are prefixes of tensors outside of the towers. `projector` maps the features of images to
    inputs of the language tower, `image_towers` compute these features, and `image_side` are prefixes of every tensor
    that this computation uses.
    """

    family: str
    config: dict[str, object] = field(repr=False)
    shapes: Shapes = field(repr=False)
    ties: dict[str, str]
    towers: dict[str, Tower]
    embeddings: tuple[str, ...]
    heads: tuple[str, ...]
    projector: Projector | None = None
    image_towers: tuple[str, ...] = ()
    image_side: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """How many parameters the model has."""
        return sum(map(prod, self.shapes.values()))

    def tower(self, name: str) -> Tower:
        """The tower of that name; UserError with the model's towers if there is none."""
        if name not in self.towers:
            raise UserError(f"this {self.family} model has no tower {name!r}; it has {', '.join(self.towers)}")
        return self.towers[name]

    def axis(self, tower: str, name: str) -> AxisAnatomy:
        """A tower along an axis; UserError if there is no such tower or axis, or the tower has nothing along it."""
        found = self.tower(tower).axes.get(axis_named(name).name)
        if found is None:
            raise UserError(f"the {tower} tower of this {self.family} model has nothing along axis {name}")
        return found

    def groups(self, axes: Collection[str] | None = None) -> dict[str, Group]:
        """Every group of every tower along these axes, or along all, by name."""
        return {
            group.name: group
            for tower in self.towers.values()
            for axis, body in tower.axes.items()
            if axes is None or axis in axes
            for group in body.groups
        }

    def largest_tower(self) -> str:
        """The tower with the most parameters: the paper's "largest module" (Algorithm 1, line 4)."""
        sizes = count_by_tower(self)
        return max(self.towers, key=lambda name: sizes[name])


def count_by_tower(anatomy: Anatomy) -> dict[str, int]:
    """Parameters of each tower (blocks and final norm), of `embeddings`, of `heads`, and of all the `rest`."""
    counts = dict.fromkeys([*anatomy.towers, "embeddings", "heads", "rest"], 0)
    for tensor, shape in anatomy.shapes.items():
        counts[_room(anatomy, tensor)] += prod(shape)
    return counts


def _room(anatomy: Anatomy, tensor: str) -> str:
    for tower in anatomy.towers.values():
        if tower.owns(tensor):
            return tower.name
    if tensor.startswith(anatomy.embeddings):
        return "embeddings"
    return "heads" if tensor.startswith(anatomy.heads) else "rest"


def check_slices(anatomy: Anatomy) -> None:
    """Raise ValueError if a declared slice does not fit its tensor: a fault of the family file, not of the model."""
    for group in anatomy.groups().values():
        for piece in group.slices:
            shape = anatomy.shapes.get(piece.tensor)
            if shape is None:
                raise ValueError(f"{anatomy.family}: {group.name} names {piece.tensor}, which the model lacks")
            if prod(piece.view) != shape[piece.dim] or piece.offset + piece.view[1] > group.size:
                raise ValueError(f"{anatomy.family}: {group.name} does not fit {piece.tensor} {shape}: {piece}")
