"""Distillation that gives the same numbers on every machine: float64, from weights and rows of equal bits."""

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from lmmpress.distillation.train import Lesson, distill
from lmmpress.lmm.checkpoint import load_model
from lmmpress.lmm.examples import Examples
from lmmpress.lmm.forward import answer_logits
from lmmpress.settings.distillation import Distillation

ROWS = 36  # shuffled in two groups: the first of 16 batches
SETTINGS: dict[str, Any] = {"epochs": 1, "learning_rate": 1e-3, "batch_size": 2, "micro_batch_size": 1, "warmup": 0.2}


def exact_values(checkpoint: Path, seed: int) -> torch.nn.Module:
    """A checkpoint's model in float64 with random weights that are the same bits on every machine.

    Normal numbers are made by other instructions on other processors; whole numbers divided by a power of two are not.
    """
    model = load_model(checkpoint).double()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randint(-(2**20), 2**20, parameter.shape, generator=generator).double() / 2**22
        norm = parameter.ndim == 1 and "bias" not in name
        parameter.data = noise + 1 if norm else noise
    return model


def distil(pair: tuple[torch.nn.Module, torch.nn.Module, Examples], settings: Distillation) -> list[float] | None:
    student, teacher, examples = pair

    def logits(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        return answer_logits(model, batch, None)

    lesson = Lesson(lambda batch: logits(teacher, batch), logits, examples, None, settings)
    return distill(student, lesson, float(settings.learning_rate), 5, Accelerator())
