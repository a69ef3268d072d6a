"""Refits a cut model to the model that it was cut from, before it is distilled."""

from collections.abc import Callable
from dataclasses import replace

import torch

from lmmpress.axes.cut import Cut
from lmmpress.distillation.train import Lesson, rows_at_once
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.last_cuts import last_cuts
from lmmpress.lmm.batches import Batches, grouped_rows
from lmmpress.lmm.checkpoint import load_model
from lmmpress.pruning.refit import Forward, refit


def repair(
    materials: Materials, checkpoint: str, fresh: Callable[[], torch.nn.Module], lesson: Lesson, forward: Forward
) -> dict[str, torch.Tensor]:
    """Refit a checkpoint's model, which `fresh` loads, to the model that it was cut from, on `refit_rows` of its
    lesson's rows, evenly spread; anew on smaller batches where the memory runs out. `forward` runs on a batch what of a
    model its step trains. Returns the refitted parameters by name: none if its last change was no cut."""
    last = last_cuts(materials, checkpoint)
    if not last:
        return {}
    uncut = last[0]["pruned_from"]
    device, asked = materials.accelerator.device, lesson.settings.refit_rows
    rows = range(lesson.size) if lesson.rows is None else lesson.rows
    chosen = [int(row) for row in rows[:: max(1, lesson.size // asked)][:asked]]
    before = load_model(materials.store.checkpoint(uncut), materials.dtype).to(device)
    examples = replace(lesson.examples, goals=None)  # it learns from the uncut model, not from the teacher
    cuts = [Cut.model_validate(entry["cut"]) for entry in last]

    def refitted(size: int) -> dict[str, torch.Tensor]:
        model, order = fresh(), grouped_rows(examples, size, chosen)
        batches = Batches(examples, order, lesson.features, device)
        names = refit(model, before, materials.anatomy_of(uncut), cuts, batches, forward)
        return {name: model.get_parameter(name).detach() for name in names}

    return rows_at_once(lesson.settings).fit(refitted, len(chosen))
