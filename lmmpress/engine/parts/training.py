"""Distils in this process, alone or as one of several processes that train together."""

from typing import Any

from pydantic import BaseModel

from lmmpress.distillation.train import distill
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.repair import repair
from lmmpress.lmm.checkpoint import load_model, save_trained
from lmmpress.lmm.compression_record import continued
from lmmpress.lmm.verify import verify_saved
from lmmpress.settings.distillation import Distillation


class Trained(BaseModel):
    """The digest of the distilled checkpoint, and the mean loss of each epoch.

    `checkpoint` is None if the loss was not finite, and in every process but the first.
    """

    checkpoint: str | None
    loss: list[float]


def train(materials: Materials, checkpoint: str, seed: int, settings: Distillation) -> Trained:
    """Distil in this process, or as one of the accelerator's processes; the first process saves the checkpoint."""
    source = materials.store.checkpoint(checkpoint)
    model = load_model(source).to(materials.accelerator.device)
    refitted = repair(materials, checkpoint, model, settings.refit_rows) if settings.refit_rows else []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(materials.frozen))
    losses = distill(
        model,
        materials.teacher_logits,
        materials.student_logits,
        materials.lessons("distill"),
        materials.features("distill"),
        settings,
        seed,
        materials.accelerator,
    )
    materials.accelerator.free_memory()  # otherwise it keeps every step's model and optimiser until the run ends
    if losses is None:
        return Trained(checkpoint=None, loss=[])
    if not materials.accelerator.is_main_process:
        return Trained(checkpoint=None, loss=losses)
    with materials.store.scratch() as folder:
        entry = (
            ({"refitted": refitted} if refitted else {})
            | {
                "distilled_from": checkpoint,
                "settings": lasting(settings),
                "data": materials.examples("distill").split.digest,
            }
            | materials.taught
        )
        anatomy = materials.anatomy_of(checkpoint)
        trained = materials.accelerator.unwrap_model(model)
        save_trained(trained, source, anatomy, folder / "checkpoint", continued(source, entry))
        verify_saved(trained, folder / "checkpoint")
        saved = materials.store.add_checkpoint(folder / "checkpoint")
    materials.remember(saved, anatomy)
    return Trained(checkpoint=saved, loss=losses)


def lasting(settings: Distillation) -> dict[str, Any]:
    """The distillation settings that the result depends on; the others change only rounding."""
    return settings.model_dump(exclude={"micro_batch_size", "processes", "caches", "draw"})
