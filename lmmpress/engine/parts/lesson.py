"""What a checkpoint is to learn from in its step: answers, or the visual features of the original."""

from collections.abc import Callable
from itertools import chain
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lmmpress.distillation.image_side import features_loss
from lmmpress.distillation.loss import loss_in_portions
from lmmpress.distillation.train import Lesson
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.last_cuts import last_cuts
from lmmpress.errors import UserError
from lmmpress.lmm.batches import Batch
from lmmpress.lmm.compression_record import cuts_of, read_record
from lmmpress.lmm.forward import image_features
from lmmpress.lmm.tensor_cut import compose
from lmmpress.settings.distillation import Distillation

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

    def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        student, teacher = materials.student_states(model, batch), materials.teacher_states_of(batch)
        return loss_in_portions(student, teacher, batch.targets, settings)

    return Lesson(loss, examples, features, settings, rows)


def settle_teacher(materials: Materials, side: Side, settings: Distillation) -> None:
    """Compute what a student learns from before it is loaded, where the plan allows caches, and let go of the teacher:
    its head is all that they need."""
    if settings.caches:
        if side != "image" and settings.epochs:
            _ = materials.teacher_states
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
    see, kept, device = (
        forward_of(materials, "image"),
        _kept_features(materials, checkpoint),
        materials.accelerator.device,
    )

    def goal_of(batch: Batch) -> torch.Tensor:
        images = list(chain.from_iterable(examples.rows.images(row) for row in batch.examples))
        with torch.no_grad():
            goal = see(materials.teacher_model, batch) if seen is None else seen[images]
        assert isinstance(goal, torch.Tensor), "image towers that learn alone take images of one size"
        return (goal if kept is None else goal[..., kept]).to(device)

    def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        with materials.in_students_dtype(model):
            features: torch.Tensor = model(batch.pixels)
        return features_loss(features, goal_of(batch))

    return Lesson(loss, examples, None, settings, seeing)


def _kept_features(materials: Materials, checkpoint: str) -> list[int] | None:
    """The numbers of the original's features, along their width, that a checkpoint still has; None for all."""
    anatomy, projector = materials.anatomy, materials.anatomy.projector
    before, now = (
        cuts_of(read_record(materials.store.checkpoint(one, weights=False)) or {"history": []})
        for one in (materials.original, checkpoint)
    )
    kept = compose(anatomy, now[len(before) :])
    assert projector is not None, "only a model with images has an image side"
    for tower in anatomy.image_towers:
        for axis in anatomy.towers[tower].axes.values():
            for group in axis.groups:
                hands_over = (piece.dim == 1 and piece.tensor.startswith(projector.module) for piece in group.slices)
                if group.name in kept and any(hands_over):
                    return kept[group.name]
    return None
