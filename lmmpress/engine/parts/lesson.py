"""What a checkpoint is to learn from in its step: answers, or the visual features of the original."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lmmpress.axes.slices import group_name
from lmmpress.distillation.image_side import features_loss
from lmmpress.distillation.loss import loss_in_portions, states_apart
from lmmpress.distillation.train import Lesson
from lmmpress.engine.caches import Kept
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.last_cuts import last_cuts
from lmmpress.errors import UserError
from lmmpress.lmm.batches import Batch
from lmmpress.lmm.compression_record import cuts_of, read_record
from lmmpress.lmm.forward import image_features
from lmmpress.lmm.pixels import Images
from lmmpress.lmm.tensor_cut import compose
from lmmpress.settings.distillation import Distillation

Rows = Sequence[int] | NDArray[np.int64]
Side = Literal["whole", "image", "language"]
"""What of a model a step trains."""


def side_of(materials: Materials, checkpoint: str, settings: Distillation) -> Side:
    """The side of the model that a checkpoint's last cuts were on, which is all that it trains under `image_side:
    features`; else the whole model, as after a jump that cuts both."""
    if settings.image_side == "answers" or not (of_images := set(materials.anatomy.image_towers)):
        return "whole"
    cut = {entry["cut"]["tower"] for entry in last_cuts(materials, checkpoint)}
    if cut and cut <= of_images:
        return "image"
    return "whole" if cut & of_images else "language"


def is_trained(materials: Materials, side: Side, tensor: str) -> bool:
    """Whether a step that trains this side changes a tensor."""
    of_images = tensor.startswith(materials.anatomy.image_side)
    return {"whole": not tensor.startswith(materials.frozen), "image": of_images, "language": not of_images}[side]


def forward_of(materials: Materials, side: Side) -> Callable[[torch.nn.Module, Batch], torch.Tensor]:
    """Runs on a batch what of a model a step trains: the image side gives visual features [images, tokens, width] from
    pixels, the rest logits [positions, vocabulary]."""
    projector = materials.anatomy.projector
    if side != "image" or projector is None:
        return materials.logits

    def see(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        assert isinstance(batch.pixels, torch.Tensor), "only rows with images of one size are asked for"
        return image_features(model, batch.pixels, projector)

    return see


def lesson_of(
    materials: Materials, checkpoint: str, side: Side, settings: Distillation, rows: NDArray[np.int64] | None
) -> Lesson:
    """The lesson of a step that trains this side of a checkpoint, on some rows of the distill split, or on all."""
    if side == "image":
        return _of_features(materials, checkpoint, settings)
    features = materials.features("distill", checkpoint if side == "language" else None)
    examples = materials.lessons("distill")
    states = materials.teacher_states if settings.epochs else None  # repairing alone does not ask the teacher
    if states is not None:
        examples = replace(examples, goals=_reader(states, examples.numbers_of))

    kept = _kept_stream(materials, checkpoint) if settings.states else None

    def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        student, teacher = materials.student_states(model, batch), materials.teacher_states_of(batch)
        found = loss_in_portions(student, teacher, batch.targets, settings)
        if settings.states:
            own, goal = student.inputs, teacher.inputs
            found = found + settings.states * states_apart(own, goal if own.shape == goal.shape else goal[:, kept])
        return found

    return Lesson(loss, examples, features, settings, rows)


def settle_teacher(materials: Materials, lesson: Lesson, settings: Distillation) -> None:
    """Let go of the teacher before a student is loaded, where nothing of the lesson runs it: of cached states only its
    head is needed."""
    if lesson.examples.goals is not None or not settings.epochs:
        materials.release_teacher()


def _of_features(materials: Materials, checkpoint: str, settings: Distillation) -> Lesson:
    """A lesson on all rows that have images. Raises UserError if none has."""
    examples, seen = materials.lessons("distill"), materials.features("distill", materials.original)
    seeing = np.flatnonzero(examples.rows.image_counts)
    if not len(seeing):
        raise UserError(
            f"{materials.plan.data}: no row of split {examples.split.name!r} has an image, so the image side has "
            "nothing to learn from; use distillation.image_side: answers"
        )
    see, kept = forward_of(materials, "image"), _kept_features(materials, checkpoint)
    if seen is not None:
        examples = replace(examples, goals=_reader(seen, examples.images_of))

    def goal_of(batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            goal = see(materials.teacher_model, batch) if batch.goals is None else batch.goals
        assert isinstance(goal, torch.Tensor), "image towers that learn alone take images of one size"
        return goal if kept is None else goal[..., kept]

    def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        with materials.in_students_dtype(model):
            features = see(model, batch)
        return features_loss(features, goal_of(batch))

    return Lesson(loss, examples, None, settings, seeing)


def _reader(rows: Kept, numbers_of: Callable[[Sequence[int]], Rows]) -> Callable[[Sequence[int]], Images]:
    """Reads what the teacher makes of some examples, for the threads that make batches."""
    return lambda chosen: rows[numbers_of(chosen)]


def _kept(materials: Materials, checkpoint: str) -> dict[str, list[int]]:
    """Which of the original's dimensions a checkpoint still has, by the groups that were cut."""
    before, now = (
        cuts_of(read_record(materials.store.checkpoint(one, weights=False)) or {"history": []})
        for one in (materials.original, checkpoint)
    )
    return compose(materials.anatomy, now[len(before) :])


def _kept_stream(materials: Materials, checkpoint: str) -> list[int] | None:
    """The dimensions of the stream before the original's head that a checkpoint still has; None for all."""
    return _kept(materials, checkpoint).get(group_name("language", "io"))


def _kept_features(materials: Materials, checkpoint: str) -> list[int] | None:
    """The numbers of the original's features, along their width, that a checkpoint still has; None for all."""
    anatomy, projector, kept = materials.anatomy, materials.anatomy.projector, _kept(materials, checkpoint)
    assert projector is not None, "only a model with images has an image side"
    for tower in anatomy.image_towers:
        for axis in anatomy.towers[tower].axes.values():
            for group in axis.groups:
                hands_over = (piece.dim == 1 and piece.tensor.startswith(projector.module) for piece in group.slices)
                if group.name in kept and any(hands_over):
                    return kept[group.name]
    return None
