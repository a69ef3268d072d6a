"""How a student goes into the memory of this machine: with which economy, and how many rows at once."""

from collections.abc import Callable
from dataclasses import replace
from math import ceil, prod

import numpy as np
import torch

from lmmpress.distillation.loss import MOST_LOGITS
from lmmpress.distillation.optimizers import has_torchao
from lmmpress.distillation.train import Lesson, rows_at_once
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.lesson import Side, forward_of
from lmmpress.host.memory import available_memory
from lmmpress.lmm.batches import make_batch
from lmmpress.lmm.blocks import blocks_of
from lmmpress.lmm.kept_tensors import Kept, kept_by
from lmmpress.progress import say_once
from lmmpress.pruning.economy import Trainings, Way, choose, fits
from lmmpress.pruning.memory import Training
from lmmpress.pruning.sizes import head_shapes, outside_and_block
from lmmpress.settings.distillation import Distillation

_COPIES_OF_LOGITS = 12
"""So many tensors of the size of a portion's logits the loss holds, in float32."""


def way_of(
    materials: Materials,
    checkpoint: str,
    side: Side,
    lesson: Lesson,
    settings: Distillation,
    fresh: Callable[[], torch.nn.Module],
) -> Way:
    """The economy and the rows at once that the settings name, or the least saving that fits; `fresh` loads the
    student. It is the same in all processes that train together."""
    shares = materials.accelerator.num_processes if settings.sharding == "full" else 1
    most = rows_at_once(settings, sharded=shares > 1).rows
    named = "auto" not in (settings.optimizer, settings.weights, settings.recompute)
    by_plan = Way(settings.economy().model_copy(update={"why": "the plan says so"}), most, most)
    if named and settings.micro_batch_size != "auto":
        return by_plan
    if lesson.examples.goals is None:
        _ = materials.teacher_model  # which the student learns from: what that takes is not free
    budget, trainings = _budget(materials), _trainings(materials, checkpoint, side, lesson, fresh(), shares)
    enough = fits(trainings(most), settings.economy(), budget)
    found = choose(trainings, settings, budget, most, has_torchao=not enough and has_torchao())
    if not enough:
        say_once(f"distillation: {found}: the student {found.economy.why}")
    return replace(by_plan, rows=found.rows) if named else found


def _budget(materials: Materials) -> int:
    """The bytes that each process can have; the least of all of them."""
    accelerator = materials.accelerator
    if accelerator.device.type == "cuda":
        free = torch.cuda.mem_get_info(accelerator.device)[0]
        free += torch.cuda.memory_reserved(accelerator.device) - torch.cuda.memory_allocated(accelerator.device)
    else:
        free = available_memory() // accelerator.num_processes
    return int(accelerator.gather(torch.tensor([free], device=accelerator.device)).min())


def _trainings(
    materials: Materials, checkpoint: str, side: Side, lesson: Lesson, model: torch.nn.Module, shares: int = 1
) -> Trainings:
    """What this process holds while the student learns, of which it has one of so many shares."""
    width, settings, anatomy = materials.dtype.itemsize, lesson.settings, materials.anatomy
    own = ceil(min(settings.batch_size, lesson.size) / materials.accelerator.num_processes)
    each, head = _kept_by_row(materials, checkpoint, side, lesson, model), head_shapes(anatomy)
    answers = ceil(lesson.examples.positions / len(lesson.examples.rows))
    vocabulary = max(shape[0] for shape in head) if side != "image" else 0
    beside = width * sum(map(prod, head)) if lesson.examples.goals else 0  # without caches it is there already
    outside, block = outside_and_block(materials.anatomy_of(checkpoint))
    bare = Training(
        held=sum(one.numel() for one in model.parameters()),
        trained=sum(one.numel() for one in model.parameters() if one.requires_grad),
        width=width,
        beside=beside,
        shares=shares,
        outside=outside,
        block=block,
    )

    def of(most: int) -> Training:
        rows = min(most, own)
        loss = _COPIES_OF_LOGITS * 4 * min(MOST_LOGITS, rows * answers * vocabulary)
        kept, anew = rows * each.usual, rows * each.recomputed
        return replace(bare, beside=beside + loss, kept=kept, kept_anew=anew)

    return of


def _kept_by_row(materials: Materials, checkpoint: str, side: Side, lesson: Lesson, model: torch.nn.Module) -> Kept:
    """What a forward pass keeps of one more row, of those that are longest. Batches have rows of more than one length,
    as those of a training have; else some models would go without a mask."""
    run, device = forward_of(materials, side), materials.accelerator.device
    rows = lesson.examples.rows
    chosen = np.arange(len(rows)) if lesson.rows is None else lesson.rows
    sizes = rows.image_counts[chosen] if side == "image" else rows.lengths[chosen]
    shortest, longest = int(chosen[sizes.argmin()]), int(chosen[sizes.argmax()])
    blocks = list(blocks_of(model, materials.anatomy_of(checkpoint)))

    def of(*numbers: int) -> Kept:
        batch = make_batch(lesson.examples, list(numbers), lesson.features).to(device)
        with materials.in_students_dtype(model):
            return kept_by(lambda: run(model, batch), model, blocks)

    less, more = of(shortest, longest), of(shortest, longest, longest)
    return Kept(max(0, more.usual - less.usual), max(0, more.recomputed - less.recomputed))
