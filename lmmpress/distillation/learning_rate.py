"""Finds a learning rate by short trainings before a step is distilled (`learning_rate: auto`).

Every trial begins with the same model and takes the same rows in the same order, with the warm-up and the cosine of a
whole training. So trials differ by nothing but their rate, and a few updates tell them apart.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from lmmpress.distillation.learner import Learner
from lmmpress.distillation.train import Lesson, updates_of
from lmmpress.lmm.batches import grouped
from lmmpress.progress import counter

SHARE = 0.1
"""All trials together see at most this share of the rows that the whole training sees, all epochs counted."""
FIRST = 1e-4
"""The rate of the first trial."""
FACTOR = math.sqrt(10)
"""Between the rates of two trials."""
MOST = 6
"""Trials at most."""
UPDATES = 4, 16
"""The fewest and the most updates of a trial."""
FEWEST_ROWS = 32
"""Rows of one update of a trial, at least, if a whole update has as many."""


@dataclass(frozen=True)
class Trials:
    """The size of a trial: updates, and rows of each."""

    updates: int
    rows: int


def size_of_trials(examples: int, epochs: int, batch_size: int) -> Trials:
    """How long trials are before a training of so many epochs over so many examples."""
    share = SHARE * examples * epochs / MOST
    fewest, most = UPDATES
    updates = min(most, max(fewest, int(share / batch_size)))
    return Trials(updates, min(batch_size, max(FEWEST_ROWS, int(share / updates))))


def find_rate(fresh: Callable[[], Learner], lesson: Lesson, seed: int, accelerator: Accelerator) -> float:
    """The learning rate with which the model that `fresh` loads learns best in a few updates.

    Every process of several finds the same: the losses that decide are those of all of them.
    """
    settings = lesson.settings
    size = size_of_trials(lesson.size, settings.epochs, settings.batch_size)
    # rows at random: batches of rows of like lengths are too unlike each other for so few updates
    generator = torch.Generator().manual_seed(seed)
    order = grouped(lesson.examples, size.rows, generator, bucket=1, rows=lesson.rows)[: size.updates]
    with counter("learning rate", MOST * len(order)) as advance:

        def loss_at(rate: float) -> float:
            found = []
            for update in updates_of(fresh(), lesson, [order], len(order), rate, accelerator):
                found.append(update.loss)
                advance(1)
            accelerator.free_memory()
            return _end_of(found, len(order))

        return best_rate(loss_at)


def best_rate(loss_at: Callable[[float], float]) -> float:
    """The rate of the least loss. Tried from FIRST upwards while the loss gets less, or else downwards; then a parabola
    through the best trial and those beside it says where between them it is least.

    It is rounded to two digits, so that rounding in the losses, other on other machines, hardly ever changes it.
    """
    tried = {0: loss_at(FIRST)}
    for direction in (1, -1):
        while len(tried) < MOST and _best(tried) == (end := max(tried, key=lambda place: place * direction)):
            tried[end + direction] = loss_at(FIRST * FACTOR ** (end + direction))
    best = _best(tried)
    between = _vertex(*(tried.get(place, math.inf) for place in (best - 1, best, best + 1)))
    return float(f"{FIRST * FACTOR ** (best + between):.1e}")


def _best(tried: dict[int, float]) -> int:
    """The place of the least loss; of equal ones the lowest."""
    return min(tried, key=lambda place: (tried[place], place))


def _vertex(left: float, middle: float, right: float) -> float:
    """Where the parabola through the logarithms of three losses at -1, 0 and 1 is lowest; 0 if one is missing."""
    if not (0 < middle <= min(left, right) and math.isfinite(left) and math.isfinite(right)):
        return 0.0
    first, second, third = map(math.log, (left, middle, right))
    bend = first - 2 * second + third
    return (first - third) / (2 * bend) if bend else 0.0


def _end_of(losses: Iterable[float], updates: int) -> float:
    """The mean loss of the later half of a trial's updates; infinite if it did not get there."""
    later = list(losses)[updates // 2 :]
    mean = sum(later) / len(later) if len(later) == updates - updates // 2 else math.inf
    return mean if math.isfinite(mean) else math.inf
