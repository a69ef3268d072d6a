"""When speed is known well enough, how many rows fit into the time, and which rows those are."""

import math
import random
from collections.abc import Callable
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pytest

from lmmpress.evaluation.pace import (
    LEAST,
    NARROW,
    SURE,
    Pace,
    Stopwatch,
    fit,
    rate_interval,
    ratio_interval,
    spread,
    student,
)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 8, 15, 40])
@pytest.mark.parametrize("probability", [0.75, 0.95, 0.975])
def test_the_quantile_is_that_of_the_density(freedom: int, probability: float) -> None:
    """A second implementation: the density summed up to the quantile."""
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    points = np.linspace(0, student(probability, freedom), 200_001)
    density = scale * (1 + points**2 / freedom) ** (-(freedom + 1) / 2)
    assert float(np.trapezoid(density, points)) == pytest.approx(probability - 0.5, abs=1e-8)


def test_the_quantile_becomes_the_normal_one() -> None:
    assert student(0.975, 100_000) == pytest.approx(NormalDist().inv_cdf(0.975), rel=1e-4)


def test_an_interval_has_the_geometric_mean_in_its_middle() -> None:
    found = rate_interval([1.0, 2.0, 4.0])
    assert math.sqrt(found.low * found.high) == pytest.approx(2.0)
    assert found.low < 2.0 < found.high
    assert found.confidence == 0.95


def test_a_ratio_does_not_depend_on_how_slow_each_turn_was() -> None:
    slow = [10.0, 1.0, 5.0, 0.1]
    found = ratio_interval(slow, [3 * rate for rate in slow])
    assert (found.low, found.high) == pytest.approx((3.0, 3.0))
    turned = ratio_interval([3 * rate for rate in slow], slow)
    assert (turned.low, turned.high) == pytest.approx((1 / 3, 1 / 3))


def test_a_stopwatch_stands_still_when_it_is_told_to() -> None:
    now = 10.0
    watch = Stopwatch(lambda: now)
    begun, now = watch(), 13.0
    with watch.stands():
        now = 50.0
    now = 52.0
    assert watch() - begun == pytest.approx(3 + 2)


@pytest.mark.parametrize("models", [1, 2])
@pytest.mark.parametrize("turns", range(1, 12))
def test_steady_rates_are_known_well_after_five_turns(models: int, turns: int) -> None:
    pace = Pace.begin(60, lambda: 0.0)
    stopped = pace.stops([[4.0 + model] * turns for model in range(models)], 1.0)
    assert stopped == ("narrow" if turns >= SURE else None)


@pytest.mark.parametrize(("within", "stopped"), [(0.99 * NARROW, "narrow"), (1.01 * NARROW, None)])
def test_narrow_is_so_far_to_either_side(within: float, stopped: str | None) -> None:
    """Five ratios whose interval reaches exactly so far: two up, two down, one in the middle."""
    away = math.log(1 + within) * math.sqrt(SURE) / student(0.975, SURE - 1)
    rates = [math.exp(step * away) for step in (1, -1, 0, 1, -1)]
    interval = rate_interval(rates)
    assert math.sqrt(interval.high / interval.low) == pytest.approx(1 + within)
    assert Pace.begin(60, lambda: 0.0).stops([rates], 1.0) == stopped


@pytest.mark.parametrize("turns", range(1, 8))
def test_three_turns_are_made_however_late_it_is(turns: int) -> None:
    now = 0.0
    pace = Pace.begin(60, lambda: now)
    now = 1000.0
    assert pace.stops([[1.0, 9.0, 2.0, 7.0, 3.0, 8.0, 1.0][:turns]], 1.0) == ("seconds" if turns >= LEAST else None)


def test_a_turn_that_would_not_end_in_time_is_not_begun() -> None:
    now = 0.0
    pace, rates = Pace.begin(100, lambda: now), [[1.0, 9.0, 2.0, 7.0]]
    now = 60.0
    assert pace.stops(rates, 14.0) is None, "three quarters of the time are for passes"
    assert pace.stops(rates, 16.0) == "seconds"
    assert pace.left == 40.0


@pytest.mark.parametrize("noise", [0.005, 0.03, 0.06])
def test_stopping_early_leaves_the_interval_right(noise: float) -> None:
    """Of a hundred intervals about ninety-five hold what is true, although the end depends on what was measured."""
    chance, held = random.Random(1), 0
    for _ in range(400):
        rates: list[float] = []
        pace = Pace.begin(60, lambda: 0.0)
        while pace.stops([rates or [1.0]], 0.0) is None and len(rates) < 40:
            rates.append(math.exp(chance.gauss(0, noise)))
        interval = rate_interval(rates)
        held += interval.low <= 1 <= interval.high
    assert 0.89 <= held / 400 <= 0.99


def asking(seconds: Callable[[int], float]) -> tuple[list[int], Callable[[int], float]]:
    asked: list[int] = []

    def ask(rows: int) -> float:
        asked.append(rows)
        return seconds(rows)

    return asked, ask


@pytest.mark.parametrize("most", [1, 2, 7, 32, 128])
@pytest.mark.parametrize("each", [1e-5, 0.01, 0.05, 0.3, 1.0, 5.0, 100.0])
@pytest.mark.parametrize("shared", [0.0, 0.2, 4.0])
def test_rows_fit_into_the_time(most: int, each: float, shared: float) -> None:
    """A call takes `shared` seconds and `each` for each row: what fits does, and trying took no longer than it."""
    asked, ask = asking(lambda rows: shared + each * rows)
    found = fit(3.0, most, ask)
    assert 1 <= found.rows <= most
    assert found.rows == 1 or shared + each * found.rows <= 3.0 + 1e-9
    assert found.alone == pytest.approx(shared + each)
    assert asked[0] == 1
    assert all(rows == 1 or shared + each * rows <= 3.0 for rows in asked), "no trial takes longer than what it is for"
    if each * most <= 0.5 and not shared:
        assert found.rows == most


def test_a_model_that_is_far_too_slow_is_tried_once() -> None:
    asked, ask = asking(lambda rows: 1000.0 * rows)
    assert fit(3.0, 128, ask).rows == 1
    assert asked == [1]


def test_a_slow_first_call_is_a_warm_up() -> None:
    calls = iter([2.9, 0.001, 0.004, 0.016, 0.064, 0.128])
    asked, ask = asking(lambda _: next(calls))
    assert fit(3.0, 128, ask).rows == 128
    assert asked == [1, 1, 4, 16, 64, 128]


def test_a_clock_that_does_not_move_is_no_fault() -> None:
    assert fit(3.0, 50, lambda _: 0.0).rows == 50


@pytest.mark.parametrize("count", [1, 2, 3, 6, 16, 100, 128])
def test_every_beginning_is_spread_evenly(count: int) -> None:
    order = spread(count)
    assert sorted(order) == list(range(count))
    for taken in range(1, count + 1):
        edges = [-1, *sorted(order[:taken]), count]
        widest = max(after - before for before, after in pairwise(edges))
        assert widest <= 4 * count / taken + 1
