"""Measures accuracy with one forward pass per row.

The answer is fed in. Greedy decoding would give exactly this answer if the arg-max at every answer position is the
answer's token, with an end token at the last position. So accuracy needs no generation. Generation settings that would
make a difference are refused (greedy.py).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TypeVar

import torch

from lmmpress.lmm.anatomy import Projector
from lmmpress.lmm.at_once import AtOnce
from lmmpress.lmm.batches import Batch, Batches, Features, grouped, grouped_rows
from lmmpress.lmm.examples import Examples
from lmmpress.lmm.forward import answer_logits
from lmmpress.progress import track

T = TypeVar("T")


@dataclass(frozen=True)
class Judged:
    """What a model makes of each row, in the examples' order: whether greedy decoding answers it exactly, booleans
    [rows], and the logarithm of the probability of the right answer, float64 [rows]."""

    right: torch.Tensor
    likelihood: torch.Tensor


@torch.no_grad()
def answered_right(
    model: torch.nn.Module,
    examples: Examples,
    projector: Projector | None,
    features: Features | None,
    batch_size: int,
    ends: frozenset[int] = frozenset(),
    rows: Sequence[int] | None = None,
    cut: bool = False,
) -> torch.Tensor:
    """Which rows greedy decoding answers exactly, booleans [rows] in the examples' order; with `rows` only these are
    asked, and the others are false.

    `ends` are further tokens that end generation, beside the end token of the examples. Each of them is right at the
    end of an answer. An answer that contains one of them earlier is never right. With `cut` an answer whose last token
    is none of `ends` was cut off there: whether it would end next does not count.
    """
    right = torch.ones(len(examples.rows), dtype=torch.bool)
    if rows is not None:
        right[:] = False
        right[list(rows)] = True
    missed = partial(_missed, ends=ends, cut=cut)
    for _, examples_missed in _passes(model, examples, projector, features, batch_size, missed, rows):
        right[examples_missed] = False
    return right


@torch.no_grad()
def right_tokens(
    model: torch.nn.Module,
    examples: Examples,
    projector: Projector | None,
    features: Features | None,
    batch_size: int,
    ends: frozenset[int],
    rows: Sequence[int],
) -> torch.Tensor:
    """The share of each answer's tokens that are the model's first choice after the right tokens before them, float64
    [rows]; `ends` as in `answered_right`."""
    shares = torch.zeros(len(examples.rows), dtype=torch.float64)
    hits = partial(_hits, ends=ends)
    for batch, each in _passes(model, examples, projector, features, batch_size, hits, rows):
        _add_means(shares, batch, each.double())
    return shares


@torch.no_grad()
def divergences(
    model: torch.nn.Module,
    teacher_logits: Callable[[Batch], torch.Tensor],
    examples: Examples,
    projector: Projector | None,
    features: Features | None,
    batch_size: int,
    rows: Sequence[int],
) -> torch.Tensor:
    """The mean over each answer's positions of KL(teacher, model) in nats, float64 [rows].

    `teacher_logits` gives the teacher's logits [positions, vocabulary] of a batch.
    """

    def divergence(batch: Batch, logits: torch.Tensor) -> torch.Tensor:
        teacher = teacher_logits(batch).float().log_softmax(-1)
        return (teacher.exp() * (teacher - logits.float().log_softmax(-1))).sum(-1)

    means = torch.zeros(len(examples.rows), dtype=torch.float64)
    for batch, each in _passes(model, examples, projector, features, batch_size, divergence, rows):
        _add_means(means, batch, each.double().clamp(min=0))  # rounding may leave it a little below
    return means


@torch.no_grad()
def judged(
    model: torch.nn.Module,
    examples: Examples,
    projector: Projector | None,
    features: Features | None,
    batch_size: int,
    ends: frozenset[int] = frozenset(),
) -> Judged:
    """Which rows are answered right, as `answered_right` says it, and how likely the right answers are."""

    def judge(batch: Batch, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        each = logits.gather(-1, batch.targets[:, None])[:, 0].float() - logits.float().logsumexp(-1)
        return _missed(batch, logits, ends), each

    right = torch.ones(len(examples.rows), dtype=torch.bool)
    likelihood = torch.zeros(len(examples.rows), dtype=torch.float64)
    for batch, (missed, each) in _passes(model, examples, projector, features, batch_size, judge):
        right[missed] = False
        likelihood.index_add_(0, torch.tensor(batch.examples)[batch.owner.cpu()], each.double().cpu())
    return Judged(right, likelihood)


def _passes(
    model: torch.nn.Module,
    examples: Examples,
    projector: Projector | None,
    features: Features | None,
    batch_size: int,
    use: Callable[[Batch, torch.Tensor], T],
    rows: Sequence[int] | None = None,
) -> Iterator[tuple[Batch, T]]:
    """Every batch of the examples, or of some of them, on the model's device, with what `use` makes of it and of its
    logits [positions, vocabulary]. A batch that does not fit into the memory comes in smaller ones."""
    device = next(model.parameters()).device
    order = grouped(examples, batch_size) if rows is None else grouped_rows(examples, batch_size, rows)

    def passed(_: int, portions: Iterator[Batch]) -> list[tuple[Batch, T]]:
        return [(batch, use(batch, answer_logits(model, batch, projector))) for batch in portions]

    at_once = AtOnce(batch_size, "evaluate", "evaluation.batch_size")
    batches = Batches(examples, order, features, device).fitting(passed, at_once)
    yield from chain.from_iterable(track(batches, f"evaluate {examples.split.name}", len(order)))


def _missed(batch: Batch, logits: torch.Tensor, ends: frozenset[int], cut: bool = False) -> torch.Tensor:
    """The indices of a batch's examples that are not answered right; an example may come several times."""
    return torch.tensor(batch.examples)[batch.owner[~_hits(batch, logits, ends, cut)].cpu()]


def _hits(batch: Batch, logits: torch.Tensor, ends: frozenset[int], cut: bool = False) -> torch.Tensor:
    """At which positions greedy decoding gives the answer's token, or ends as the answer does, booleans [positions]."""
    predicted = logits.argmax(-1)
    ending = torch.tensor(sorted(ends), dtype=torch.long, device=logits.device)
    last = torch.ones_like(batch.owner, dtype=torch.bool)
    last[:-1] = batch.owner[1:] != batch.owner[:-1]
    same, ended = predicted == batch.targets, torch.isin(batch.targets, ending)
    ends_too = torch.isin(predicted, ending) & ended if cut else torch.isin(predicted, ending)
    return torch.where(last, same | ends_too, same & ~ended)


def _add_means(means: torch.Tensor, batch: Batch, values: torch.Tensor) -> None:
    """Add to each example's number the mean of `values` [positions] over its positions."""
    owner = batch.owner.cpu()
    count = torch.bincount(owner, minlength=len(batch.examples)).double()
    means.index_add_(0, torch.tensor(batch.examples)[owner], values.cpu() / count[owner])
