"""Cuts applied to the tensors of a model and to their shapes, and the composition of several cuts."""

import numpy as np
import torch

from lmmpress.axes.cut import Cut, Kept
from lmmpress.axes.layout import Stack
from lmmpress.axes.slices import Shapes, Slice
from lmmpress.errors import UserError
from lmmpress.lmm.anatomy import Anatomy

_SAME_WIDTH = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def check_cut(anatomy: Anatomy, cut: Cut) -> None:
    """Raise UserError if a cut does not fit the model: it was made for another one."""
    groups = {group.name: group for group in anatomy.axis(cut.tower, cut.axis).groups}
    for name, keep in cut.keep.items():
        fits = name in groups and keep == sorted(set(keep)) and keep and keep[0] >= 0 and keep[-1] < groups[name].size
        if not fits:
            raise UserError(
                f"this cut along {cut.axis} was made for another model: {name} does not fit this {anatomy.family} model"
            )


def compose(anatomy: Anatomy, cuts: list[Cut]) -> Kept:
    """What several cuts in turn keep of the first model, in the first model's numbers and names of groups.

    If groups of two axes have the same dimensions, a cut of the second counts as a cut of the first.
    """
    kept: Kept = {}
    same = _first_of_same(anatomy)
    blocks: Kept = {}  # for each stack, the original numbers of the blocks that are left
    stacks = [stack for tower in anatomy.towers.values() for stack in tower.stacks]
    for cut in cuts:
        renamed = _first_names(anatomy, cut, blocks)
        for name, keep in cut.keep.items():
            first = same[renamed[name]]
            before = kept.get(first)
            kept[first] = list(keep) if before is None else [before[number] for number in keep]
        blocks = {stack.group: kept[stack.group] for stack in stacks if stack.group in kept}
    return kept


def _first_of_same(anatomy: Anatomy) -> dict[str, str]:
    """Map each group to the first one with the same dimensions of the same tensors: mostly itself."""
    owners: dict[tuple[object, ...], str] = {}
    same = {}
    for group in anatomy.groups().values():
        places = tuple(
            (piece.tensor, piece.dim, piece.view, piece.power, piece.offset, piece.scaled, piece.shift)
            for piece in group.slices
        )
        same[group.name] = owners.setdefault(places, group.name) if places else group.name
    return same


def _first_names(anatomy: Anatomy, cut: Cut, blocks: Kept) -> dict[str, str]:
    """The first model's names of a cut's groups, if its blocks were renumbered before that cut."""
    names = {name: name for name in cut.keep}
    for stack in anatomy.towers[cut.tower].stacks:
        if stack.group not in blocks:
            continue
        stem = ".".join(part for part in (cut.tower, cut.axis, stack.within) if part)
        for name in cut.keep:
            number, _, rest = name[len(stem) + 1 :].partition(".")
            if name.startswith(f"{stem}.") and number.isdigit():
                names[name] = f"{stem}.{blocks[stack.group][int(number)]}" + (f".{rest}" if rest else "")
    return names


