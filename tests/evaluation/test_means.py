"""The interval of what one model's rows are worth: of a share, of numbers, and where nothing varies."""

import math

import numpy as np
import pytest

from lmmpress.data.facts import SplitFacts
from lmmpress.evaluation.bootstrap import mean_interval
from lmmpress.evaluation.means import interval_of_mean, intervals_by_task
from lmmpress.evaluation.share import share_interval
from lmmpress.metrics.scale import SHARE_OF_RIGHT, Scale

SCORE = Scale("higher", False, 0.0, 1.0)
ERRORS = Scale("lower", False, 0.0, math.inf)


@pytest.mark.parametrize("kind", [np.bool_, np.float64])
def test_where_each_row_is_0_or_1_it_is_that_of_a_share(kind: type) -> None:
    right = np.arange(40) % 5 > 0
    assert interval_of_mean(right.astype(kind), np.arange(40), SHARE_OF_RIGHT) == share_interval(right, np.arange(40))


def test_of_numbers_it_is_that_of_the_bootstrap_by_pictures() -> None:
    values, owner = np.random.default_rng(1).random(60), np.arange(60) // 3
    found = interval_of_mean(values, owner, SCORE)
    assert (found.low, found.high) == mean_interval(values, owner, 0.95)
    assert found.confidence == 0.95


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_rows_that_are_all_worth_the_same_keep_the_uncertainty_of_few_rows(value: float) -> None:
    """With 95 % confidence fewer than 3 of n pictures differ; each of them may be at an end of the scale."""
    found = interval_of_mean(np.full(30, value), np.arange(30), SCORE)
    assert 0 <= found.low <= value <= found.high <= 1
    assert 2 / 31 < found.high - found.low < 3 / 30


def test_towards_an_end_that_is_infinite_such_rows_say_nothing() -> None:
    found = interval_of_mean(np.full(30, 0.5), np.arange(30), ERRORS)
    assert found.low < 0.5 == found.high


def test_one_picture_gives_the_whole_scale() -> None:
    values, owner = np.array([0.1, 0.9]), np.zeros(2, dtype=np.int64)
    for scale in (SCORE, ERRORS):
        found = interval_of_mean(values, owner, scale)
        assert (found.low, found.high) == (scale.low, scale.high)


def test_each_task_has_the_interval_of_its_rows_on_its_own_scale() -> None:
    facts = SplitFacts(
        split="test",
        rows=6,
        digest="d",
        tasks=("colour", "form"),
        task_of_row=(0, 1, 0, 1, 0, 1),
        image_of_row=(0, 0, 1, 1, 2, 2),
    )
    values = np.array([1.0, 0.2, 0.0, 0.4, 1.0, 0.9])
    found = intervals_by_task(values, facts, {"colour": SHARE_OF_RIGHT, "form": SCORE})
    assert list(found) == ["colour", "form"]
    assert found["colour"] == share_interval(np.array([True, False, True]), np.arange(3))
    assert found["form"] == interval_of_mean(np.array([0.2, 0.4, 0.9]), np.arange(3), SCORE)
