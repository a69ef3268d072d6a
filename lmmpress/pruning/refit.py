"""Least-squares repair of a cut: layer by layer, a cut model is fitted to what the model before the cut computes.

A linear layer of the uncut model computes y from its inputs; in the cut model the layer has other inputs x: fewer, and
changed by what was cut before it. The weights that come closest to y on given rows, in the sum of squares, are
Y X^T (X X^T)^-1. (Hassibi and Stork, Optimal Brain Surgeon, 1993, repair the weights that stay in the same way; Frantar
et al., GPTQ, 2022, go through the layers in their order and take the inputs that the changed layers before each give.)
So inputs that are correlated with those that are gone take over from them, and an error that one layer makes is made
good by the next, which no choice of dimensions alone can do.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch

from lmmpress.axes.cut import Cut
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.batches import Batch
from lmmpress.lmm.tensor_cut import TensorCut, compose
from lmmpress.progress import track

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
    """Refit, in place, the linear layers of the towers of `model` that `cuts` have cut, in the order in which it runs
    them, from the first that was cut. Returns the names of the parameters that it has changed.

    `uncut` is the model that the cuts were applied to, `anatomy` its anatomy. `forward` runs a model on a batch. Each
    layer, or those that read the same inputs, takes one pass over the batches with both models. A bias is fitted too.
    Layers whose weights are tied to others stay as they are.
    """
    cut = TensorCut(anatomy, compose(anatomy, cuts))
    before = _layers_before(uncut, anatomy, cut, {one.tower for one in cuts})
    after = {name: model.get_submodule(name) for name in before}
    order = _in_order(model, after, batches[:1], forward)
    changed: list[str] = []
    for names in track(_from_first_cut(order, before, cut), "refit"):
        pairs = {name: _Moments(before[name].layer, after[name]) for name in names}
        for batch in batches:
            masks = [batch.inputs["attention_mask"].bool(), batch.where]
            with _calls_of({name: pair.uncut for name, pair in pairs.items()}) as outputs:
                forward(uncut, batch)
            with _calls_of({name: pair.layer for name, pair in pairs.items()}) as inputs:
                forward(model, batch)
            for name, pair in pairs.items():
                for (_, y), (x, _) in zip(outputs.pop(name), inputs.pop(name), strict=True):
                    pair.add(_rows(x, masks), _rows(y, masks))
        for name, pair in pairs.items():
            changed += pair.fit(name, partial(cut.outputs, before[name].weight))
    return changed


@dataclass(frozen=True)
class _Before:
    """A layer of the uncut model, and the name of its weight there."""

    layer: torch.nn.Module
    weight: str


def _layers_before(
    uncut: torch.nn.Module, anatomy: Anatomy, cut: TensorCut, towers: Iterable[str]
) -> dict[str, _Before]:
    """The linear layers of some towers that may be refitted, by their names in the cut model."""
    tied = set(chain.from_iterable(anatomy.ties.items()))
    found = {}
    for name, module in uncut.named_modules():
        weight = f"{name}.weight"
        owned = any(anatomy.tower(tower).owns(weight) for tower in towers)
        if isinstance(module, torch.nn.Linear) and owned and weight not in tied and (renamed := cut.name(weight)):
            found[renamed.removesuffix(".weight")] = _Before(module, weight)
    return found


def _in_order(
    model: torch.nn.Module, layers: dict[str, torch.nn.Module], batches: Iterable[Batch], forward: Forward
) -> list[list[str]]:
    """The names of layers in the order in which a model first runs them; those that read the same tensor in turn are
    together."""
    order: list[list[str]] = []
    seen: set[str] = set()
    last: list[torch.Tensor] = []

    def note(name: str, inputs: torch.Tensor) -> None:
        if name in seen:
            return
        seen.add(name)
        if last and last[0] is inputs:
            order[-1].append(name)
        else:
            order.append([name])
        last[:] = [inputs]

    handles = [
        layer.register_forward_pre_hook(lambda _, args, name=name: note(name, args[0]))
        for name, layer in layers.items()
    ]
    try:
        for batch in batches:
            forward(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return order


def _from_first_cut(order: list[list[str]], before: dict[str, _Before], cut: TensorCut) -> list[list[str]]:
    """The layers from the first of which a cut takes something: those before it compute what they did."""
    for place, names in enumerate(order):
        if any(cut.index(before[name].weight) for name in names):
            return order[place:]
    return []


@contextmanager
def _calls_of(layers: dict[str, torch.nn.Module]) -> Iterator[dict[str, list[tuple[torch.Tensor, torch.Tensor]]]]:
    """In this context the inputs and outputs of every call of the layers are kept, by name."""
    calls: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {name: [] for name in layers}
    handles = [
        layer.register_forward_hook(lambda _, args, output, name=name: calls[name].append((args[0], output)))
        for name, layer in layers.items()
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _rows(values: torch.Tensor, masks: list[torch.Tensor]) -> torch.Tensor:
    """Inputs or outputs of a layer as rows [places, width], without padding. An image side has no mask of its shape,
    nor padding; of an encoder-decoder the second mask is the decoder's."""
    for mask in masks:
        if mask.shape == values.shape[:-1]:
            return values[mask]
    return values.flatten(0, -2)


class _Moments:
    """What fitting one layer needs: the sums over all rows of x x^T, y x^T, x and y, with the inputs x of the layer in
    the cut model, and the outputs y of the same layer in the uncut model."""

    def __init__(self, uncut: torch.nn.Module, layer: torch.nn.Module) -> None:
        self.uncut, self.layer = uncut, layer
        self._sums: list[torch.Tensor] = []
        self._count = 0

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        x, y = x.float(), y.float()
        parts = [x.T @ x, y.T @ x, x.sum(0), y.sum(0)]
        self._sums = [total + part for total, part in zip(self._sums, parts, strict=True)] if self._sums else parts
        self._count += len(x)

    def fit(self, name: str, outputs: Callable[[torch.Tensor], torch.Tensor]) -> list[str]:
        """Put the fitted weights into the layer, whose `name` begins the names that are returned. `outputs` takes from
        values [outputs of the uncut layer, ...] those that the layer still has."""
        xx, yx, x, y = (total / self._count for total in self._sums)
        weight, bias = self.layer.get_parameter("weight"), self.layer._parameters.get("bias")
        yx, y = (outputs(value.cpu()).to(weight.device) for value in (yx, y))
        fitted, shift = fitted_weights(weight, xx, yx, None if bias is None else (x, y))
        weight.copy_(fitted.to(weight))
        if bias is None or shift is None:
            return [f"{name}.weight"]
        bias.copy_(shift.to(bias))
        return [f"{name}.weight", f"{name}.bias"]


def fitted_weights(
    weight: torch.Tensor, xx: torch.Tensor, yx: torch.Tensor, means: tuple[torch.Tensor, torch.Tensor] | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The weights [outputs, inputs] that give y from x with the least squares, from the means of x x^T and y x^T; with
    the `means` of x and y also the bias, else None. In float64; a ridge draws towards `weight` as it is."""
    w, a, b = weight.double(), xx.double(), yx.double()
    if means is not None:
        x, y = (mean.double() for mean in means)
        a, b = a - torch.outer(x, x), b - torch.outer(y, x)
    ridge = RIDGE * a.diagonal().mean().clamp_min(torch.finfo(torch.float32).tiny)
    square = a + ridge * torch.eye(len(a), dtype=a.dtype, device=a.device)
    fitted = torch.linalg.solve(square, b.T + ridge * w.T).T
    return fitted, None if means is None else y - fitted @ x
