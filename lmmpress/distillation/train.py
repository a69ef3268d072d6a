"""The training loop of a distillation, for one process or several.

Shuffling depends only on the seed. The loss of an update is the sum over positions, averaged over its samples, however
they are divided into portions and processes. So these change only rounding: an update that does not fit into the memory
is begun anew in smaller portions.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from lmmpress.distillation.learner import Learner
from lmmpress.distillation.optimizers import optimizer_of
from lmmpress.distillation.together import added_up, begin_alike
from lmmpress.lmm.at_once import AtOnce
from lmmpress.lmm.batches import Batch, Batches, Features, grouped
from lmmpress.lmm.examples import Examples
from lmmpress.progress import counter
from lmmpress.settings.distillation import Distillation
from lmmpress.settings.economy import NO_ECONOMY, Economy

Loss = Callable[[torch.nn.Module, Batch], torch.Tensor]
"""The loss of a model, summed over the samples of a batch."""


@dataclass(frozen=True)
class Lesson:
    """What a model is to learn, and how.

    A batch of `examples` has the cached visual `features` [images, tokens, width] of its images if there are some, else
    their pixels. Only `rows` of the examples are trained on, all if it is None. The `economy` says what holds the
    averages of gradients, and in how many bits.
    """

    loss: Loss
    examples: Examples
    features: Features | None
    settings: Distillation
    rows: NDArray[np.int64] | None = None
    economy: Economy = NO_ECONOMY

    @property
    def size(self) -> int:
        """The number of rows that are trained on."""
        return len(self.examples.rows) if self.rows is None else len(self.rows)


def distill(
    learner: Learner,
    lesson: Lesson,
    rate: float,
    seed: int,
    accelerator: Accelerator,
    enough: Callable[[], bool] | None = None,
) -> list[float] | None:
    """Train a learner's model in place with the lesson's loss at a learning rate. Returns the mean loss of each epoch,
    or None as soon as a loss is not finite. Ends after an epoch after which there is `enough`, which is asked in every
    process.

    Only parameters that require a gradient are trained. Dropout is off: the student learns the teacher's function, not
    noise.
    """
    rows, settings = lesson.size, lesson.settings
    generator = torch.Generator().manual_seed(seed)
    in_epoch = math.ceil(rows / settings.batch_size)
    orders = (
        grouped(lesson.examples, settings.batch_size, generator, rows=lesson.rows) for _ in range(settings.epochs)
    )
    made = updates_of(learner, lesson, orders, in_epoch * settings.epochs, rate, accelerator)
    losses = []
    with counter("distil", in_epoch * settings.epochs) as advance:
        for _ in range(settings.epochs):
            total = 0.0
            for update in islice(made, in_epoch):
                if not math.isfinite(update.loss):
                    return None
                total += update.loss * update.rows
                advance(1)
            losses.append(total / rows)
            if enough and len(losses) < settings.epochs and enough():
                break
    return losses


@dataclass(frozen=True)
class Update:
    """An update that was made: the mean loss over its rows, before it. One whose loss is not finite is not made."""

    loss: float
    rows: int


def updates_of(
    learner: Learner,
    lesson: Lesson,
    orders: Iterable[Sequence[list[int]]],
    updates: int,
    rate: float,
    accelerator: Accelerator,
) -> Iterator[Update]:
    """Train a learner's model in place: make the update of each list of rows in `orders`, so many in all, and yield
    it. Ends after one whose loss is not finite."""
    settings = lesson.settings
    trained = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    # a sharded learner adds up its gradients in the backward pass, and its processes begin with shares of one model
    alike = [] if learner.is_sharded else trained
    begin_alike(alike, accelerator)
    optimizer = optimizer_of(trained, rate, settings.weight_decay, lesson.economy)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: _schedule(done, updates, settings.warmup))
    optimizer = accelerator.prepare(optimizer)
    at_once = rows_at_once(settings, learner.is_sharded)
    for order in orders:
        for rows, own in zip(order, _gradients(learner, lesson, order, at_once, accelerator), strict=True):
            loss = added_up(own, alike, at_once, accelerator)
            if math.isfinite(loss):
                accelerator.clip_grad_norm_(trained, settings.max_grad_norm)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            yield Update(loss, len(rows))
            if not math.isfinite(loss):
                return


def rows_at_once(settings: Distillation, sharded: bool = False) -> AtOnce:
    """How many rows go through the student at once: always as many if processes have a share of it each."""
    return AtOnce(settings.rows_at_once, "distill", "distillation.micro_batch_size", fixed=sharded)


def _gradients(
    learner: Learner, lesson: Lesson, order: Sequence[list[int]], at_once: AtOnce, accelerator: Accelerator
) -> Iterator[torch.Tensor]:
    """Compute the gradients of one update after the other over this process's rows, in portions that fit into the
    memory. Yields the loss of each over its rows here, as their part of the mean over the rows of all processes."""
    index, world = accelerator.process_index, accelerator.num_processes
    own = [rows[index::world] for rows in order]
    # a sharded learner takes the mean of the gradients of its processes, and not their sum
    scale = world if learner.is_sharded else 1

    def gradients(update: int, portions: Iterator[Batch]) -> torch.Tensor:
        learner.zero_grad()  # of portions that fitted, before one that did not
        left, total = len(own[update]), torch.zeros((), device=accelerator.device)
        for batch in portions:
            loss = learner(lesson.loss, batch) * (1 / len(order[update]) if left > 0 else 0.0)
            accelerator.backward(loss * scale)
            left, total = left - len(batch.examples), total + loss.detach()
        return total

    size = at_once.rows if learner.is_sharded else lesson.settings.batch_size
    taken = [_with_another(rows, whole, size, world) for rows, whole in zip(own, order, strict=True)]
    return Batches(lesson.examples, taken, lesson.features, accelerator.device).fitting(gradients, at_once)


def _with_another(own: list[int], rows: list[int], size: int, world: int) -> list[int]:
    """A process's `own` of the rows of an update; with another's where it has fewer portions of `size` rows than the
    first of so many processes. That one is a portion of its own, with weight zero: every process takes part in every
    update, and those of a sharded learner make as many forward passes."""
    portions = -(-len(rows) // (world * size))
    return own if -(-len(own) // size) == portions else own + rows[:1]


def _schedule(done: int, updates: int, warmup: float) -> float:
    """The factor of the learning rate after `done` updates: linear warm-up, then a half cosine down to zero."""
    rising = max(1, round(updates * warmup))
    if done < rising:
        return (done + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (done - rising) / max(1, updates - rising)))
