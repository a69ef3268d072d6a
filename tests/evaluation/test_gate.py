"""Every branch of the gate, on made-up measurements."""

import math
from typing import Any

import numpy as np
import pytest
from support.certain import certain

from lmmpress.data.facts import Marks
from lmmpress.engine.algorithm import ends_stage, takes_over
from lmmpress.errors import UserError
from lmmpress.evaluation.gate import TaskRows, Verdict, decide, paired_drop
from lmmpress.metrics.scale import SHARE_OF_RIGHT, Scale, common_scale
from lmmpress.plan import Tolerance

ROWS = 1000
OWNER = np.arange(ROWS)


def right(count: int) -> Marks:
    return np.arange(ROWS) < count


def verdict(reference: int, measured: int | None, **tolerance: Any) -> Verdict:
    return decide(right(reference), None if measured is None else right(measured), OWNER, Tolerance(**tolerance))


@pytest.mark.parametrize(("measured", "decision"), [(951, "accepted"), (950, "rolled back"), (949, "rolled back")])
def test_a_step_is_accepted_only_if_its_drop_is_below_alpha(measured: int, decision: str) -> None:
    assert verdict(970, measured, alpha=0.02).decision == decision


@pytest.mark.parametrize("alpha", [k / ROWS for k in range(1, 400, 7)])
def test_a_drop_equal_to_alpha_is_never_below_it(alpha: float) -> None:
    assert verdict(900, 900 - round(alpha * ROWS), alpha=alpha).decision == "rolled back"


def test_a_gain_is_accepted() -> None:
    found = verdict(900, 950, alpha=0.001)
    assert (found.decision, found.drop) == ("accepted", -0.05)


def test_rolling_back_ends_the_stage_and_keeps_the_last_accepted() -> None:
    found = verdict(900, 700, alpha=0.1)
    assert ends_stage(found.decision)
    assert not takes_over(found.decision)


def test_keep_ends_the_stage_with_the_step_that_broke_alpha() -> None:
    found = verdict(900, 700, alpha=0.1, on_violation="keep")
    assert found.decision == "kept"
    assert ends_stage(found.decision)
    assert takes_over(found.decision)


@pytest.mark.parametrize("on_violation", ["rollback", "keep"])
def test_a_loss_that_is_not_finite_is_rolled_back_with_the_reason(on_violation: str) -> None:
    found = verdict(900, None, on_violation=on_violation)
    assert found.decision == "rolled back"
    assert "not finite" in found.reason


def test_the_bound_can_decide_instead_of_the_drop() -> None:
    """A drop of 0.010 +- 0.006 is below 0.015, its upper bound is not."""
    assert verdict(900, 890, alpha=0.015).decision == "accepted"
    found = verdict(900, 890, alpha=0.015, confidence=0.95)
    assert found.decision == "rolled back"
    assert certain(found.interval).high > 0.015


def test_the_interval_is_paired() -> None:
    """With equal accuracies the interval is narrow where the same rows are right, and wide where others are."""
    same = paired_drop(right(900), right(900), OWNER, 0.95)
    other = paired_drop(right(900), right(900)[::-1], OWNER, 0.95)
    assert same.value == other.value == 0
    assert same.interval.high < 0.003
    assert other.interval.high > 0.02


