"""Checks the original before the first step: whether images reach it, and what it answers."""

from dataclasses import dataclass, replace
from typing import Any

from lmmpress.data import Row
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.models import subject_of
from lmmpress.engine.parts.once import once
from lmmpress.evaluation.generate import longest_reply, write_answers
from lmmpress.evaluation.picture_use import rows_of_different_images, sees
from lmmpress.lmm.processor import decoded, load_processor


def original_sees(materials: Materials) -> bool:
    """Whether other images change the original's logits on the gate's rows; True if the rows have no images."""
    role = materials.plan.tolerance.split
    if materials.anatomy.projector is None:
        return True
    inputs = {"checkpoint": materials.original, "data": materials.digest(role), "dtype": str(materials.dtype)}

    def work(_: int) -> dict[str, Any]:
        rows = rows_of_different_images(materials.split(role))
        if not rows.rows:
            return {"sees": True}
        processor = load_processor(materials.store.checkpoint(materials.original, weights=False))
        template = materials.plan.template
        return {"sees": sees(materials.teacher_model, rows, processor, materials.anatomy, template)}

    return bool(once(materials, "sight", inputs, work).values["sees"])


@dataclass(frozen=True)
class Reply:
    """The text that plain greedy generation gives for a row, and whether it ended with an end token."""

    row: Row
    text: str
    ended: bool


def original_says(materials: Materials, count: int = 3) -> list[Reply]:
    """The original's replies to a few rows of the gate's split."""
    split = materials.split(materials.plan.tolerance.split)
    places = sorted({number * len(split.rows) // count for number in range(count)})
    few = replace(split, rows=tuple(split.rows[place] for place in places))
    subject = subject_of(materials, materials.original, few)
    longest = longest_reply(subject.examples, materials.plan.evaluation.max_new_tokens)
    numbers = range(len(subject.examples.rows))
    written = write_answers(subject.model, subject.examples, numbers, longest, subject.ends, batch_size=1)
    return [
        Reply(row, decoded(subject.tokenizer, written[number]), bool(set(written[number]) & subject.ends))
        for number, row in enumerate(subject.examples.split.rows)
    ]
