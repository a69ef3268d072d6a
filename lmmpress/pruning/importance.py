"""Importance of dimensions (Eq. 1-4): one pass over the data scores every tower along every requested axis.

Eq. 1 defines a parameter's importance as |dL/dtheta * theta|; Eq. 2-4 sum it over all parameters that a dimension owns,
which the anatomy lists. The equations do not say where the absolute value is taken: of the gradient of the whole data
set, of every batch, or of every sample. For the last two, each layer's gradient is freed at once; the first keeps the
gradient of every parameter, or of a share of them in each of several passes.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from accelerate import Accelerator

from lmmpress.axes import axes, axis_named
from lmmpress.host.memory import available_memory
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.at_once import AtOnce
from lmmpress.lmm.batches import Batch
from lmmpress.lmm.portions import Portions
from lmmpress.printing.numbers import in_bytes
from lmmpress.progress import say, track
from lmmpress.pruning.sums import Named, Scores, Sums, Vectors, add_importance, shares
from lmmpress.settings.importance import Importance

Loss = Callable[[Batch], torch.Tensor]
Fit = Callable[[Callable[[int], None]], None]
"""Calls a function with a size of portions that fits into the memory."""
Backward = Callable[[Portions[Batch], int, Loss, int], None]
"""Computes the gradients of the batch at a place, in portions of at most so many rows."""

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
    scores of the two halves of the data, None where no data was used, or where it was left out."""

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
    batches: Portions[Batch] | None,
    samples: int,
    loss: Loss,
    settings: Importance,
    generator: torch.Generator,
    others: Collection[str] = (),
    accelerator: Accelerator | None = None,
) -> Scored:
    """The importance of every dimension of every group, by the plan's criterion: along the axes that are always scored,
    and along `others`. Only the criteria of `USES_DATA` need `batches`, of so many `samples`.

    `loss` maps a batch to a scalar, averaged over its samples. With accumulation `sample` every batch must be one
    sample. The model's gradients are empty afterwards.

    Where the memory runs out, a half of the batches is scored anew with each batch in smaller portions. What is summed
    over a batch stays so: scores differ by rounding, and by the answers that `fisher` draws.

    Each process of an `accelerator` takes its share of the batches, and all of them return the same. `fisher` cannot be
    shared: what it draws depends on the batches before.
    """
    groups = list(anatomy.groups(scored_axes(others)).values())
    sums = Sums(model, groups, counted_only=settings.owned == "equations")
    if settings.criterion == "random":
        return Scored(
            {group.name: torch.rand(group.size, generator=generator).double() for group in groups},
            None,
        )
    if settings.criterion == "magnitude":
        totals = sums.new()
        for name, parameter in sums.parameters:
            add_importance(totals.along[name], parameter, None)
        return Scored(sums.by_group(totals), None)
    assert batches is not None, "these criteria score by gradients"
    together = accelerator if accelerator is not None and accelerator.num_processes > 1 else None
    first, step = (together.process_index, together.num_processes) if together else (0, 1)
    halves = (batches[0::2][first::step], batches[1::2][first::step])
    at_once, largest = AtOnce(settings.batch_size, "importance", "importance.batch_size"), max(map(len, batches.order))
    if settings.criterion == "taylor" and settings.accumulation == "dataset":
        return _of_dataset(sums, halves, loss, samples, settings, lambda work: at_once.fit(work, largest), together)
    of_each = _joint_squares if settings.criterion == "fisher" else _of_each

    def of(half: Portions[Batch]) -> Scores:
        begun = generator.get_state()

        def at(size: int) -> Scores:
            generator.set_state(begun)
            return of_each(sums, half, loss, samples, size)

        return _added_up(at_once.fit(at, largest), together)

    parts = [of(half) for half in halves]
    whole = {name: parts[0][name] + parts[1][name] for name in parts[0]}
    return Scored(whole, agreement(*parts) if settings.reliability else None)


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


def _of_each(sums: Sums, batches: Portions[Batch], loss: Loss, samples: int, size: int) -> Scores:
    """Sum over batches of |g * theta|; each parameter's gradient is used and freed as soon as it is complete."""
    totals = sums.new()
    share = 1.0

    def use(along: dict[int, torch.Tensor], parameter: torch.nn.Parameter) -> None:
        add_importance(along, parameter, parameter.grad, share)

    with _only(sums.parameters, sums.model), _after_each_gradient(sums.parameters, totals, use) as backward:
        for place, rows in enumerate(track(batches.order, "importance")):
            share = len(rows) / samples
            backward(batches, place, loss, size)
    return sums.by_group(totals)


def _joint_squares(sums: Sums, batches: Portions[Batch], loss: Loss, samples: int, size: int) -> Scores:
    """Sum over batches of (g * theta, summed over all that a dimension owns)^2: the diagonal of the empirical Fisher
    information of a factor on each dimension."""
    joint = sums.new()
    totals = sums.by_group(joint)

    def use(along: dict[int, torch.Tensor], parameter: torch.nn.Parameter) -> None:
        add_importance(along, parameter, parameter.grad, signed=True)

    with _only(sums.parameters, sums.model), _after_each_gradient(sums.parameters, joint, use) as backward:
        for place, rows in enumerate(track(batches.order, "importance")):
            backward(batches, place, loss, size)
            for name, values in sums.by_group(joint).items():
                totals[name] += values.square() * (len(rows) / samples)
            joint.flat.zero_()
    return totals


