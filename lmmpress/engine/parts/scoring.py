"""Scores the dimensions of a checkpoint in this process, alone or as one of several that share the rows."""

import torch

from lmmpress.engine.materials import Materials
from lmmpress.lmm.batches import Batches, grouped
from lmmpress.lmm.checkpoint import load_model
from lmmpress.pruning.importance import USES_DATA, Scored, loss_of, other_axes, score


def scores_of(materials: Materials, checkpoint: str, seed: int) -> Scored:
    """The scores of every group of a checkpoint, the same in all processes."""
    settings, generator = materials.plan.importance, torch.Generator().manual_seed(seed)
    scoring = _batches(materials, seed)
    model = load_model(materials.store.checkpoint(checkpoint), materials.dtype).to(materials.accelerator.device)
    return score(
        model,
        materials.anatomy_of(checkpoint),
        scoring,
        len(materials.lessons("score").rows) if scoring else 0,
        loss_of(settings, generator, lambda batch: materials.logits(model, batch)),
        settings,
        generator,
        other_axes(stage.axis for stage in materials.plan.stages),
        materials.accelerator,
    )


def _batches(materials: Materials, seed: int) -> Batches | None:
    settings = materials.plan.importance
    if settings.criterion not in USES_DATA:
        return None
    examples, features = materials.lessons("score"), materials.features("score")
    size = 1 if settings.accumulation == "sample" else settings.batch_size
    order = grouped(examples, size, torch.Generator().manual_seed(seed))
    return Batches(examples, order, features, materials.accelerator.device)
