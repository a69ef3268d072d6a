"""Distillation that gives the same numbers on every machine: float64, from weights and rows of equal bits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from lmmpress.data import read_split
from lmmpress.distillation.learner import Learner
from lmmpress.distillation.loss import distillation_loss
from lmmpress.distillation.train import Lesson, distill
from lmmpress.lmm.batches import Batch
from lmmpress.lmm.checkpoint import load_model, read_checkpoint
from lmmpress.lmm.examples import Examples, encode
from lmmpress.lmm.forward import answer_logits
from lmmpress.lmm.processor import load_processor
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


def exact_pair(checkpoint: Path, data: Path) -> tuple[torch.nn.Module, torch.nn.Module, Examples]:
    """Student, teacher and rows, the same bits on every machine where all layers compute in float64, as OPT's do."""
    split = read_split(data, "distill", ROWS)
    examples = encode(split, load_processor(checkpoint), read_checkpoint(checkpoint).config)
    return exact_values(checkpoint, 1), exact_values(checkpoint, 2), examples


def logits(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Of a text model."""
    return answer_logits(model, batch, None)


def lesson_by(
    teacher: Callable[[Batch], torch.Tensor],
    examples: Examples,
    settings: Distillation,
    rows: NDArray[np.int64] | None = None,
) -> Lesson:
    """A lesson of a text model with Eq. 5, from a teacher's logits."""

    def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return distillation_loss(logits(model, batch), teacher(batch), batch.targets, settings).sum()

    return Lesson(loss, examples, None, settings, rows)


def distil(pair: tuple[torch.nn.Module, torch.nn.Module, Examples], settings: Distillation) -> list[float] | None:
    student, teacher, examples = pair

    lesson = lesson_by(lambda batch: logits(teacher, batch), examples, settings)
    return distill(Learner(student), lesson, float(settings.learning_rate), 5, Accelerator())
