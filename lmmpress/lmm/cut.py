"""A cut: which dimensions of one model stay. Small, JSON, composable."""

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from lmmpress.lmm.anatomy import Anatomy, Shapes
from lmmpress.plan import Axis

_SAME_WIDTH = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Cut(BaseModel):
    """What one step removes from one tower along one axis.

    `keep` maps the name of a group, as the anatomy of the model being cut spells it, to the sorted numbers of the
    dimensions that stay. Groups that are not named stay whole.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tower: str
    axis: Axis
    amount: int
    keep: dict[str, list[int]]


def renamed_block(anatomy: Anatomy, cut: Cut, tensor: str) -> str | None:
    """The tensor's name after the cut: renumbered if its block moved up, None if its block is gone."""
    if cut.axis is not Axis.block:
        return tensor
    prefix = anatomy.towers[cut.tower].blocks + "."
    if not tensor.startswith(prefix):
        return tensor
    number, _, rest = tensor[len(prefix) :].partition(".")
    kept = cut.keep[f"{cut.tower}.block"]
    return f"{prefix}{kept.index(int(number))}.{rest}" if int(number) in kept else None


class TensorCut:
    """A cut, turned round: what it does to each tensor. Made once per cut, asked once per tensor."""

    def __init__(self, anatomy: Anatomy, cut: Cut) -> None:
        self._anatomy, self._cut = anatomy, cut
        self._index: dict[str, list[tuple[int, torch.Tensor]]] = {}
        self._factor: dict[str, float] = {}
        groups = anatomy.groups()
        if cut.axis is Axis.block:
            return
        for name, keep in cut.keep.items():
            group = groups[name]
            kept = torch.tensor(keep, dtype=torch.long)
            for piece in group.slices:
                outer, size, inner = piece.view
                here = kept[(kept >= piece.offset) & (kept < piece.offset + size)] - piece.offset
                rows = torch.arange(outer * size * inner).view(outer, size, inner)[:, here, :].reshape(-1)
                self._index.setdefault(piece.tensor, []).append((piece.dim, rows))
                if piece.power:
                    factor = (group.size / len(keep)) ** piece.power
                    self._factor[piece.tensor] = self._factor.get(piece.tensor, 1.0) * factor

    def name(self, tensor: str) -> str | None:
        """The tensor's name after the cut, or None if it goes."""
        return renamed_block(self._anatomy, self._cut, tensor)

    def touches(self, tensor: str) -> bool:
        """Whether the cut changes the tensor's values or shape."""
        return tensor in self._index or tensor in self._factor

    def index(self, tensor: str) -> list[tuple[int, torch.Tensor]]:
        """Pairs of a dimension and the positions along it that stay."""
        return self._index.get(tensor, [])

    def shape(self, tensor: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The tensor's shape after the cut."""
        sizes = list(shape)
        for dim, rows in self.index(tensor):
            sizes[dim] = len(rows)
        return tuple(sizes)

    def values(self, tensor: str, value: torch.Tensor) -> torch.Tensor:
        """The tensor's kept values, rescaled where norms or attention scores ask for it.

        torch multiplies half precision by a number in float32 and rounds once (tests/test_weights.py holds it to that).
        """
        for dim, rows in self.index(tensor):
            value = _take(value, dim, rows)
        factor = self._factor.get(tensor, 1.0)
        return value if factor == 1.0 else value * factor


def _take(value: torch.Tensor, dim: int, rows: torch.Tensor) -> torch.Tensor:
    """`index_select`; through numpy for CPU tensors, which copies columns ten times as fast (bench/cut.py)."""
    if value.device.type != "cpu":
        return value.index_select(dim, rows.to(value.device))
    whole = value.detach().view(_SAME_WIDTH[value.dtype.itemsize])  # numpy knows no bfloat16
    return torch.from_numpy(np.take(whole.numpy(), rows.numpy(), axis=dim)).view(value.dtype)


def shapes_after(anatomy: Anatomy, cut: Cut) -> Shapes:
    """The shapes of all tensors after a cut, from shapes alone."""
    plan = TensorCut(anatomy, cut)
    named = ((plan.name(tensor), plan.shape(tensor, shape)) for tensor, shape in anatomy.shapes.items())
    return {name: shape for name, shape in named if name is not None}


def masked(anatomy: Anatomy, cut: Cut, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The uncut model with the removed weights set to zero: what an exact cut is compared with."""
    result = {name: value.clone() for name, value in tensors.items()}
    for name, value in result.items():
        for dim, rows in TensorCut(anatomy, cut).index(name):
            gone = torch.ones(value.shape[dim], dtype=torch.bool)
            gone[rows] = False
            value.index_fill_(dim, gone.nonzero().squeeze(1), 0)
    return result | {alias: result[name] for alias, name in anatomy.ties.items()}
