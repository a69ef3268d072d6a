"""Measures accuracy with one forward pass per row.

The answer is fed in. Greedy decoding would give exactly this answer if the arg-max at every answer position is the
answer's token, with an end token at the last position. So accuracy needs no generation. Generation settings that would
make a difference are refused (greedy.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from lmmpress.lmm.anatomy import Projector
from lmmpress.lmm.examples import Batch, Examples, batches, make_batch
from lmmpress.lmm.forward import answer_logits
from lmmpress.progress import track


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
    features: torch.Tensor | None,
    batch_size: int,
    ends: frozenset[int] = frozenset(),
) -> torch.Tensor:
    """Which rows greedy decoding answers exactly, booleans [rows] in the examples' order.

    `ends` are further tokens that end generation, beside the end token of the examples. Each of them is right at the
    end of an answer. An answer that contains one of them earlier is never right.
    """
    right = torch.ones(len(examples.rows), dtype=torch.bool)
    for batch, logits in _passes(model, examples, projector, features, batch_size):
        right[_missed(batch, logits, ends)] = False
    return right


@torch.no_grad()
def judged(
    model: torch.nn.Module,
    examples: Examples,
    projector: Projector | None,
    features: torch.Tensor | None,
    batch_size: int,
    ends: frozenset[int] = frozenset(),
) -> Judged:
    """Which rows are answered right, as `answered_right` says it, and how likely the right answers are."""
    right = torch.ones(len(examples.rows), dtype=torch.bool)
    likelihood = torch.zeros(len(examples.rows), dtype=torch.float64)
    for batch, logits in _passes(model, examples, projector, features, batch_size):
        right[_missed(batch, logits, ends)] = False
        each = logits.gather(-1, batch.targets[:, None])[:, 0].float() - logits.float().logsumexp(-1)
        likelihood.index_add_(0, torch.tensor(batch.examples)[batch.owner.cpu()], each.double().cpu())
    return Judged(right, likelihood)


def _passes(
    model: torch.nn.Module,
    examples: Examples,
    projector: Projector | None,
    features: torch.Tensor | None,
    batch_size: int,
) -> Iterator[tuple[Batch, torch.Tensor]]:
    """Every batch on the model's device, with its logits [positions, vocabulary]."""
    device = next(model.parameters()).device
    order = batches(examples, batch_size)
    for chosen in track(order, f"evaluate {examples.split.name}", len(order)):
        batch = make_batch(examples, chosen).to(device)
        yield batch, answer_logits(model, batch, examples, projector, features)


def _missed(batch: Batch, logits: torch.Tensor, ends: frozenset[int]) -> torch.Tensor:
    """The indices of a batch's examples that are not answered right; an example may come several times."""
    predicted = logits.argmax(-1)
    ending = torch.tensor(sorted(ends), dtype=torch.long, device=logits.device)
    last = torch.ones_like(batch.owner, dtype=torch.bool)
    last[:-1] = batch.owner[1:] != batch.owner[:-1]
    hit = torch.where(
        last,
        (predicted == batch.targets) | torch.isin(predicted, ending),
        (predicted == batch.targets) & ~torch.isin(batch.targets, ending),
    )
    return torch.tensor(batch.examples)[batch.owner[~hit].cpu()]
