"""Least-squares repair of a cut: the layers that read what was cut are fitted to what they computed before it.

A linear layer computes W x. If only the inputs K of x are left, the weights W' that come closest to W x on given rows,
in the sum of squares, are W H[:, K] H[K, K]^-1 with H the sum of x x^T over the rows (the reconstruction of a layer in
Hassibi and Stork, Optimal Brain Surgeon, 1993, here for whole columns at once). Inputs that are correlated with those
that are gone take over from them, which no choice of dimensions alone can do.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import torch

from lmmpress.axes.cut import Cut
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.batches import Batch
from lmmpress.lmm.tensor_cut import TensorCut, compose
from lmmpress.progress import track
from lmmpress.pruning.memory import MOST_MOMENTS

RIDGE = 1e-3
"""How strongly weights are held to what they were, as a share of the mean square of an input."""

Forward = Callable[[torch.nn.Module, Batch], object]


@torch.no_grad()
def refit(
    model: torch.nn.Module,
    uncut: torch.nn.Module,
    anatomy: Anatomy,
    cuts: list[Cut],
    batches: Sequence[Batch],
    forward: Forward,
) -> list[str]:
    """Refit, in place, the linear layers of `model` whose inputs `cuts` have cut. Returns the names of the parameters
    that it has changed.

    `uncut` is the model that the cuts were applied to, `anatomy` its anatomy. `forward` runs a model on a batch. A
    layer's inputs are taken from the uncut model, so the layers do not depend on each other. A bias is fitted too.
    Layers whose weights are tied to others stay as they are.
    """
    cut = TensorCut(anatomy, compose(anatomy, cuts))
    after, changed = dict(model.named_parameters()), []
    layers = dict(_cut_readers(uncut, anatomy, cut))
    for names in _shares(layers):
        moments = _moments(uncut, {name: layers[name] for name in names}, batches, forward)
        for name in names:
            layer, (second, mean) = layers[name], moments.pop(name)
            kept = next(rows for dim, rows in cut.index(f"{name}.weight") if dim == 1).to(second.device)
            weight, shift = _fitted(layer.weight, kept, second, mean if layer.bias is not None else None)
            values = {f"{name}.weight": layer.weight.float().index_copy(1, kept, weight.float())}
            if shift is not None:
                values[f"{name}.bias"] = layer.bias.float() + shift.float()
            for tensor, value in values.items():
                renamed = cut.name(tensor) or ""
                after[renamed].copy_(cut.values(tensor, value.cpu()).to(after[renamed]))
                changed.append(renamed)
    return changed


def _cut_readers(uncut: torch.nn.Module, anatomy: Anatomy, cut: TensorCut) -> Iterator[tuple[str, torch.nn.Linear]]:
    """The linear layers of which a cut takes inputs, by name."""
    tied = set(chain.from_iterable(anatomy.ties.items()))
    for name, module in uncut.named_modules():
        weight = f"{name}.weight"
        if not isinstance(module, torch.nn.Linear) or weight in tied or cut.name(weight) is None:
            continue
        if any(dim == 1 for dim, _ in cut.index(weight)):
            yield name, module


def _shares(layers: dict[str, torch.nn.Linear]) -> Iterator[list[str]]:
    """The layers in their order, as many at a time as have moments that may be held together."""
    share: list[str] = []
    held = 0
    for name, layer in layers.items():
        size = 4 * layer.in_features**2
        if share and held + size > MOST_MOMENTS:
            yield share
            share, held = [], 0
        share.append(name)
        held += size
    if share:
        yield share


def _moments(
    uncut: torch.nn.Module, layers: dict[str, torch.nn.Linear], batches: Iterable[Batch], forward: Forward
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The mean of x x^T [inputs, inputs] and of x [inputs] of each layer, in float32, over all places that hold
    something."""
    sums: dict[str, list[torch.Tensor]] = {}
    counts: dict[str, int] = {}

    def add(name: str, inputs: torch.Tensor, masks: list[torch.Tensor]) -> None:
        x = _rows(inputs, masks).float()
        parts = [x.T @ x, x.sum(0)]
        for total, part in zip(sums.setdefault(name, [torch.zeros_like(part) for part in parts]), parts, strict=True):
            total += part
        counts[name] = counts.get(name, 0) + len(x)

    with _seeing_inputs(layers, add) as seen:
        for batch in track(batches, "refit"):
            seen[:] = [batch.inputs["attention_mask"].bool(), batch.where]
            forward(uncut, batch)
    return {name: (second / counts[name], first / counts[name]) for name, (second, first) in sums.items()}


@contextmanager
def _seeing_inputs(
    layers: dict[str, torch.nn.Linear], add: Callable[[str, torch.Tensor, list[torch.Tensor]], None]
) -> Iterator[list[torch.Tensor]]:
    """In this context `add` gets every input of the layers. Gives the list of the masks of the batch in hand."""
    masks: list[torch.Tensor] = []
    handles = [
        layer.register_forward_pre_hook(lambda _, args, name=name: add(name, args[0].detach(), masks))
        for name, layer in layers.items()
    ]
    try:
        yield masks
    finally:
        for handle in handles:
            handle.remove()


def _rows(inputs: torch.Tensor, masks: list[torch.Tensor]) -> torch.Tensor:
    """A layer's inputs as rows [places, inputs], without padding. An image side has no mask of its shape, nor padding;
    of an encoder-decoder the second mask is the decoder's."""
    for mask in masks:
        if mask.shape == inputs.shape[:-1]:
            return inputs[mask]
    return inputs.flatten(0, -2)


def _fitted(
    weight: torch.Tensor, kept: torch.Tensor, second: torch.Tensor, mean: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The weights [outputs, kept] closest to `weight` [outputs, inputs] on rows of these moments, and what the bias
    gains; in float64.

    With a bias, inputs count from their mean, and the bias takes what the means of the others gave. The ridge draws
    towards the weights as they were.
    """
    w, h = weight.double(), second.double()
    if mean is not None:
        h = h - torch.outer(mean.double(), mean.double())
    ridge = RIDGE * h.diagonal().mean().clamp_min(torch.finfo(torch.float32).tiny)
    square = h[kept][:, kept] + ridge * torch.eye(len(kept), dtype=h.dtype, device=h.device)
    fitted = torch.linalg.solve(square, h[kept] @ w.T + ridge * w[:, kept].T).T
    if mean is None:
        return fitted, None
    return fitted, w @ mean.double() - fitted @ mean.double()[kept]
