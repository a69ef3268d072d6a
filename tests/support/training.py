"""Training a tiny model for a moment."""

import torch

from lmmpress.lmm.examples import make_batch
from lmmpress.lmm.forward import answer_logits


def train(model, examples, anatomy) -> None:
    """A few steps, so that some rows are answered right and some are not."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    batch = make_batch(examples, list(range(len(examples.rows))))
    for _ in range(12):
        logits = answer_logits(model, batch, examples, anatomy.projector, None)
        torch.nn.functional.cross_entropy(logits, batch.targets).backward()
        optimizer.step()
        optimizer.zero_grad()
