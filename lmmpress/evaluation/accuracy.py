"""Measures accuracy with one forward pass per row.

The answer is fed in. Greedy decoding would give exactly this answer if the arg-max at every answer position is the
answer's token, with an end token at the last position. So accuracy needs no generation. Generation settings that would
make a difference are refused (greedy.py).
"""

import torch

from lmmpress.data import Split
from lmmpress.lmm.anatomy import Projector
from lmmpress.lmm.examples import Examples, batches, make_batch
from lmmpress.lmm.forward import answer_logits
from lmmpress.progress import track


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
    device = next(model.parameters()).device
    right = torch.ones(len(examples.rows), dtype=torch.bool)
    order = batches(examples, batch_size)
    ending = torch.tensor(sorted(ends), dtype=torch.long, device=device)
    for chosen in track(order, f"evaluate {examples.split.name}", len(order)):
        batch = make_batch(examples, chosen).to(device)
        logits = answer_logits(model, batch, examples, projector, features)
        predicted = logits.argmax(-1)
        last = torch.ones_like(batch.owner, dtype=torch.bool)
        last[:-1] = batch.owner[1:] != batch.owner[:-1]
        hit = torch.where(
            last,
            (predicted == batch.targets) | torch.isin(predicted, ending),
            (predicted == batch.targets) & ~torch.isin(batch.targets, ending),
        )
        missed = batch.owner[~hit].cpu()
        right[torch.tensor(chosen)[missed]] = False
    return right


def by_task(split: Split, right: torch.Tensor) -> dict[str, float]:
    """Accuracy of each task, in alphabetical order."""
    tasks = sorted({row.task for row in split.rows})
    of_task = {task: [index for index, row in enumerate(split.rows) if row.task == task] for task in tasks}
    return {task: float(right[torch.tensor(indices)].double().mean()) for task, indices in of_task.items()}


def image_of_row(split: Split) -> torch.Tensor:
    """The index of each row's image, [rows]; a row without an image gets an index of its own."""
    numbers = {name: number for number, name in enumerate(split.image_names())}
    rows = enumerate(split.rows)
    return torch.tensor([index if row.picture is None else numbers[row.picture] for index, row in rows])
