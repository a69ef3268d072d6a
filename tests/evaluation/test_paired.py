"""Statistics of two models on the same rows, against brute force and published numbers."""

import math
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmmpress.data.facts import Marks, SplitFacts
from lmmpress.evaluation import paired as module
from lmmpress.evaluation.gate import paired_drop
from lmmpress.evaluation.paired import exact_p, paired, paired_by_task

Rows = list[tuple[bool, bool, int]]
ROWS = st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 8)), min_size=1, max_size=24)


def table(both: int, lost: int, gained: int, neither: int) -> tuple[Marks, Marks, Any]:
    """Rows with a picture each: which A and which B answers right."""
    pairs = [(1, 1)] * both + [(1, 0)] * lost + [(0, 1)] * gained + [(0, 0)] * neither
    a, b = (np.array(column, dtype=bool) for column in zip(*pairs, strict=True))
    return a, b, np.arange(len(pairs))


def columns(rows: Rows) -> tuple[Marks, Marks, Any]:
    a, b, owner = zip(*rows, strict=True)
    return np.array(a), np.array(b), np.array(owner)


def by_enumeration(rows: Rows) -> float:
    """The share of all ways to let each picture's rows fall to either model, that differ at least as much."""
    net: dict[int, int] = {}
    for a, b, owner in rows:
        net[owner] = net.get(owner, 0) + a - b
    sizes = list(net.values())
    ways = [
        sum(sign * size for sign, size in zip(signs, sizes, strict=True))
        for signs in product((1, -1), repeat=len(sizes))
    ]
    return sum(abs(way) >= abs(sum(sizes)) for way in ways) / len(ways)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_the_test_is_the_share_of_all_signs(rows: Rows) -> None:
    assert exact_p(*columns(rows)) == pytest.approx(by_enumeration(rows))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_with_a_picture_for_each_row_it_is_mcnemars_exact_test(lost: int, gained: int) -> None:
    """Twice the lower tail of the binomial distribution of rows that one model alone answers right, in fractions."""
    count = lost + gained
    tail = sum(math.comb(count, k) for k in range(min(lost, gained) + 1))
    expected = min(Fraction(1), 2 * Fraction(tail, 2**count))
    assert exact_p(*table(3, lost, gained, 2)) == pytest.approx(float(expected), rel=1e-9)


def test_it_gives_the_published_value() -> None:
    """Airway hyper-responsiveness before and after stem cell transplantation (Bentur et al. 2009), the example of
    Fagerland, Lydersen and Laake (2013): 1, 1, 7, 12 of 21; their exact conditional McNemar test gives 0.070."""
    found = paired(*table(1, 1, 7, 12))
    assert found.p == pytest.approx(0.0703125)
    assert (found.both, found.lost, found.gained, found.neither) == (1, 1, 7, 12)
    assert found.drop.value == pytest.approx(-6 / 21)


def test_the_interval_is_bonett_and_prices() -> None:
    """Their formula gives -0.508 to -0.013 for the same example; ours takes the variance around the unadjusted mean."""
    found = paired(*table(1, 1, 7, 12)).drop.interval
    assert (found.low, found.high) == (pytest.approx(-0.508, abs=0.003), pytest.approx(-0.013, abs=0.003))


@pytest.mark.parametrize(("lost", "gained"), [(0.02, 0.01), (0.05, 0.05), (0.1, 0.02), (0.2, 0.1), (0.3, 0.3)])
@pytest.mark.parametrize("rows", [30, 80])
def test_the_interval_covers_the_truth_as_often_as_it_says(rows: int, lost: float, gained: float) -> None:
    """The exact coverage: the probability of every outcome times whether its interval holds the true difference."""
    covered = 0.0
    same = 1 - lost - gained
    for down in range(rows + 1):
        for up in range(rows + 1 - down):
            chance = math.comb(rows, down) * math.comb(rows - down, up) * lost**down * gained**up
            chance *= same ** (rows - down - up)
            if chance > 1e-7:
                a, b, owner = table(rows - down - up, down, up, 0)
                interval = paired_drop(a, b, owner, 0.95).interval
                covered += chance * (interval.low <= lost - gained <= interval.high)
    assert covered > 0.93


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_exchanging_the_models_exchanges_lost_and_gained(rows: Rows) -> None:
    a, b, owner = columns(rows)
    one, other = paired(a, b, owner), paired(b, a, owner)
    assert (one.lost, one.gained, one.both, one.neither) == (other.gained, other.lost, other.both, other.neither)
    assert one.p == other.p
    assert one.drop.value == -other.drop.value
    assert one.drop.interval.low == pytest.approx(-other.drop.interval.high)
    assert one.both + one.lost + one.gained + one.neither == one.rows == len(rows)


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_equal_models_never_differ(rows: Rows) -> None:
    a, _, owner = columns(rows)
    found = paired(a, a, owner)
    assert (found.p, found.drop.value, found.lost, found.gained) == (1.0, 0.0, 0, 0)


def test_rows_about_one_picture_count_once() -> None:
    """Ten rows lost with ten pictures say much, ten rows about one picture say nothing."""
    a, b, owner = table(5, 10, 0, 5)
    assert exact_p(a, b, owner) < 0.01
    assert exact_p(a, b, np.zeros_like(owner)) == 1.0


def test_many_rows_are_computed_in_another_way_with_the_same_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    chooser = np.random.default_rng(0)
    a, b, owner = chooser.random(3000) < 0.6, chooser.random(3000) < 0.57, chooser.integers(0, 900, 3000)
    directly = exact_p(a, b, owner)
    monkeypatch.setattr(module, "_DIRECTLY", 0)
    assert exact_p(a, b, owner) == pytest.approx(directly, abs=1e-12)


def test_tasks_are_compared_on_their_own_rows() -> None:
    a, b, _ = table(2, 3, 1, 2)
    facts = SplitFacts(split="test", rows=8, digest="d", tasks=("ad", "logo"), task_of_row=(0, 0, 1, 1, 1, 0, 0, 1))
    found = paired_by_task(a, b, facts)
    assert {task: (one.rows, one.both, one.lost, one.gained) for task, one in found.items()} == {
        "ad": (4, 2, 0, 1),
        "logo": (4, 0, 3, 0),
    }
    alone = SplitFacts(split="test", rows=8, digest="d", tasks=("ad",))
    assert paired_by_task(a, b, alone) == {"ad": paired(a, b, alone.owners())}
