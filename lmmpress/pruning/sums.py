"""Sums of element-wise importance along the dimensions that groups own (Eq. 2-4), made while gradients appear.

Nothing here reads a number back from the device before all sums are complete, so a GPU never waits for the host; and
nothing has the size of a whole tensor, so that no copy of a gradient is made.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from lmmpress.axes.slices import Group, Slice

Scores = dict[str, torch.Tensor]
Named = tuple[str, torch.nn.Parameter]

BLOCK = 1 << 22
"""The most elements of a tensor that are multiplied at a time: few enough that the product stays in a GPU's cache."""

_APART = 16  # each vector begins at a multiple of so many numbers, so that its address does not change its sums


@dataclass(frozen=True)
class Vectors:
    """The sums of each tensor along some of its dimensions: `along[tensor][dimension]`, all of them parts of `flat`."""

    flat: torch.Tensor
    along: dict[str, dict[int, torch.Tensor]]


class Sums:
    """Which sums the scores of some groups need: along one vector per tensor and dimension that groups own slices of.

    The groups' scores are computed from them once, at the end. With `counted_only` the slices count that Eq. 2-4 name.
    """

    def __init__(self, model: torch.nn.Module, groups: list[Group], counted_only: bool) -> None:
        self._groups = groups
        self._owners: dict[tuple[str, int], list[tuple[str, Slice]]] = {}
        for group in self._groups:
            for piece in group.slices:
                if piece.counted or not counted_only:
                    self._owners.setdefault((piece.tensor, piece.dim), []).append((group.name, piece))
        owned = {tensor for tensor, _ in self._owners}
        self.model = model
        self.parameters: list[Named] = [named for named in model.named_parameters() if named[0] in owned]
        shapes = {name: parameter.shape for name, parameter in self.parameters}
        self._places: dict[tuple[str, int], slice] = {}
        start = 0
        for tensor, dim in self._owners:
            if tensor in shapes:
                self._places[tensor, dim] = slice(start, start + shapes[tensor][dim])
                start += -(-shapes[tensor][dim] // _APART) * _APART
        self._size = start

    def new(self) -> Vectors:
        """Zeros for every tensor and each of its dimensions that groups own slices of, in float32, or in float64 if a
        parameter is."""
        wide = any(parameter.dtype is torch.float64 for _, parameter in self.parameters)
        device = self.parameters[0][1].device
        flat = torch.zeros(self._size, dtype=torch.float64 if wide else torch.float32, device=device)
        along: dict[str, dict[int, torch.Tensor]] = {name: {} for name, _ in self.parameters}
        for (tensor, dim), place in self._places.items():
            along[tensor][dim] = flat[place]
        return Vectors(flat, along)

    def by_group(self, vectors: Vectors) -> Scores:
        """Eq. 2-4: every dimension's sum over the slices that it owns, in float64, on the CPU, which gets all sums of
        the device at once."""
        totals = {group.name: torch.zeros(group.size, dtype=torch.float64) for group in self._groups}
        flat = vectors.flat.cpu()
        for owned, place in self._places.items():
            for group, piece in self._owners[owned]:
                sums = flat[place].double().view(piece.view).sum((0, 2))
                totals[group][piece.offset : piece.offset + len(sums)] += sums
        return totals


def add_importance(
    along: dict[int, torch.Tensor],
    parameter: torch.Tensor,
    gradient: torch.Tensor | None,
    weight: float = 1.0,
    signed: bool = False,
) -> None:
    """Add one tensor's element-wise importance to its vectors, `weight` times: |g * theta|, or g * theta if `signed`,
    or |theta| without a gradient. Both tensors stay as they are."""
    parameter = parameter.detach()
    rows = max(1, BLOCK * len(parameter) // max(1, parameter.numel()))
    for start in range(0, len(parameter), rows):
        block = slice(start, start + rows)
        part = parameter[block].clone() if gradient is None else gradient[block] * parameter[block]
        inside = {dim: vector[block] if dim == 0 else vector for dim, vector in along.items()}
        (_by_reduction if part.is_cuda else _by_products)(inside, part, weight, signed)


def _by_products(along: dict[int, torch.Tensor], part: torch.Tensor, weight: float, signed: bool) -> None:
    """Add the sums of a part by matrix products, which are faster than reductions on a CPU. It may change the part."""
    values = part if signed else part.abs_()
    for dim, vector in along.items():
        if values.ndim == 2:
            values = values.to(vector.dtype)
            matrix = values if dim == 0 else values.T
            vector.addmv_(matrix, vector.new_ones(matrix.shape[1]), alpha=weight)
        else:
            vector.add_(values.movedim(dim, 0).reshape(len(vector), -1).sum(1, dtype=vector.dtype), alpha=weight)


def _by_reduction(along: dict[int, torch.Tensor], part: torch.Tensor, weight: float, signed: bool) -> None:
    """Add the sums of a part by reductions, which on a GPU read every number once, in the type that it has: no copy in
    float32 is written, nor one of absolute values."""
    for dim, vector in along.items():
        others = [other for other in range(part.ndim) if other != dim]
        if not others:
            vector.add_(part if signed else part.abs(), alpha=weight)
        elif signed:
            vector.add_(part.sum(others, dtype=vector.dtype), alpha=weight)
        else:
            vector.add_(torch.linalg.vector_norm(part, 1, others, dtype=vector.dtype), alpha=weight)


def shares(parameters: list[Named], passes: int) -> Iterable[list[Named]]:
    """Split parameters into consecutive shares of about the same number of elements."""
    total = sum(parameter.numel() for _, parameter in parameters)
    share: list[Named] = []
    size, done = 0, 0
    for named in parameters:
        share.append(named)
        size += named[1].numel()
        if size >= total * (done + 1) / passes:
            yield share
            share, done = [], done + 1
    if share:
        yield share
