"""Distils in this process, alone or as one of several processes that train together."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from pydantic import BaseModel

from lmmpress.distillation.held_out import Models, is_within, kept_aside
from lmmpress.distillation.image_side import ImageSide
from lmmpress.distillation.learning_rate import find_rate
from lmmpress.distillation.train import distill
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.economy import economy_of
from lmmpress.engine.parts.lesson import forward_of, is_trained, lesson_of, settle_teacher, side_of
from lmmpress.engine.parts.repair import repair
from lmmpress.lmm.checkpoint import load_model, save_trained
from lmmpress.lmm.compression_record import continued
from lmmpress.lmm.recompute import recompute_blocks
from lmmpress.lmm.verify import verify_saved
from lmmpress.settings.distillation import Distillation
from lmmpress.settings.economy import NO_ECONOMY, Economy

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Trained(BaseModel):
    """The digest of the distilled checkpoint, the mean loss of each epoch, the learning rate if trials found it, and
    the economy with which it learned, None if it needed none; of several processes how many rows each let through the
    student at once, in the end, as `remembering` yields it.

    `checkpoint` is None if the loss was not finite, and in every process but the first.
    """

    checkpoint: str | None
    loss: list[float]
    learning_rate: float | None = None
    economy: Economy | None = None
    at_once: dict[str, int] = {}

    def noted(self) -> dict[str, Any]:
        """As the part's record has it: without what is None, as in older versions."""
        unknown = {name for name in ("learning_rate", "economy") if getattr(self, name) is None}
        return self.model_dump(exclude={"at_once"} | unknown)


def train(materials: Materials, checkpoint: str, seed: int, settings: Distillation) -> Trained:
    """Distil in this process, or as one of the accelerator's processes; the first process saves the checkpoint."""
    source = materials.store.checkpoint(checkpoint)
    accelerator, side = materials.accelerator, side_of(materials, checkpoint, settings)
    stops = settings.stop_within and side != "image"  # which learns from no answers
    rows, held = kept_aside(len(materials.lessons("distill").rows), seed) if stops else (None, None)
    lesson = lesson_of(materials, checkpoint, side, settings, rows)
    settle_teacher(materials, lesson, settings)
    refitted: dict[str, torch.Tensor] = {}

    def fresh(economy: Economy = NO_ECONOMY) -> torch.nn.Module:
        model = load_model(source, _DTYPES[economy.weights]).to(materials.accelerator.device)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(is_trained(materials, side, name))
            if name in refitted:
                parameter.data.copy_(refitted[name])
        if economy.recompute:
            recompute_blocks(model, materials.anatomy_of(checkpoint))
        return model

    def learner(model: torch.nn.Module) -> torch.nn.Module:
        projector = materials.anatomy.projector
        return ImageSide(model, projector) if side == "image" and projector is not None else model

    if settings.refit_rows:
        refitted |= repair(materials, checkpoint, fresh, lesson, forward_of(materials, side))
    economy = economy_of(materials, checkpoint, side, lesson, settings, fresh) if settings.epochs else NO_ECONOMY
    lesson = replace(lesson, economy=economy)
    searched = settings.learning_rate == "auto" and settings.epochs
    found = find_rate(lambda: learner(fresh(economy)), lesson, seed, accelerator) if searched else None
    rate = found if settings.learning_rate == "auto" else settings.learning_rate
    model, repaired = fresh(economy), sorted(refitted)
    refitted.clear()  # a copy of the weights, which training has no room for

    def enough() -> bool:
        models = Models(partial(materials.student_logits, model), materials.teacher_logits)
        return held is not None and is_within(models, lesson, held, materials.plan.tolerance.alpha, accelerator)

    losses = distill(learner(model), lesson, rate, seed, accelerator, enough) if rate is not None else []
    accelerator.free_memory()  # otherwise it keeps every step's model and optimiser until the run ends
    trained = Trained(
        checkpoint=None, loss=losses or [], learning_rate=found, economy=economy if economy.saves else None
    )
    if losses is None or not accelerator.is_main_process:
        return trained
    with materials.store.scratch() as folder:
        entry = {
            "distilled_from": checkpoint,
            "settings": lasting(settings),
            "data": materials.examples("distill").split.digest,
        } | materials.taught
        if repaired:
            entry["refitted"] = repaired
        if found is not None:
            entry["learning_rate"] = found
        if economy.needs_torchao:
            entry["economy"] = economy.model_dump(exclude={"why"})
        anatomy = materials.anatomy_of(checkpoint)
        model = accelerator.unwrap_model(model)
        if economy.weights != "float32":
            model = _with_trained(fresh(), model)
        save_trained(model, source, anatomy, folder / "checkpoint", continued(source, entry))
        verify_saved(model, folder / "checkpoint")
        saved = materials.store.add_checkpoint(folder / "checkpoint")
    materials.remember(saved, anatomy)
    return trained.model_copy(update={"checkpoint": saved})


def _with_trained(whole: torch.nn.Module, model: torch.nn.Module) -> torch.nn.Module:
    """A model of float32 with the weights that were trained in another dtype; the others stay as they are stored."""
    for parameter, own in zip(whole.parameters(), model.parameters(), strict=True):
        if parameter.requires_grad:
            parameter.data.copy_(own)
    return whole


def lasting(settings: Distillation) -> dict[str, Any]:
    """The distillation settings that the result depends on; the others change only rounding."""
    return settings.model_dump(exclude={"micro_batch_size", "processes", "caches", "draw", "recompute"})
