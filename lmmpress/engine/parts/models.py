"""Loads models of checkpoints in the store, ready for measurements."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from lmmpress.data import Row, Split
from lmmpress.engine.materials import Materials
from lmmpress.evaluation.timed import Subject
from lmmpress.lmm.checkpoint import load_model
from lmmpress.lmm.examples import encode, with_rows
from lmmpress.lmm.processor import load_processor, tokenizer_of


def model_of(materials: Materials, checkpoint: str) -> torch.nn.Module:
    """The model of a checkpoint; the teacher's model is loaded only once."""
    if checkpoint == materials.original:
        return materials.teacher_model
    return load_model(materials.store.checkpoint(checkpoint), materials.dtype).to(materials.accelerator.device)


def subject_of(
    materials: Materials, checkpoint: str, rows: Split, answers: Mapping[Row, list[int]] | None = None
) -> Subject:
    """A checkpoint's model with some encoded rows, ready to generate answers. With `answers` each row has the answer
    that it has there."""
    processor = load_processor(materials.store.checkpoint(checkpoint))
    config, template = materials.anatomy_of(checkpoint).config, materials.plan.template
    examples = encode(rows, processor, config, template=template)
    if answers is not None:
        pairs = zip(examples.rows, rows.rows, strict=True)
        examples = with_rows(examples, (replace(one, answer=answers[row]) for one, row in pairs), rows.digest)
    return Subject(model_of(materials, checkpoint), tokenizer_of(processor), examples, materials.ends)
