"""A model's anatomy: which slice of which tensor belongs to each dimension that can be cut.

Everything here is data, declared by a family file from the model's config alone. Importance sums over slices, a cut
keeps some of them, and a parameter count is arithmetic on their sizes, so that none of the three knows a family.
"""

from dataclasses import dataclass, field
from math import prod
from typing import Literal

from lmmpress.errors import UserError
from lmmpress.plan import Axis

Shape = tuple[int, ...]
Shapes = dict[str, Shape]
Exactness = Literal["exact", "exact after rescale", "approximate"]


@dataclass(frozen=True)
class Slice:
    """Where the dimensions of a group lie in one tensor.

    The tensor's dimension `dim` is seen as `view` = (outer, size, inner), and dimension n of the group owns
    `[:, n, :]` of it: heads stand outside of a head's width, the two halves of rotary planes outside of the planes.
    `counted` tells whether Eq. 2-4 name the tensor. Where a cut takes the group from n to m dimensions, the tensor is
    multiplied by (n / m) ** `power`, which keeps attention scores and RMS norms what they were; only its first
    `scaled` outer places are, where a tensor holds more than what is to be scaled (a query fused with key and value).
    `shift` is what the model adds to the stored values before it multiplies by them. The group's dimension 0 of this
    slice is number `offset` of the group, for tensors that hold only a part of it.
    """

    tensor: str
    dim: int
    view: tuple[int, int, int]
    counted: bool = True
    power: float = 0.0
    offset: int = 0
    scaled: int | None = None
    shift: float = 0.0


@dataclass(frozen=True)
class Group:
    """Dimensions among which a cut chooses; each unit of a stage's amount takes `grain` of them.

    At least one of the first `anchored` dimensions stays in every cut.
    """

    name: str
    size: int
    slices: tuple[Slice, ...]
    grain: int = 1
    anchored: int = 0


@dataclass(frozen=True)
class AxisAnatomy:
    """The groups of one axis of one tower. `unit` is the smallest amount a cut can remove; `width` the whole.

    `exactness` tells how a cut compares with the uncut model whose removed weights are zero; `silenced` are the tensors
    that are zero in it where a block is removed.
    """

    groups: tuple[Group, ...]
    width: int
    unit: int = 1
    exactness: Exactness = "exact"
    inexpressible: str | None = None
    silenced: tuple[str, ...] = ()

    def dimensions(self, amount: int, group: Group) -> int:
        """How many of the group's dimensions an amount stands for."""
        return amount // self.unit * group.grain


@dataclass(frozen=True)
class Stack:
    """Blocks in a row, whose tensors are `<prefix>.<number>.<rest>`. `group` names the group of its blocks, `within`
    what the names of groups inside of block n begin with: `<within>.<n>`, after the axis."""

    prefix: str
    depth: int
    group: str
    within: str = ""

    def number(self, tensor: str) -> int | None:
        """The number of the block that a tensor belongs to; None for tensors outside of the stack."""
        if not tensor.startswith(f"{self.prefix}."):
            return None
        return int(tensor[len(self.prefix) + 1 :].split(".", 1)[0])

    def renumbered(self, tensor: str, number: int) -> str:
        """The same tensor's name in another block."""
        rest = tensor[len(self.prefix) + 1 :].split(".", 1)[1]
        return f"{self.prefix}.{number}.{rest}"


@dataclass(frozen=True)
class Tower:
    """A module with one or more block stacks (an encoder and a decoder that share their widths are one tower)."""

    name: str
    stacks: tuple[Stack, ...]
    axes: dict[Axis, AxisAnatomy]
    final_norms: tuple[str, ...]

    def owns(self, tensor: str) -> bool:
        """Whether the tensor is part of the tower's blocks or a final norm."""
        prefixes = (*(stack.prefix for stack in self.stacks), *self.final_norms)
        return tensor.startswith(tuple(f"{prefix}." for prefix in prefixes))


@dataclass(frozen=True)
class Projector:
    """The module whose inputs are the visual features and whose outputs the language tower reads; the model takes them
    as one tensor, or `listed` by image."""

    module: str
    listed: bool = False


@dataclass(frozen=True)
class Anatomy:
    """A model seen as towers. `shapes` holds every stored tensor; `ties` maps further names to the stored one.

    `heads` and `embeddings` are prefixes of the tensors that are neither. `projector` is what the language tower sees
    images through, `image_towers` the towers that make them, and `image_side`
    prefixes of every tensor that has a part in it.
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
        """The tower of that name; UserError names the ones there are."""
        if name not in self.towers:
            raise UserError(f"this {self.family} model has no tower {name!r}; it has {', '.join(self.towers)}")
        return self.towers[name]

    def groups(self) -> dict[str, Group]:
        """Every group of every axis of every tower, by name."""
        return {
            group.name: group for tower in self.towers.values() for axis in tower.axes.values() for group in axis.groups
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
    """Raise ValueError where a declared slice does not fit its tensor: a fault of the family file, not of the model."""
    for group in anatomy.groups().values():
        for piece in group.slices:
            shape = anatomy.shapes.get(piece.tensor)
            if shape is None:
                raise ValueError(f"{anatomy.family}: {group.name} names {piece.tensor}, which the model lacks")
            if prod(piece.view) != shape[piece.dim] or piece.offset + piece.view[1] > group.size:
                raise ValueError(f"{anatomy.family}: {group.name} does not fit {piece.tensor} {shape}: {piece}")