def test_rows_about_one_image_do_not_count_as_independent() -> None:
    lost_together = np.arange(ROWS) % 50 >= 5
    by_row = paired_drop(right(ROWS), lost_together, OWNER, 0.95).interval
    by_image = paired_drop(right(ROWS), lost_together, OWNER // 5, 0.95).interval
    assert by_image.high - by_image.low > 2 * (by_row.high - by_row.low)


def test_the_interval_covers_the_true_drop_as_often_as_its_level() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        before = generator.random(ROWS) < 0.95
        after = before & (generator.random(ROWS) < 0.98)
        interval = paired_drop(before, after, OWNER, 0.95).interval
        covered += interval.low <= 0.95 * 0.02 <= interval.high
    assert 0.91 <= covered / 400 <= 0.98


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_one_image_gives_the_widest_interval(rows: int) -> None:
    """Whatever the number of rows about it: a narrow interval would hold for this image alone."""
    ones, owner = np.ones(rows, dtype=bool), np.zeros(rows, dtype=np.int64)
    drop = paired_drop(ones, ones, owner, 0.95)
    assert (drop.value, drop.interval.low, drop.interval.high) == (0, -1, 1)
    found = decide(ones, ones, owner, Tolerance(confidence=0.95))
    assert found.decision == "rolled back"


def test_no_interval_is_wider_than_a_drop_can_be() -> None:
    for rows in (2, 3, 10):
        for before, after in ((1, 0), (0, 1), (1, 1)):
            owner, ones = np.arange(rows), np.ones(rows)
            drop = paired_drop(ones * before > 0, ones * after > 0, owner, 0.999)
            assert -1 <= drop.interval.low <= drop.value <= drop.interval.high <= 1


def test_images_that_all_lose_the_same_keep_the_uncertainty_of_few_rows() -> None:
    """The rows show no variance, but a few rows could miss it, so the interval keeps a width."""
    few, many = (paired_drop(np.ones(n) > 0, np.ones(n) > 0, np.arange(n), 0.95).interval for n in (4, 400))
    assert few.high > 0.3
    assert many.high < 0.01


FIRST = np.arange(ROWS) < 200
TASKS = {"first": TaskRows(FIRST), "second": TaskRows(~FIRST)}


def guarded(lost: int, per_task: bool | dict[str, float], alpha: float = 0.02) -> Verdict:
    """All rows are right, and then `lost` of the first task's 200 are not."""
    after = np.arange(ROWS) >= lost
    tolerance = Tolerance(alpha=alpha, per_task=per_task)
    return decide(right(ROWS), after, OWNER, tolerance, tasks=TASKS)


def test_a_task_may_lose_what_the_whole_does_not_show_unless_it_is_guarded() -> None:
    """9 rows of 1000 are less than alpha, and 9 of 200 are more."""
    assert guarded(9, per_task=False).decision == "accepted"
    found = guarded(9, per_task=True)
    assert found.decision == "rolled back"
    assert found.reason == "drop of task 'first' 0.0450 is not below alpha 0.02"
    assert (found.drop, found.by_task["first"].value, found.by_task["second"].value) == (0.009, 0.045, 0)


def test_a_named_task_is_guarded_by_its_own_alpha() -> None:
    assert guarded(9, per_task={"second": 0.001}).decision == "accepted"
    assert guarded(9, per_task={"first": 0.045}).decision == "rolled back", "a drop equal to alpha is not below it"
    assert guarded(9, per_task={"first": 0.046}).decision == "accepted"
    assert "task" not in guarded(30, per_task=True).reason, "the whole is named first"


def test_numbers_of_rows_are_gated_on_their_own_scale() -> None:
    """Divergences of 2 more than 0.5 on average: above 1, and worse because they are larger."""
    scale, before = Scale("lower", False, 0.0, math.inf), np.full(ROWS, 0.5)
    after = before + np.linspace(1, 3, ROWS)
    assert decide(before, after, OWNER, Tolerance(alpha=2.001), scale).decision == "accepted"
    found = decide(before, after, OWNER, Tolerance(alpha=1.999), scale)
    assert (found.decision, found.drop) == ("rolled back", pytest.approx(2))
    assert decide(after, before, OWNER, Tolerance(alpha=0.001), scale).decision == "accepted", "it became better"


def test_metrics_of_two_directions_have_no_common_scale() -> None:
    with pytest.raises(UserError, match="one direction"):
        common_scale([SHARE_OF_RIGHT, Scale("lower", False, 0.0, math.inf)])
    mixed = common_scale([SHARE_OF_RIGHT, Scale("higher", False, 0.0, 10.0)])
    assert (mixed.is_share, mixed.width, mixed.worst) == (False, 10, 0)