class TensorCut:
    """A cut by tensor: what it does to each one. It is built once per cut, and used once per tensor."""

    def __init__(self, anatomy: Anatomy, kept: Kept) -> None:
        self._stacks = [stack for tower in anatomy.towers.values() for stack in tower.stacks if stack.group in kept]
        self._kept = kept
        self._index: dict[str, list[tuple[int, torch.Tensor]]] = {}
        self._scales: dict[str, list[_Scale]] = {}
        blocks = {stack.group for stack in self._stacks}
        groups = anatomy.groups()
        owners: dict[tuple[str, int], str] = {}
        for name, keep in kept.items():
            if name in blocks:
                continue
            group = groups[name]
            numbers = torch.tensor(keep, dtype=torch.long)
            for piece in group.slices:
                outer, size, inner = piece.view
                rows = torch.arange(outer * size * inner).view(outer, size, inner)[:, numbers, :].reshape(-1)
                self._index.setdefault(piece.tensor, []).append((piece.dim, rows))
                if (owner := owners.setdefault((piece.tensor, piece.dim), name)) != name:
                    raise UserError(f"{owner} and {name} share dimensions of {piece.tensor}: cut them one by one")
                if piece.power:
                    factor = (group.size / len(keep)) ** piece.power
                    self._scales.setdefault(piece.tensor, []).append(_Scale(piece, factor, len(keep)))

    def name(self, tensor: str) -> str | None:
        """The tensor's name after the cut: renumbered if its block moved up, None if its block is gone."""
        for stack in self._stacks:
            number = stack.number(tensor)
            if number is not None:
                return _renumbered(stack, tensor, number, self._kept[stack.group])
        return tensor

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
        """The tensor's kept values, rescaled if norms or attention scores need it.

        torch multiplies half precision by a number in float32 and rounds once (tests/lmm/test_cut.py checks this).
        """
        for dim, rows in self.index(tensor):
            value = _take(value, dim, rows)
        for scale in self._scales.get(tensor, []):
            value = scale.apply(value)
        return value

    def outputs(self, tensor: str, value: torch.Tensor) -> torch.Tensor:
        """Of values [rows of the tensor, ...] those of the rows that stay, rescaled as these are."""
        for dim, rows in self.index(tensor):
            value = _take(value, 0, rows) if dim == 0 else value
        for scale in self._scales.get(tensor, []):
            value = scale.apply(value) if scale.dim == 0 else value
        return value


class _Scale:
    """Multiply a tensor, at all its places along a dimension or at the first ones."""

    def __init__(self, piece: Slice, factor: float, kept: int) -> None:
        self.factor, self.shift = factor, piece.shift
        self.dim = piece.dim
        self.first = None if piece.scaled is None else piece.scaled * kept * piece.view[2]

    def apply(self, value: torch.Tensor) -> torch.Tensor:
        if self.first is not None:
            head, tail = value.split([self.first, value.shape[self.dim] - self.first], dim=self.dim)
            return torch.cat([head * self.factor, tail], dim=self.dim)
        if self.shift:
            wide = value.double()
            return ((wide + self.shift) * self.factor - self.shift).to(value.dtype)
        return value * self.factor


def _renumbered(stack: Stack, tensor: str, number: int, kept: list[int]) -> str | None:
    return stack.renumbered(tensor, kept.index(number)) if number in kept else None


def _take(value: torch.Tensor, dim: int, rows: torch.Tensor) -> torch.Tensor:
    """`index_select`; through numpy for CPU tensors, which copies columns ten times as fast (bench/cut.py)."""
    if value.device.type != "cpu":
        return value.index_select(dim, rows.to(value.device))
    whole = value.detach().view(_SAME_WIDTH[value.dtype.itemsize])  # numpy knows no bfloat16
    return torch.from_numpy(np.take(whole.numpy(), rows.numpy(), axis=dim)).view(value.dtype)


def shapes_after(anatomy: Anatomy, kept: Kept) -> Shapes:
    """The shapes of all tensors after a cut, from shapes alone."""
    plan = TensorCut(anatomy, kept)
    named = ((plan.name(tensor), plan.shape(tensor, shape)) for tensor, shape in anatomy.shapes.items())
    return {name: shape for name, shape in named if name is not None}


def masked(anatomy: Anatomy, kept: Kept, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The uncut model with the removed weights set to zero, for comparison with an exact cut.

    A block's removed weights are those that write into the residual stream. There are none if blocks normalise the
    stream itself: zeros cannot undo that.
    """
    silenced = {name for tower in anatomy.towers.values() for body in tower.axes.values() for name in body.silenced}
    result = {name: value.clone() for name, value in tensors.items()}
    plan = TensorCut(anatomy, kept)
    for name, value in result.items():
        for dim, rows in plan.index(name):
            gone = torch.ones(value.shape[dim], dtype=torch.bool)
            gone[rows] = False
            value.index_fill_(dim, gone.nonzero().squeeze(1), 0)
        if plan.name(name) is None and name in silenced:
            value.zero_()
    return result | {alias: result[name] for alias, name in anatomy.ties.items()}
