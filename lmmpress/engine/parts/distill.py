"""The part `distill`: trains a cut model to match the teacher (Eq. 5)."""

from dataclasses import dataclass
from typing import Any

from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.launch import train_in_processes
from lmmpress.engine.parts.once import inputs_of, once
from lmmpress.engine.parts.training import lasting, train


@dataclass(frozen=True)
class Distilled:
    """The digest of the distilled checkpoint (None if the loss was not finite), the mean loss of each epoch, and the
    seconds that distilling took."""

    checkpoint: str | None
    loss: list[float]
    seconds: float


def distill(materials: Materials, checkpoint: str) -> Distilled:
    """Distil a checkpoint from the teacher, in the plan's number of processes; with 0 epochs it stays unchanged."""
    settings = materials.plan.distillation
    if settings.epochs == 0:
        return Distilled(checkpoint, [], 0.0)

    def work(seed: int) -> dict[str, Any]:
        if settings.processes > materials.accelerator.num_processes:
            return train_in_processes(materials, checkpoint, seed).model_dump()
        return train(materials, checkpoint, seed).model_dump()

    data = materials.split("distill").digest
    inputs = inputs_of(materials, checkpoint, data, settings=lasting(settings), frozen=materials.frozen)
    record = once(materials, "distill", inputs, work)
    return Distilled(record.values["checkpoint"], record.values["loss"], record.seconds)
