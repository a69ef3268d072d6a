"""Which slice of which tensor belongs to a dimension that can be cut.

Everything here is data. Importance sums over slices, a cut keeps some of them, and a parameter count is arithmetic on
their sizes. So none of the three needs to know an axis or a family.
"""

from dataclasses import dataclass
from typing import Literal

Shape = tuple[int, ...]
Shapes = dict[str, Shape]
Exactness = Literal["exact", "exact after rescale", "approximate"]


@dataclass(frozen=True)
class Slice:
    """Where the dimensions of a group are in one tensor.

    The tensor's dimension `dim` is seen as `view` = (outer, size, inner), and dimension n of the group owns
    `[:, n, :]` of it: `outer` counts heads if the group is a head's width, and the two halves if it is rotary planes.
    `counted` is true if Eq. 2-4 name the tensor. If a cut takes the group from n to m dimensions, the tensor is
    multiplied by (n / m) ** `power`, which preserves attention scores and RMS norms. If `scaled` is given, only its
    first `scaled` outer places are multiplied (the query of a tensor that fuses it with key and value). `shift` is what
    the model adds to the stored values before it multiplies by them. `offset` is the group's number of the slice's
    dimension 0, for tensors that hold only a part of the group.
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
    """Dimensions among which a cut chooses; each removed unit takes `grain` of them.

    `group_name` makes its name: tower and axis, then, for a group inside of a block, the name of the stack if it has
    one, and the block's number. At least one of the first `anchored` dimensions stays in every cut.
    """

    name: str
    size: int
    slices: tuple[Slice, ...]
    grain: int = 1
    anchored: int = 0


@dataclass(frozen=True)
class AxisAnatomy:
    """The groups of one axis of one tower. `unit` is the least that a cut can remove; `width` the whole.

    `exactness` says how a cut compares with the uncut model whose removed weights are zero. `silenced` are the tensors
    that are zero in that model for a removed block. `maskable` is false if no such zeros give the same model.
    `inexpressible` is the reason why the tower cannot be cut along the axis.
    """

    groups: tuple[Group, ...]
    width: int
    unit: int = 1
    exactness: Exactness = "exact"
    inexpressible: str | None = None
    silenced: tuple[str, ...] = ()
    maskable: bool = True

    def dimensions(self, removed: int, group: Group) -> int:
        """How many of the group's dimensions a cut removes that takes `removed` from the axis."""
        return removed // self.unit * group.grain


def group_name(*parts: object) -> str:
    """A group's name: the non-empty parts, joined by dots."""
    return ".".join(str(part) for part in parts if part != "")


def outputs_of(
    module: str,
    view: tuple[int, int, int],
    shapes: Shapes,
    counted: bool = True,
    power: float = 0.0,
    scaled: int | None = None,
    shift: float = 0.0,
) -> list[Slice]:
    """A module's outputs: the rows of its weight, and its bias, which Eq. 2-4 do not count and which has no shift."""
    pieces = []
    if f"{module}.weight" in shapes:
        pieces.append(Slice(f"{module}.weight", 0, view, counted, power, scaled=scaled, shift=shift))
    if f"{module}.bias" in shapes:
        pieces.append(Slice(f"{module}.bias", 0, view, False, power, scaled=scaled))
    return pieces


def inputs_of(module: str, view: tuple[int, int, int], counted: bool = True) -> list[Slice]:
    """A module's inputs: the columns of its weight."""
    return [Slice(f"{module}.weight", 1, view, counted)]
