"""Rows that a training keeps aside, to see after each epoch whether the student is good enough (`stop_within`).

The gate's split is not asked: a training that ends when the gate's rows are right would be better on these than on
others, and the gate's decision would no longer be fair.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from lmmpress.distillation.train import Lesson, rows_at_once
from lmmpress.lmm.batches import Batch, Batches, grouped_rows

SHARE = 10
"""One row of so many is kept aside."""

Rows = NDArray[np.int64]


def kept_aside(examples: int, seed: int) -> tuple[Rows, Rows]:
    """The rows to train on and those that are kept aside, none of fewer than SHARE rows."""
    order = torch.randperm(examples, generator=torch.Generator().manual_seed(seed)).numpy()
    count = examples // SHARE
    return np.sort(order[count:]), np.sort(order[:count])


@dataclass(frozen=True)
class Models:
    """Functions that give the logits [positions, vocabulary] of a batch: the student's and the teacher's."""

    student: Callable[[Batch], torch.Tensor]
    teacher: Callable[[Batch], torch.Tensor]


def is_within(
    models: Models, lesson: Lesson, held: Rows, alpha: float, accelerator: Accelerator, sharded: bool = False
) -> bool:
    """Whether the student's first choice is the teacher's at every answer position of more than 1 - alpha of the rows.

    It is the same in all processes; each looks at its share of the rows, and has a share of the student if that is
    `sharded`. A row with right answers of the teacher is then answered right by the student, so its accuracy on these
    rows is less than alpha below the teacher's.
    """
    at_once = rows_at_once(lesson.settings, sharded)
    size, world = at_once.rows, accelerator.num_processes
    order = list(grouped_rows(lesson.examples, size, held[accelerator.process_index :: world].tolist()))
    own, as_many = len(order), -(-len(held) // (world * size))
    # a process that has no rows left takes any, so that all of them make as many forward passes
    order += [held[:1].tolist()] * (as_many - own)
    batches = Batches(lesson.examples, order, lesson.features, accelerator.device)

    def agreeing(place: int, portions: Iterator[Batch]) -> int:
        found = sum(_agreeing(models.student(batch), models.teacher(batch), batch) for batch in portions)
        return found if place < own else 0

    with torch.no_grad():
        agree = sum(batches.fitting(agreeing, at_once))
    total = torch.tensor(float(agree), device=accelerator.device)
    differ = len(held) - int(accelerator.reduce(total, "sum"))
    return differ < alpha * len(held)


def _agreeing(student: torch.Tensor, teacher: torch.Tensor, batch: Batch) -> int:
    """The number of a batch's rows at all of whose answer positions both choose the same token."""
    wrong = (student.argmax(-1) != teacher.argmax(-1)).long()
    by_row = wrong.new_zeros(len(batch.examples)).index_add(0, batch.owner, wrong)
    return int((by_row == 0).sum())
