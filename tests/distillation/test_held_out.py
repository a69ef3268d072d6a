"""Rows that are kept aside, and the end of a training that is good enough on them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from support.certain import certain
from support.exact_distillation import ROWS, SETTINGS, exact_values, lesson_by, logits

from lmmpress.data import read_split
from lmmpress.distillation.held_out import Models, is_within, kept_aside
from lmmpress.distillation.learner import Learner
from lmmpress.distillation.train import Lesson, distill
from lmmpress.lmm.batches import Batch
from lmmpress.lmm.checkpoint import read_checkpoint
from lmmpress.lmm.examples import encode
from lmmpress.lmm.processor import load_processor
from lmmpress.settings.distillation import Distillation


@given(st.integers(1, 500), st.integers(0, 5))
def test_each_row_is_on_one_side(examples: int, seed: int) -> None:
    trained, held = kept_aside(examples, seed)
    assert sorted([*trained, *held]) == list(range(examples))
    assert len(held) == examples // 10
    again = kept_aside(examples, seed)
    assert (again[0] == trained).all()
    assert (again[1] == held).all()


@pytest.fixture
def lesson(make_checkpoint: Callable[..., Path], data: Path) -> tuple[torch.nn.Module, Models, Lesson]:
    """A student, the logits of it and of a teacher that is not it, and a lesson from that teacher."""
    checkpoint = make_checkpoint("opt")
    examples = encode(read_split(data, "distill", ROWS), load_processor(checkpoint), read_checkpoint(checkpoint).config)
    student, teacher = exact_values(checkpoint, 1), exact_values(checkpoint, 2)

    models = Models(partial(logits, student), partial(logits, teacher))
    return student, models, lesson_by(models.teacher, examples, Distillation(**SETTINGS | {"epochs": 3}))


def test_within_alpha_is_fewer_rows_than_its_share_that_differ_in_any_token(
    lesson: tuple[torch.nn.Module, Models, Lesson],
) -> None:
    _, models, plain = lesson
    held = np.arange(20)
    differing = set()
    answers = [plain.examples.rows[row].answer for row in held.tolist()]

    def teacher(batch: Batch) -> torch.Tensor:
        """As the student, but for the last token of two rows."""
        logits = models.student(batch).detach()
        for place, row in enumerate(batch.examples):
            if row in (3, 7):
                differing.add(row)
                last = torch.nonzero(batch.owner == place)[-1]
                logits[last] = -logits[last]
        return logits

    taught = Models(models.student, teacher)
    assert max(map(len, answers)) > 1, "rows of several tokens"
    accelerator = Accelerator()
    assert not is_within(taught, plain, held, 0.1, accelerator), "2 of 20 is not less than 0.1"
    assert differing == {3, 7}
    assert is_within(taught, plain, held, 0.11, accelerator)


def test_several_processes_count_together(lesson: tuple[torch.nn.Module, Models, Lesson]) -> None:
    """Each looks at its share; the sum decides."""
    _, models, plain = lesson
    seen: list[int] = []

    def teacher(batch: Batch) -> torch.Tensor:
        seen.extend(batch.examples)
        return models.student(batch).detach()

    taught = Models(models.student, teacher)
    for index, others in ((0, 10.0), (1, 9.0)):  # one row of the other process differs in the second case
        few: Any = SimpleNamespace(
            process_index=index, num_processes=2, device=torch.device("cpu"), reduce=lambda one, _, o=others: one + o
        )
        assert is_within(taught, plain, np.arange(20), 0.05, cast(Accelerator, few)) is (others == 10.0)
    assert sorted(seen) == list(range(20))


def test_a_training_ends_with_the_epoch_that_is_enough_and_learns_its_rows_alone(
    lesson: tuple[torch.nn.Module, Models, Lesson],
) -> None:
    student, models, plain = lesson
    seen: set[int] = set()
    asked: list[int] = []

    def teacher(batch: Batch) -> torch.Tensor:
        seen.update(batch.examples)
        return models.teacher(batch)

    def enough() -> bool:
        asked.append(len(asked))
        return len(asked) == 2

    some = lesson_by(teacher, plain.examples, plain.settings, np.arange(1, 36, 2))
    losses = distill(Learner(student), some, 1e-3, 5, Accelerator(), enough)
    assert len(certain(losses)) == len(asked) == 2
    assert seen == set(range(1, 36, 2))
    assert len(certain(distill(Learner(student), some, 1e-3, 5, Accelerator(), enough))) == 3
    assert asked == [0, 1, 2, 3], "it is not asked after the last epoch"
