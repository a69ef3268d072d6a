"""The training loop of a distillation, for one process or several.

Shuffling depends only on the seed. The loss of an update is the sum over positions, averaged over its samples, however
they are divided into portions and processes. So the number of processes changes only rounding.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from lmmpress.distillation.optimizers import optimizer_of
from lmmpress.lmm.batches import Batch, Features, ahead, grouped
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
    model: torch.nn.Module,
    lesson: Lesson,
    rate: float,
    seed: int,
    accelerator: Accelerator,
    enough: Callable[[], bool] | None = None,
) -> list[float] | None:
    """Train `model` in place with the lesson's loss at a learning rate. Returns the mean loss of each epoch, or None as
    soon as a loss is not finite. Ends after an epoch after which there is `enough`, which is asked in every process.

    Only parameters that require a gradient are trained. Dropout is off: the student learns the teacher's function, not
    noise.
    """
    rows, settings = lesson.size, lesson.settings
    generator = torch.Generator().manual_seed(seed)
    in_epoch = math.ceil(rows / settings.batch_size)
    orders = (
        grouped(lesson.examples, settings.batch_size, generator, rows=lesson.rows) for _ in range(settings.epochs)
    )
    made = updates_of(model, lesson, orders, in_epoch * settings.epochs, rate, accelerator)
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
    model: torch.nn.Module,
    lesson: Lesson,
    orders: Iterable[Sequence[list[int]]],
    updates: int,
    rate: float,
    accelerator: Accelerator,
) -> Iterator[Update]:
    """Train `model` in place: make the update of each list of rows in `orders`, so many in all, and yield it.
    Ends after one whose loss is not finite."""
    settings = lesson.settings
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model = accelerator.prepare(model)  # which may move its weights, so the optimizer is made after it
    optimizer = optimizer_of(trained, rate, settings.weight_decay, lesson.economy)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: _schedule(done, updates, settings.warmup))
    optimizer = accelerator.prepare(optimizer)
    for order in orders:
        portions = (portion for rows in order for portion in _portions(rows, settings, accelerator))
        batches = ahead(lesson.examples, portions, lesson.features)
        for rows in order:
            loss = _gradients(model, lesson, batches, rows, accelerator)
            if math.isfinite(loss):
                accelerator.clip_grad_norm_(trained, settings.max_grad_norm)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            yield Update(loss, len(rows))
            if not math.isfinite(loss):
                return


def _gradients(
    model: torch.nn.Module, lesson: Lesson, batches: Iterator[Batch], rows: list[int], accelerator: Accelerator
) -> float:
    """Accumulate the gradients of one update over this process's portions, which come next in `batches`. Returns the
    mean loss over the update's samples in all processes."""
    world = accelerator.num_processes
    weight = world / len(rows) if rows[accelerator.process_index :: world] else 0.0
    portions = _portions(rows, lesson.settings, accelerator)
    total = torch.zeros((), device=accelerator.device)
    for number in range(len(portions)):
        last = number == len(portions) - 1
        with nullcontext() if last else accelerator.no_sync(model):
            batch = next(batches).to(accelerator.device)
            loss = lesson.loss(model, batch) * weight
            accelerator.backward(loss)
        total += loss.detach()
    return float(accelerator.reduce(total, "mean"))


def _portions(rows: list[int], settings: Distillation, accelerator: Accelerator) -> list[list[int]]:
    """This process's rows of one update, as many at a time as fit.

    Every process must take part in every update: one without rows computes one of another, with weight zero.
    """
    own_rows = rows[accelerator.process_index :: accelerator.num_processes] or rows[:1]
    size = settings.micro_batch_size
    return [own_rows[at : at + size] for at in range(0, len(own_rows), size)]


def _schedule(done: int, updates: int, warmup: float) -> float:
    """The factor of the learning rate after `done` updates: linear warm-up, then a half cosine down to zero."""
    rising = max(1, round(updates * warmup))
    if done < rising:
        return (done + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (done - rising) / max(1, updates - rising)))
