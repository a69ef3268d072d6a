"""Importance of dimensions (Eq. 1-4): one pass over the data scores every tower along every requested axis.

Eq. 1 defines a parameter's importance as |dL/dtheta * theta|; Eq. 2-4 sum it over all parameters that a dimension owns,
which the anatomy lists. The equations do not say where the absolute value is taken: of the gradient of the whole data
set, of every batch, or of every sample. For the last two, each layer's gradient is freed at once; the first keeps the
gradient of every parameter, or of a share of them in each of several passes.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from lmmpress.axes import axes, axis_named
from lmmpress.axes.slices import Group, Slice
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.batches import Batch
from lmmpress.progress import track
from lmmpress.settings.importance import Importance

Scores = dict[str, torch.Tensor]
Vectors = dict[str, dict[int, torch.Tensor]]
Loss = Callable[[Batch], torch.Tensor]

USES_DATA = ("taylor", "fisher")
"""The criteria that score by gradients."""


def own_answer_loss(logits: torch.Tensor, batch: Batch, temperature: float, generator: torch.Generator) -> torch.Tensor:
    """Cross-entropy of logits [positions, vocabulary] on tokens that are drawn from the model's own softened
    distribution, summed over positions, averaged over samples.

    The expectation of this gradient's square is the model's Fisher information, which does not vanish where the model
    is right, as the gradient of the answers does: there the answers say nothing about what a change would do.
    """
    wide = (logits if logits.dtype is torch.float64 else logits.float()) / temperature
    chances = torch.softmax(wide.detach(), -1).cpu()
    drawn = torch.multinomial(chances, 1, generator=generator)[:, 0].to(wide.device)
    return torch.nn.functional.cross_entropy(wide, drawn, reduction="sum") / len(batch.examples)


@dataclass(frozen=True)
class Scored:
    """Scores by group, float64, one per dimension. `reliability` is the mean over groups of the rank correlation of the
    scores of the two halves of the data, None where no data was used."""

    scores: Scores
    reliability: float | None


def answer_loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Cross-entropy of logits [positions, vocabulary] on the answers, summed over positions, averaged over samples."""
    wide = logits if logits.dtype is torch.float64 else logits.float()
    return torch.nn.functional.cross_entropy(wide, batch.targets, reduction="sum") / len(batch.examples)


def loss_of(settings: Importance, generator: torch.Generator, logits: Callable[[Batch], torch.Tensor]) -> Loss:
    """The loss whose gradients a criterion scores by: of the model's `logits` [positions, vocabulary] of a batch."""
    if settings.criterion == "fisher":
        return lambda batch: own_answer_loss(logits(batch), batch, settings.temperature, generator)
    return lambda batch: answer_loss(logits(batch), batch)


def score(
    model: torch.nn.Module,
    anatomy: Anatomy,
    batches: Sequence[Batch],
    samples: int,
    loss: Loss,
    settings: Importance,
    generator: torch.Generator,
    others: Collection[str] = (),
) -> Scored:
    """The importance of every dimension of every group, by the plan's criterion: along the axes that are always scored,
    and along `others`. Only the criteria of `USES_DATA` need `batches`, of so many `samples`.

    `loss` maps a batch to a scalar, averaged over its samples. With accumulation `sample` every batch must be one
    sample. The model's gradients are empty afterwards.
    """
    groups = list(anatomy.groups(scored_axes(others)).values())
    sums = _Sums(model, groups, counted_only=settings.owned == "equations")
    if settings.criterion == "random":
        return Scored(
            {group.name: torch.rand(group.size, generator=generator).double() for group in groups},
            None,
        )
    if settings.criterion == "magnitude":
        totals = sums.new()
        for name, parameter in sums.parameters:
            _add(totals[name], parameter.detach().abs())
        return Scored(sums.by_group(totals), None)
    halves = (batches[0::2], batches[1::2])
    if settings.criterion == "taylor" and settings.accumulation == "dataset":
        return _of_dataset(sums, halves, loss, samples, settings.passes)
    of_each = _joint_squares if settings.criterion == "fisher" else _of_each
    parts = [of_each(sums, half, loss, samples) for half in halves]
    return Scored({name: parts[0][name] + parts[1][name] for name in parts[0]}, agreement(*parts))


