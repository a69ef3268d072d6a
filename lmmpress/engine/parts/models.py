"""Loads models of checkpoints in the store, ready for measurements."""

import torch

from lmmpress.data import Split
from lmmpress.engine.materials import Materials
from lmmpress.evaluation.speed import Subject
from lmmpress.lmm.checkpoint import load_model
from lmmpress.lmm.examples import encode
from lmmpress.lmm.processor import load_processor, tokenizer_of


def model_of(materials: Materials, checkpoint: str) -> torch.nn.Module:
    """The model of a checkpoint; the teacher's model is loaded only once."""
    if checkpoint == materials.original:
        return materials.teacher_model
    return load_model(materials.store.checkpoint(checkpoint), materials.dtype).to(materials.accelerator.device)


def subject_of(materials: Materials, checkpoint: str, rows: Split) -> Subject:
    """A checkpoint's model with some encoded rows, ready to generate answers."""
    processor = load_processor(materials.store.checkpoint(checkpoint))
    examples = encode(rows, processor, materials.anatomy_of(checkpoint).config)
    return Subject(model_of(materials, checkpoint), tokenizer_of(processor), examples, materials.ends)
