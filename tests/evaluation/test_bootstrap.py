"""The interval of what rows lose where they are no shares, against what is known of it."""

import math

import numpy as np
import pytest

from lmmpress.evaluation.bootstrap import mean_interval
from lmmpress.evaluation.gate import paired_drop
from lmmpress.metrics.scale import Scale

SCORE = Scale("higher", False, 0.0, 1.0)
DIVERGENCE = Scale("lower", False, 0.0, math.inf)


def some_lose(generator: np.random.Generator, pictures: int) -> "np.ndarray":
    """Three of ten pictures lose something, most of them little: 0.3 on average, and far from symmetric."""
    return np.where(generator.random(pictures) < 0.3, generator.exponential(1, pictures), 0.0)


@pytest.mark.parametrize("rows_of_a_picture", [1, 4])
def test_the_interval_covers_the_true_loss_as_often_as_its_level(rows_of_a_picture: int) -> None:
    """Rows of a picture lose together. An interval by rows would be half as wide, and cover the truth in two of three
    cases."""
    generator, covered = np.random.default_rng(1), 0
    for _ in range(200):
        losses = np.repeat(some_lose(generator, 100), rows_of_a_picture)
        low, high = mean_interval(losses, np.arange(len(losses)) // rows_of_a_picture, 0.95)
        covered += low <= 0.3 <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_the_interval_leans_to_the_side_of_the_long_tail() -> None:
    """That is what the corrections for bias and skew are for; a normal interval is symmetric."""
    losses = some_lose(np.random.default_rng(2), 40)
    low, high = mean_interval(losses, np.arange(40), 0.95)
    assert high - losses.mean() > 1.1 * (losses.mean() - low)


def test_with_many_rows_it_is_the_normal_interval() -> None:
    losses = np.random.default_rng(3).normal(0.1, 1, 4000)
    low, high = mean_interval(losses, np.arange(4000), 0.95)
    reach = 1.96 * losses.std() / math.sqrt(4000)
    assert low == pytest.approx(losses.mean() - reach, abs=0.07 * reach)
    assert high == pytest.approx(losses.mean() + reach, abs=0.07 * reach)


def test_the_same_rows_always_give_the_same_interval_whatever_their_pictures_are_called() -> None:
    losses, owner = some_lose(np.random.default_rng(4), 60), np.arange(60) // 3
    assert (
        mean_interval(losses, owner, 0.9) == mean_interval(losses, owner, 0.9) == mean_interval(losses, 7 * owner, 0.9)
    )


def test_a_metric_whose_smaller_numbers_are_better_loses_what_it_grows_by() -> None:
    generator = np.random.default_rng(5)
    before, after, owner = generator.random(50), 3 + generator.random(50), np.arange(50)
    drop = paired_drop(before, after, owner, 0.95, DIVERGENCE)
    mirrored = paired_drop(-before, -after, owner, 0.95, Scale("higher", False, -math.inf, 0.0))
    assert drop.value == pytest.approx((after - before).mean())
    assert drop == mirrored


def test_the_interval_is_of_the_same_rows() -> None:
    """Two models with equal means: sure where they are alike row by row, and unsure where they are not."""
    before = np.random.default_rng(6).random(200)
    alike = paired_drop(before, np.roll(before, 1), np.arange(200), 0.95, SCORE).interval
    nudged = paired_drop(before, before + 0.001 * np.resize([1, -1], 200), np.arange(200), 0.95, SCORE).interval
    assert alike.high > 0.03
    assert nudged.high < 0.0005


def test_rows_that_all_change_alike_keep_the_uncertainty_of_few_rows() -> None:
    """With 95 % confidence fewer than 3 of n + 1 pictures differ from n that do not."""
    for pictures in (3, 30, 300):
        same = np.full(pictures, 0.5)
        drop = paired_drop(same, same, np.arange(pictures), 0.95, SCORE)
        assert drop.value == 0
        assert drop.interval.high == -drop.interval.low
        assert 2 / (pictures + 1) < drop.interval.high < 3 / pictures


def test_one_picture_gives_the_whole_scale() -> None:
    rows, owner = np.array([0.1, 0.9]), np.zeros(2, dtype=np.int64)
    assert paired_drop(rows, rows, owner, 0.95, SCORE).interval.low == -1
    assert paired_drop(rows, rows, owner, 0.95, DIVERGENCE).interval.high == math.inf
