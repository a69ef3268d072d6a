"""The part `importance` (Eq. 1-4): scores every dimension of a checkpoint."""

from dataclasses import dataclass
from typing import Any

import torch

from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.once import Record, inputs_of, name_of, once
from lmmpress.errors import UserError
from lmmpress.lmm.batches import Batches, grouped
from lmmpress.lmm.checkpoint import load_model
from lmmpress.pruning.importance import USES_DATA, Scored, loss_of, other_axes, score


@dataclass(frozen=True)
class Importances:
    """The scores of every group of a checkpoint, and the part's record."""

    scored: Scored
    record: Record

    @property
    def seconds(self) -> float:
        """How long scoring took."""
        return self.record.seconds


def importance(materials: Materials, checkpoint: str) -> Importances:
    """The scores of every group of a checkpoint.

    Raises UserError if their record is in the store but their tensors are missing.
    """
    settings, others = materials.plan.importance, other_axes(stage.axis for stage in materials.plan.stages)
    inputs = inputs_of(materials, checkpoint, materials.digest("score"), settings=settings.model_dump())
    if others:  # without other axes the name stays as in earlier versions
        inputs["axes"] = others
    name = name_of("importance", inputs)

    def batches(seed: int) -> Batches | None:
        if settings.criterion not in USES_DATA:
            return None
        examples, features = materials.lessons("score"), materials.features("score")
        size = 1 if settings.accumulation == "sample" else settings.batch_size
        order = grouped(examples, size, torch.Generator().manual_seed(seed))
        return Batches(examples, order, features, materials.accelerator.device)

    def work(seed: int) -> dict[str, Any]:
        scoring, generator = batches(seed), torch.Generator().manual_seed(seed)
        model = load_model(materials.store.checkpoint(checkpoint), materials.dtype).to(materials.accelerator.device)
        scored = score(
            model,
            materials.anatomy_of(checkpoint),
            scoring,
            len(materials.lessons("score").rows) if scoring else 0,
            loss_of(settings, generator, lambda batch: materials.logits(model, batch)),
            settings,
            generator,
            others,
        )
        materials.store.write_tensors(name, {key: value.cpu() for key, value in scored.scores.items()})
        return {"reliability": scored.reliability}

    record = once(materials, "importance", inputs, work)
    scores = materials.store.read_tensors(name)
    if scores is None:
        raise UserError(
            f"{materials.store.root_address}: tensors/{name}.json is missing; `lmmpress store verify --discard` "
            "removes the record that needs it, then the scores are computed again"
        )
    return Importances(Scored(scores, record.values["reliability"]), record)
