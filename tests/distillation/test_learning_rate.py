"""The learning rate that short trainings find."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from support.exact_distillation import ROWS, SETTINGS, exact_values, lesson_by, logits

from lmmpress.data import read_split
from lmmpress.distillation.learner import Learner
from lmmpress.distillation.learning_rate import MOST, SHARE, best_rate, find_rate, size_of_trials
from lmmpress.lmm.checkpoint import read_checkpoint
from lmmpress.lmm.examples import encode
from lmmpress.lmm.processor import load_processor
from lmmpress.settings.distillation import Distillation


@pytest.mark.parametrize("best", [3e-6, 3e-5, 1.7e-4, 3e-4, 6e-4, 4e-3, 1e-2])
def test_the_rate_of_the_least_loss_is_found(best: float) -> None:
    asked = []

    def loss(rate: float) -> float:
        asked.append(rate)
        return math.exp((math.log(rate) - math.log(best)) ** 2)

    assert best_rate(loss) == pytest.approx(best, rel=0.06), "two digits"
    assert len(set(asked)) == len(asked) <= MOST


def test_rates_whose_loss_is_not_finite_are_left_out() -> None:
    """The best of the others stays as it is: nothing is known of what lies above it."""
    assert best_rate(lambda rate: math.inf if rate > 2e-4 else 1 / rate) == 1e-4
    assert best_rate(lambda rate: math.inf if rate > 5e-5 else 1 / rate) == pytest.approx(3.2e-5)


def test_the_search_ends_where_no_rate_is_best() -> None:
    """Less and less loss upwards or downwards, and the same loss everywhere, as of a model that learns nothing."""
    for slope in (-1, 1, 0):
        asked: list[float] = []

        def loss(rate: float, slope: int = slope, asked: list[float] = asked) -> float:
            asked.append(rate)
            return rate**slope

        assert best_rate(loss) == pytest.approx(max(asked) if slope < 0 else min(asked), rel=0.05)
        assert len(asked) == MOST


@pytest.mark.parametrize("batch_size", [8, 64, 1024])
@pytest.mark.parametrize("epochs", [1, 4])
@pytest.mark.parametrize("examples", [1000, 9000, 1_000_000])
def test_trials_see_a_small_share_of_the_rows(examples: int, epochs: int, batch_size: int) -> None:
    trials = size_of_trials(examples, epochs, batch_size)
    least = MOST * 4 * min(batch_size, 32)
    assert MOST * trials.updates * trials.rows <= max(least, SHARE * examples * epochs)
    assert trials.updates >= 4
    assert trials.rows <= batch_size


def test_trials_begin_with_the_same_model_and_leave_no_trace(make_checkpoint: Callable[..., Path], data: Path) -> None:
    checkpoint = make_checkpoint("opt")
    examples = encode(read_split(data, "distill", ROWS), load_processor(checkpoint), read_checkpoint(checkpoint).config)
    teacher, loaded = exact_values(checkpoint, 2), []

    def fresh() -> Learner:
        loaded.append(Learner(exact_values(checkpoint, 1)))
        return loaded[-1]

    lesson = lesson_by(lambda batch: logits(teacher, batch), examples, Distillation(**SETTINGS))
    accelerator, before = Accelerator(), torch.get_rng_state()
    rate = find_rate(fresh, lesson, 5, accelerator)
    assert rate == find_rate(fresh, lesson, 5, accelerator)
    assert len(loaded) >= 2 * 3, "one model for each trial, above and below the best rate"
    assert torch.equal(torch.get_rng_state(), before)
    assert accelerator._models == [], "no model of a trial is held"
