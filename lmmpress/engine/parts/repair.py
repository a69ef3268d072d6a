"""Refits a cut model to the model that it was cut from, before it is distilled."""

from collections.abc import Iterator
from typing import Any

import torch

from lmmpress.axes.cut import Cut
from lmmpress.engine.materials import Materials
from lmmpress.lmm.batches import Batches, grouped_rows
from lmmpress.lmm.checkpoint import load_model
from lmmpress.lmm.compression_record import read_record
from lmmpress.pruning.refit import refit


def repair(materials: Materials, checkpoint: str, model: torch.nn.Module, rows: int) -> dict[str, torch.Tensor]:
    """Refit a checkpoint's `model`, in place, to the model that it was cut from, on so many of the rows to distil on,
    evenly spread. Returns the refitted parameters by name: none if its last change was no cut."""
    record = read_record(materials.store.checkpoint(checkpoint, weights=False)) or {"history": []}
    last = list(_last_cuts(record["history"], materials.original))[::-1]
    if not last:
        return {}
    uncut = last[0]["pruned_from"]
    lessons, device = materials.lessons("distill"), materials.accelerator.device
    count = len(lessons.rows)
    chosen = range(0, count, max(1, count // rows))[:rows]
    order = grouped_rows(lessons, materials.plan.distillation.micro_batch_size, chosen)
    before = load_model(materials.store.checkpoint(uncut), materials.dtype).to(device)
    batches = Batches(lessons, order, materials.features("distill"), device)
    cuts = [Cut.model_validate(entry["cut"]) for entry in last]
    refitted = refit(model, before, materials.anatomy_of(uncut), cuts, batches, materials.logits)
    return {name: model.get_parameter(name).detach() for name in refitted}


def _last_cuts(history: list[dict[str, Any]], original: str) -> Iterator[dict[str, Any]]:
    """The cuts since the last distillation, the newest first; a run's original may have been cut before."""
    for entry in reversed(history):
        if "pruned_from" not in entry:
            return
        yield entry
        if entry["pruned_from"] == original:
            return
