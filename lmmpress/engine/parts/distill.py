"""The part `distill`: trains a cut model to match the teacher (Eq. 5)."""

from dataclasses import dataclass
from typing import Any

from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.launch import train_in_processes
from lmmpress.engine.parts.once import Record, inputs_of, once
from lmmpress.engine.parts.training import lasting, train
from lmmpress.settings.distillation import Distillation
from lmmpress.settings.economy import Economy, economy_in


@dataclass(frozen=True)
class Distilled:
    """The digest of the distilled checkpoint (None if the loss was not finite), the mean loss of each epoch, the part's
    record, None if there were no epochs; the learning rate that was found, None where the plan gives it; and the
    economy with which it learned, None if it needed none."""

    checkpoint: str | None
    loss: list[float]
    record: Record | None = None
    learning_rate: float | None = None
    economy: Economy | None = None

    @property
    def seconds(self) -> float:
        """How long distilling took."""
        return self.record.seconds if self.record else 0.0


def distill(materials: Materials, checkpoint: str, settings: Distillation | None = None) -> Distilled:
    """Distil a checkpoint from the teacher with the plan's settings, or with others, in the settings' number of
    processes; with 0 epochs it stays unchanged."""
    settings = settings or materials.plan.distillation
    if settings.epochs == 0 and not settings.refit_rows:
        return Distilled(checkpoint, [])

    def work(seed: int) -> dict[str, Any]:
        if settings.processes > materials.accelerator.num_processes:
            return train_in_processes(materials, checkpoint, seed, settings).noted()
        return train(materials, checkpoint, seed, settings).noted()

    data = materials.digest("distill")
    inputs = inputs_of(materials, checkpoint, data, settings=lasting(settings), frozen=materials.frozen)
    if settings.stop_within:
        inputs["alpha"] = materials.plan.tolerance.alpha
    record = once(materials, "distill", inputs, work)
    values = record.values
    return Distilled(
        values["checkpoint"], values["loss"], record, values.get("learning_rate"), economy_in(values.get("economy"))
    )