def scored_axes(others: Iterable[str]) -> list[str]:
    """The axes along which dimensions are scored: those that always are, and `others`."""
    return [*(axis.name for axis in axes() if axis.always_scored), *others]


def other_axes(used: Iterable[str]) -> list[str]:
    """The axes in use that are scored only if a plan uses them."""
    known = {name: axis_named(name) for name in used}
    return sorted(name for name, axis in known.items() if axis.needs_scores and not axis.always_scored)


def agreement(first: Scores, second: Scores) -> float:
    """Mean over groups of the Spearman rank correlation between two scorings of the same dimensions."""
    found = [_spearman(first[name], second[name]) for name in first if len(first[name]) > 2]
    return sum(found) / len(found) if found else 1.0


class _Sums:
    """Element-wise importance, summed along the dimensions that groups own slices of.

    One vector is added up per tensor and such dimension; the groups' scores are computed from them once, at the end.
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
        self.parameters = [(name, parameter) for name, parameter in model.named_parameters() if name in owned]

    def new(self) -> Vectors:
        """Zeros for every tensor and each of its dimensions that groups own slices of."""
        vectors: Vectors = {name: {} for name, _ in self.parameters}
        shapes = dict(self.parameters)
        for tensor, dim in self._owners:
            if tensor in vectors:
                parameter = shapes[tensor]
                dtype = torch.float64 if parameter.dtype is torch.float64 else torch.float32
                vectors[tensor][dim] = parameter.new_zeros(parameter.shape[dim], dtype=dtype)
        return vectors

    def by_group(self, vectors: Vectors) -> Scores:
        """Eq. 2-4: every dimension's sum over the slices that it owns, in float64."""
        device = self.parameters[0][1].device
        totals = {group.name: torch.zeros(group.size, dtype=torch.float64, device=device) for group in self._groups}
        for tensor, along in vectors.items():
            for dim, vector in along.items():
                for group, piece in self._owners[tensor, dim]:
                    sums = vector.double().view(piece.view).sum((0, 2))
                    totals[group][piece.offset : piece.offset + len(sums)] += sums
        return totals


def _add(along: dict[int, torch.Tensor], importance: torch.Tensor, weight: float = 1.0) -> None:
    """Add one tensor's element-wise importance to its vectors; by matrix products, faster than reductions."""
    if importance.ndim == 2:
        rows, columns = importance.shape
        for dim, vector in along.items():
            matrix, ones = (importance, columns) if dim == 0 else (importance.T, rows)
            vector.addmv_(matrix.to(vector.dtype), vector.new_ones(ones), alpha=weight)
        return
    for dim, vector in along.items():
        vector.add_(importance.movedim(dim, 0).reshape(len(vector), -1).sum(1, dtype=vector.dtype), alpha=weight)


def _of_each(sums: _Sums, batches: Sequence[Batch], loss: Loss, samples: int) -> Scores:
    """Sum over batches of |g * theta|; each parameter's gradient is used and freed as soon as it is complete."""
    totals = sums.new()
    share = 1.0

    def use(along: dict[int, torch.Tensor]) -> Callable[[torch.nn.Parameter], None]:
        def hook(parameter: torch.nn.Parameter) -> None:
            assert parameter.grad is not None
            _add(along, parameter.grad.mul_(parameter).abs_(), share)
            parameter.grad = None

        return hook

    with _only(sums.parameters, sums.model), _after_each_gradient(sums.parameters, totals, use):
        for batch in track(batches, "importance"):
            share = len(batch.examples) / samples
            loss(batch).backward()
    return sums.by_group(totals)


