"""Training of tiny models: for a moment, or until they answer."""

import torch

from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.batches import grouped, make_batch
from lmmpress.lmm.examples import Examples
from lmmpress.lmm.forward import answer_logits
from lmmpress.pruning.importance import answer_loss


def train_for_a_moment(model: torch.nn.Module, examples: Examples, anatomy: Anatomy) -> None:
    """A few updates, so that some rows are answered right and some are not."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    batch = make_batch(examples, list(range(len(examples.rows))))
    for _ in range(12):
        logits = answer_logits(model, batch, anatomy.projector)
        torch.nn.functional.cross_entropy(logits, batch.targets).backward()
        optimizer.step()
        optimizer.zero_grad()


def train_until_it_answers(model: torch.nn.Module, examples: Examples) -> None:
    """Train until the loss is so small that every row is answered right: tens of epochs, a few more or less by
    processor."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    loss, epochs = 1.0, 0
    while loss > 0.015:
        assert epochs < 100, f"it does not learn: the loss is {loss}"
        epochs += 1
        chosen_batches = grouped(examples, 16, generator)
        loss = 0.0
        for chosen in chosen_batches:
            batch = make_batch(examples, chosen)
            part = answer_loss(answer_logits(model, batch, None), batch)
            part.backward()
            loss += part.item() / len(chosen_batches)
            optimizer.step()
            optimizer.zero_grad()