def _added_up(scores: Scores, together: Accelerator | None) -> Scores:
    """The sums of some scores over the processes that score together."""
    if together is None:
        return scores
    return {name: together.reduce(value, "sum") for name, value in scores.items()}


def _of_dataset(
    sums: Sums,
    halves: Sequence[Portions[Batch]],
    loss: Loss,
    samples: int,
    settings: Importance,
    fit: Fit,
    together: Accelerator | None,
) -> Scored:
    """|g * theta| of the gradient summed over all batches, in place, a share of the parameters at a time.

    For the reliability the gradient of the first half of the data is put aside, and the second half has one of its own:
    then a pass keeps its share's gradient twice. Processes that score `together` add up their gradients, before an
    absolute value is taken.
    """
    whole, parts = sums.new(), (sums.new(), sums.new())
    reliable = settings.reliability

    def sum_gradients(share: list[Named], some: Sequence[Portions[Batch]], there: int = 0) -> None:
        """Sum the gradients of some halves, of which those of the first are `there`. All are summed anew where the
        memory runs out, since a part of a batch is in the sum then."""

        def at(size: int) -> None:
            nonlocal there
            begin, there = there, 0
            if begin == 0:
                _taken(share)
            for half in some[begin:]:
                for place in track(range(len(half)), "importance"):
                    for batch in half.of(place, size):
                        (loss(batch) * (len(batch.examples) / samples)).backward()

        fit(at)

    for share in shares(sums.parameters, settings.passes):
        with _only(share, sums.model):
            sum_gradients(share, halves[:1])
            reliable = _in_all(reliable and _fit_again(share), together)
            first = _taken(share, together) if reliable else {}
            _use(parts[0], share, first)
            if reliable:
                sum_gradients(share, halves[1:])
            else:
                sum_gradients(share, halves, there=1)
            second = _taken(share, together)
            if reliable:
                _use(parts[1], share, second)
            for name in list(first):
                grad = first.pop(name)
                second[name] = grad.add_(second[name]) if name in second else grad
            _use(whole, share, second)
            second.clear()  # before the gradients of the next share
    return Scored(sums.by_group(whole), agreement(*map(sums.by_group, parts)) if reliable else None)


def _taken(parameters: list[Named], together: Accelerator | None = None) -> dict[str, torch.Tensor]:
    """The gradients of parameters, which have none afterwards; those that no gradient has reached are left out, but not
    where processes score `together`: what has reached one of them may not have reached another."""
    found = {}
    for name, parameter in parameters:
        grad, parameter.grad = parameter.grad, None
        if together is not None:
            grad = together.reduce(torch.zeros_like(parameter) if grad is None else grad, "sum")
        if grad is not None:
            found[name] = grad
    return found


def _in_all(holds: bool, together: Accelerator | None) -> bool:
    """Whether something holds in all processes that score together."""
    if together is None:
        return holds
    return bool(together.gather(torch.tensor([holds], device=together.device)).all())


def _use(vectors: Vectors, parameters: list[Named], gradients: dict[str, torch.Tensor]) -> None:
    """Add |g * theta| of all parameters that have a gradient."""
    for name, parameter in parameters:
        if name in gradients:
            add_importance(vectors.along[name], parameter, gradients[name])


def _fit_again(parameters: list[Named]) -> bool:
    """Whether there is room for a second gradient of these parameters, which have one; if not, a line says so.

    What the batches so far have taken for activations stays with this process, and the next ones use it again.
    """
    size = sum(parameter.grad.nbytes for _, parameter in parameters if parameter.grad is not None)
    device = parameters[0][1].device
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
    if size > free:
        say(
            f"scores get no reliability: it needs a second gradient of {in_bytes(size)}, {in_bytes(free)} are free; "
            "with more importance.passes it is smaller"
        )
    return size <= free


@contextmanager
def _after_each_gradient(
    parameters: list[Named],
    vectors: Vectors,
    use: Callable[[dict[int, torch.Tensor], torch.nn.Parameter], None],
) -> Iterator[Backward]:
    """In this context each parameter's gradient of a batch is used, with the parameter's vectors, as soon as it is
    complete, and then freed. Of a batch in one portion that is while others are still computed."""
    divided = False

    def ready(parameter: torch.nn.Parameter, along: dict[int, torch.Tensor]) -> None:
        if parameter.grad is not None and not divided:
            use(along, parameter)
            parameter.grad = None

    def backward(batches: Portions[Batch], place: int, loss: Loss, size: int) -> None:
        nonlocal divided
        rows = len(batches.order[place])
        divided = size < rows
        for batch in batches.of(place, size):
            (loss(batch) * (len(batch.examples) / rows)).backward()
        if divided:
            divided = False
            for name, parameter in parameters:
                ready(parameter, vectors.along[name])

    handles = [
        parameter.register_post_accumulate_grad_hook(partial(ready, along=vectors.along[name]))
        for name, parameter in parameters
    ]
    try:
        yield backward
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _only(wanted: Iterable[Named], model: torch.nn.Module) -> Iterator[None]:
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
    return float(torch.corrcoef(torch.stack([_ranks(first), _ranks(second)]))[0, 1])


def _ranks(values: torch.Tensor) -> torch.Tensor:
    ranks = torch.empty(len(values), dtype=torch.float64)
    ranks[values.argsort()] = torch.arange(len(values), dtype=torch.float64)
    return ranks
