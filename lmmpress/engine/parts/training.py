"""Distils in this process, alone or as one of several processes that train together."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from pydantic import BaseModel

from lmmpress.distillation.held_out import Models, is_within, kept_aside
from lmmpress.distillation.learner import Learner, sharded, whole_state
from lmmpress.distillation.learning_rate import find_rate
from lmmpress.distillation.train import distill
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.economy import way_of
from lmmpress.engine.parts.lesson import forward_of, is_trained, lesson_of, settle_teacher, side_of
from lmmpress.engine.parts.repair import repair
from lmmpress.lmm.blocks import blocks_of
from lmmpress.lmm.checkpoint import load_model, save_trained
from lmmpress.lmm.compression_record import continued
from lmmpress.lmm.recompute import recompute_blocks
from lmmpress.lmm.verify import verify_saved
from lmmpress.settings.distillation import Distillation
from lmmpress.settings.economy import NO_ECONOMY, Economy

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Trained(BaseModel):
    """The digest of the distilled checkpoint, the mean loss of each epoch, the learning rate if trials found it, and
    the economy with which it learned, None if it needed none.

    `checkpoint` is None if the loss was not finite, and in every process but the first.
    """

    checkpoint: str | None
    loss: list[float]
    learning_rate: float | None = None
    economy: Economy | None = None

    def noted(self) -> dict[str, Any]:
        """As the part's record has it: without what is None, as in older versions."""
        return self.model_dump(exclude={name for name in ("learning_rate", "economy") if getattr(self, name) is None})


def train(materials: Materials, checkpoint: str, seed: int, settings: Distillation) -> Trained:
    """Distil in this process, or as one of the accelerator's processes; the first process saves the checkpoint."""
    source = materials.store.checkpoint(checkpoint)
    accelerator, side = materials.accelerator, side_of(materials, checkpoint, settings)
    anatomy = materials.anatomy_of(checkpoint)
    stops = settings.stop_within and side != "image"  # which learns from no answers
    rows, held = kept_aside(len(materials.lessons("distill").rows), seed) if stops else (None, None)
    lesson = lesson_of(materials, checkpoint, side, settings, rows)
    settle_teacher(materials, lesson, settings)
    refitted: dict[str, torch.Tensor] = {}

    def student(economy: Economy = NO_ECONOMY) -> torch.nn.Module:
        model = load_model(source, _DTYPES[economy.weights])
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(is_trained(materials, side, name))
            if name in refitted:
                parameter.data.copy_(refitted[name])
        if economy.recompute:
            recompute_blocks(model, anatomy)
        return model

    def fresh(economy: Economy) -> Learner:
        model = student(economy)
        if settings.sharding == "full" and accelerator.num_processes > 1:
            return sharded(model, blocks_of(model, anatomy), accelerator.device, materials.dtype)
        return Learner(model.to(accelerator.device))

    def whole() -> torch.nn.Module:
        return student().to(accelerator.device)

    if settings.refit_rows:
        refitted |= repair(materials, checkpoint, whole, lesson, forward_of(materials, side))
    economy = NO_ECONOMY
    if settings.epochs:
        way = way_of(materials, checkpoint, side, lesson, settings, whole)
        economy = way.economy
        if way.rows < way.most:
            lesson = replace(lesson, settings=settings.model_copy(update={"micro_batch_size": way.rows}))
    lesson = replace(lesson, economy=economy)
    searched = settings.learning_rate == "auto" and settings.epochs
    found = find_rate(lambda: fresh(economy), lesson, seed, accelerator) if searched else None
    rate = found if settings.learning_rate == "auto" else settings.learning_rate
    learner, repaired = fresh(economy), sorted(refitted)
    refitted.clear()  # a copy of the weights, which training has no room for

    def enough() -> bool:
        models = Models(partial(learner, materials.student_logits), materials.teacher_logits)
        alpha, shared = materials.plan.tolerance.alpha, learner.is_sharded
        return held is not None and is_within(models, lesson, held, alpha, accelerator, shared)

    losses = distill(learner, lesson, rate, seed, accelerator, enough) if rate is not None else []
    accelerator.free_memory()  # otherwise it keeps every step's model and optimiser until the run ends
    trained = Trained(
        checkpoint=None, loss=losses or [], learning_rate=found, economy=economy if economy.saves else None
    )
    if losses is None:
        return trained
    state = whole_state(learner)
    if not accelerator.is_main_process:
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
        model = learner.model
        if learner.is_sharded or economy.weights != "float32":
            model = _with_trained(student(), state)
        state.clear()
        save_trained(model, source, anatomy, folder / "checkpoint", continued(source, entry))
        verify_saved(model, folder / "checkpoint")
        saved = materials.store.add_checkpoint(folder / "checkpoint")
    materials.remember(saved, anatomy)
    return trained.model_copy(update={"checkpoint": saved})


def _with_trained(whole: torch.nn.Module, state: dict[str, torch.Tensor]) -> torch.nn.Module:
    """A model of float32 with the weights that were trained in shares or in another dtype, by their names; the others
    stay as they are stored."""
    for name, parameter in whole.named_parameters():
        if parameter.requires_grad:
            parameter.data.copy_(state[name])
    return whole


def lasting(settings: Distillation) -> dict[str, Any]:
    """The distillation settings that the result depends on; the others change only rounding."""
    rounding = {"micro_batch_size", "processes", "sharding", "caches", "draw", "recompute"}
    return settings.model_dump(exclude=rounding)
