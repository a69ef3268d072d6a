"""Which blocks go: those of least influence, those of least weights, or random ones."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from lmmpress.lmm.batches import Batch, Batches, grouped
from peers.peer import Case, Peer, keep
from peers.surgery import opened

# arXiv 2403.03853, section 3.2: blocks are removed by their influence alone, all at once; it is the mean over tokens
INFLUENCE = {"score": "1 - cosine of input and output", "mean": "tokens"}
MAGNITUDE = {"score": "sum of absolute weights"}


@torch.no_grad()
def influence(layers: Iterable[Any], batches: Iterable[Batch], forward: Callable[[Batch], object]) -> torch.Tensor:
    """The influence of each block: the mean over tokens, without padding, of 1 - the cosine of its input and output."""
    layers = list(layers)
    sums, tokens = torch.zeros(len(layers), dtype=torch.float64), 0
    mask = torch.ones(0)

    def note(number: int, before: torch.Tensor, after: torch.Tensor) -> None:
        one = 1 - torch.cosine_similarity(before.double(), after.double(), dim=-1)
        sums[number] += one[mask].sum()

    handles = [
        layer.register_forward_hook(
            lambda _, args, kwargs, output, number=number: note(number, _first(args, kwargs), _tensor(output)),
            with_kwargs=True,
        )
        for number, layer in enumerate(layers)
    ]
    try:
        for batch in batches:
            mask = batch.inputs["attention_mask"].bool()
            tokens += int(mask.sum())
            forward(batch)
    finally:
        for handle in handles:
            handle.remove()
    return sums / tokens


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    found: torch.Tensor = args[0] if args else kwargs["hidden_states"]
    return found


def _tensor(output: Any) -> torch.Tensor:
    found: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return found


def most(scores: torch.Tensor, count: int) -> list[int]:
    """The numbers of the highest scores, in ascending order; of equal ones the first."""
    order = torch.sort(scores, descending=True, stable=True).indices
    return sorted(order[:count].tolist())


def by_influence(case: Case) -> str:
    model, examples = opened(case), case.materials.examples("score")
    batches = Batches(examples, grouped(examples, 64), case.materials.features("score"))
    scores = influence(model.language_model.model.layers, batches, lambda batch: case.materials.logits(model, batch))
    return _kept(case, scores)


def by_magnitude(case: Case) -> str:
    layers = opened(case).language_model.model.layers
    return _kept(case, torch.tensor([sum(float(one.abs().sum()) for one in layer.parameters()) for layer in layers]))


def at_random(case: Case) -> str:
    depth = case.anatomy.axis("language", "block").width
    return _kept(case, torch.rand(depth, generator=torch.Generator().manual_seed(case.seed)))


def _kept(case: Case, scores: torch.Tensor) -> str:
    return keep(case, {"language.block": most(scores, len(scores) - case.task.removed)})


PEERS = (
    Peer("block influence (ShortGPT)", by_influence, ("block",), INFLUENCE),
    Peer("blocks of least weights", by_magnitude, ("block",), MAGNITUDE),
    Peer("random blocks", at_random, ("block",)),
)