def _joint_squares(sums: _Sums, batches: Sequence[Batch], loss: Loss, samples: int) -> Scores:
    """Sum over batches of (g * theta, summed over all that a dimension owns)^2: the diagonal of the empirical Fisher
    information of a factor on each dimension."""
    totals = {name: torch.zeros_like(zero) for name, zero in sums.by_group(sums.new()).items()}
    joint = sums.new()

    def use(along: dict[int, torch.Tensor]) -> Callable[[torch.nn.Parameter], None]:
        def hook(parameter: torch.nn.Parameter) -> None:
            assert parameter.grad is not None
            _add(along, parameter.grad.mul_(parameter))
            parameter.grad = None

        return hook

    with _only(sums.parameters, sums.model), _after_each_gradient(sums.parameters, joint, use):
        for batch in track(batches, "importance"):
            loss(batch).backward()
            for name, values in sums.by_group(joint).items():
                totals[name] += values.square() * (len(batch.examples) / samples)
            for along in joint.values():
                for vector in along.values():
                    vector.zero_()
    return totals


def _of_dataset(
    sums: _Sums, halves: tuple[Sequence[Batch], Sequence[Batch]], loss: Loss, samples: int, passes: int
) -> Scored:
    """|g * theta| of the gradient summed over all batches, a share of the parameters at a time.

    A pass keeps that share's gradient twice: one for each half of the data, whose agreement is the reliability.
    """
    whole, parts = sums.new(), (sums.new(), sums.new())
    for share in _shares(sums.parameters, passes):
        with _only(share, sums.model):
            first: dict[str, torch.Tensor] = {}
            for number, half in enumerate(halves):
                for batch in track(half, "importance"):
                    (loss(batch) * (len(batch.examples) / samples)).backward()
                for name, parameter in share:
                    grad = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
                    parameter.grad = None
                    _add(parts[number][name], (grad * parameter.detach()).abs_())
                    if number == 0:
                        first[name] = grad
                    else:
                        _add(whole[name], first.pop(name).add_(grad).mul_(parameter.detach()).abs_())
    return Scored(sums.by_group(whole), agreement(*map(sums.by_group, parts)))


def _shares(
    parameters: list[tuple[str, torch.nn.Parameter]], passes: int
) -> Iterator[list[tuple[str, torch.nn.Parameter]]]:
    """Split parameters into consecutive shares of about the same number of elements."""
    total = sum(parameter.numel() for _, parameter in parameters)
    share: list[tuple[str, torch.nn.Parameter]] = []
    size, done = 0, 0
    for name, parameter in parameters:
        share.append((name, parameter))
        size += parameter.numel()
        if size >= total * (done + 1) / passes:
            yield share
            share, done = [], done + 1
    if share:
        yield share


@contextmanager
def _after_each_gradient(
    parameters: list[tuple[str, torch.nn.Parameter]],
    vectors: Vectors,
    use: Callable[[dict[int, torch.Tensor]], Callable[[torch.nn.Parameter], None]],
) -> Iterator[None]:
    """In this context each parameter's gradient is used, with the parameter's vectors, as soon as it is complete."""
    handles = [parameter.register_post_accumulate_grad_hook(use(vectors[name])) for name, parameter in parameters]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _only(wanted: Iterable[tuple[str, torch.nn.Parameter]], model: torch.nn.Module) -> Iterator[None]:
    """Within this context only the wanted parameters of a model get gradients."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    chosen = {id(parameter) for _, parameter in wanted}
    for parameter, _ in before:
        parameter.requires_grad_(id(parameter) in chosen)
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, flag in before:
            parameter.requires_grad_(flag)
            parameter.grad = None


def _spearman(first: torch.Tensor, second: torch.Tensor) -> float:
    ranks = torch.stack([values.argsort().argsort().double() for values in (first, second)])
    return float(torch.corrcoef(ranks)[0, 1])
