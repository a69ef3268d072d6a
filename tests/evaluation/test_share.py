"""The interval of a share: Wilson's where rows are independent, wider where rows of a picture go together."""

import math

import numpy as np
import pytest

from lmmpress.evaluation.share import share_interval


def rows(right: int, wrong: int) -> np.ndarray:
    return np.array([True] * right + [False] * wrong)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("right", [0, 1, 10, 39, 40])
def test_with_a_picture_for_each_row_it_is_wilsons(right: int, confidence: float) -> None:
    """Its ends are the shares that are just not refused: where |share - p| is z times the error at p."""
    found = share_interval(rows(right, 40 - right), np.arange(40), confidence)
    z = {0.8: 1.2815515655, 0.95: 1.9599639845, 0.99: 2.5758293035}[confidence]
    assert found.confidence == confidence
    for end in (found.low, found.high):
        if 1e-12 < end < 1 - 1e-12:
            assert abs(right / 40 - end) == pytest.approx(z * math.sqrt(end * (1 - end) / 40), rel=1e-6)
    assert found.low <= right / 40 + 1e-12
    assert right / 40 <= found.high + 1e-12


def test_rows_that_always_go_together_count_as_one() -> None:
    right = rows(30, 10)
    alone = share_interval(right, np.arange(40))
    together = share_interval(np.repeat(right, 5), np.repeat(np.arange(40), 5))
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high), abs=1e-9)


@pytest.mark.parametrize("right", [0, 40])
def test_without_a_wrong_row_nothing_says_that_rows_are_independent(right: int) -> None:
    one = share_interval(np.repeat(rows(right, 40 - right), 5), np.repeat(np.arange(40), 5))
    other = share_interval(rows(right, 40 - right), np.arange(40))
    assert (one.low, one.high) == pytest.approx((other.low, other.high))


@pytest.mark.parametrize("count", [1, 5])
def test_of_one_picture_nothing_is_known(count: int) -> None:
    found = share_interval(rows(count, 0), np.zeros(count, dtype=np.int64))
    assert (found.low, found.high) == (0.0, 1.0)


@pytest.mark.parametrize("together", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("pictures", "share"), [(10, 0.5), (30, 0.8), (100, 0.9), (300, 0.97)])
def test_it_covers_what_is_true(pictures: int, share: float, together: float) -> None:
    """Five rows a picture; in a part of the pictures they are all right or all wrong."""
    chance, held, times = np.random.default_rng(3), 0, 600
    owner = np.repeat(np.arange(pictures), 5)
    for _ in range(times):
        alike = np.repeat(chance.random(pictures) < together, 5)
        right = np.where(alike, np.repeat(chance.random(pictures) < share, 5), chance.random(5 * pictures) < share)
        found = share_interval(right, owner)
        held += found.low <= share <= found.high
    assert held / times >= 0.92


def test_it_is_wider_than_that_of_independent_rows_where_they_are_not() -> None:
    owner = np.repeat(np.arange(50), 4)
    pairs = np.repeat(np.arange(50) % 5 > 0, 4)
    mixed = np.arange(200) % 5 > 0
    assert pairs.mean() == mixed.mean()
    wide, narrow = share_interval(pairs, owner), share_interval(mixed, owner)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
