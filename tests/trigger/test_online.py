"""Rows of production, and the table of seven days: what is counted, and when it is said to drift."""

from contextlib import suppress
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.trigger_world import MODEL, Scene, scene

from lmmpress.errors import UserError
from lmmpress.printing.sheet import Grid
from lmmpress.trigger.drift import drop_of, table
from lmmpress.trigger.online import Count, Row, append, append_file, read_rows
from lmmpress.trigger.promotion_settings import DriftSettings
from lmmpress.trigger.settings import TriggerSettings

COMPRESSED = f"{MODEL}-compressed"
TODAY = date(2026, 11, 29)
_BASE: list[TriggerSettings] = []


@pytest.fixture
def made(make_settings: Any) -> Scene:
    if not _BASE:
        _BASE.append(make_settings())
    return scene(_BASE[0])


def row(model: str = MODEL, right: int = 9, rows: int = 10, day: date = TODAY, version: str = "") -> Row:
    return Row(day=day, model=model, right=right, rows=rows, version=version)


def drifting(made: Scene, **rule: Any) -> Scene:
    """The scene with other settings of drift."""
    model = made.trigger.settings.models[MODEL].model_copy(update={"drift": DriftSettings(**rule)})
    return scene(made.trigger.settings.model_copy(update={"models": {MODEL: model}}))


# What is read

JSON_LINES = """
{"day": "2026-11-29", "model": "AntGMM", "right": 912, "rows": 1000}
{"day": "2026-11-29", "model": "AntGMM-compressed", "version": 3, "right": 905, "rows": 1000}
"""
CSV = """day,model,version,right,rows
2026-11-29,AntGMM,,912,1000
2026-11-29, AntGMM-compressed ,3,905,1000
"""


@pytest.mark.parametrize("text", [JSON_LINES, CSV, "\ufeff" + CSV, CSV.replace("\n", "\r\n")])
def test_csv_and_json_lines_say_the_same(text: str) -> None:
    assert read_rows(text, "rows") == [row(right=912, rows=1000), row(COMPRESSED, 905, 1000, version="3")]


def test_a_time_counts_on_its_day_in_utc() -> None:
    text = '{"day": "2026-11-30T07:30:00+08:00", "model": "AntGMM", "right": 1, "rows": 1}'
    assert read_rows(text, "rows")[0].day == TODAY


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there are no rows"),
        ('{"day": "2026-11-29", "model": "AntGMM", "right": 2, "rows": 1}', "line 1: .*right is larger than rows"),
        ('{"day": "2026-11-29", "model": "AntGMM", "right": 1.0, "rows": 1}', "line 1: right.* whole number"),
        ('{"day": "2026-11-29", "model": "AntGMM", "right": true, "rows": 1}', "whole number"),
        ('{"day": "2026-11-29", "model": "AntGMM", "right": -1, "rows": 1}', "right"),
        ('{"day": "2026-11-29T08:00:00", "model": "AntGMM", "right": 1, "rows": 1}', "needs its zone"),
        ('{"day": "29.11.2026", "model": "AntGMM", "right": 1, "rows": 1}', "day"),
        ('{"day": 20261129, "model": "AntGMM", "right": 1, "rows": 1}', "written as 2026-11-29"),
        ('{"day": "2026-11-29", "model": "AntGMM", "right": 1, "rows": 1, "acc": 1}', "acc"),
        ('{"day": "2026-11-29"\n', "line 1: is no row"),
        (JSON_LINES + "[1]\n", "line 4"),
        ("a,b\n1,2\n", "names the columns: day,model,version,right,rows"),
        ("day,model,right,rows\n2026-11-29,AntGMM,1\n", "line 2"),
        ("day,model,right,rows\n2026-11-29,AntGMM,1,1,1\n", "line 2"),
        ("day,model,right,rows\n2026-11-29,AntGMM,0.9,1\n", "line 2: right"),
        ('day,model,right,rows\n"2026', "no CSV"),
    ],
)
def test_a_wrong_line_is_named(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_rows(text, "rows.txt")


@given(st.text(max_size=60))
def test_any_text_is_rows_or_a_fault(text: str) -> None:
    with suppress(UserError):
        assert read_rows(text, "rows.txt")


# What is counted


def test_numbers_of_a_day_add_up(made: Scene) -> None:
    append(made.trigger, [row(right=1, rows=1), row(right=0, rows=1), row(COMPRESSED, 8, 10, version="2")], "a")
    append(made.trigger, [row(right=7, rows=8), row(COMPRESSED, 9, 10, version="10")], "b")
    today = table(made.trigger, COMPRESSED).days[-1]
    assert (today.original, today.compressed) == (Count(right=8, rows=10), Count(right=17, rows=20))
    assert today.versions == ("2", "10")


def test_the_same_file_is_counted_once(made: Scene, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(CSV, "utf-8")
    assert [append_file(made.trigger, file).known for _ in range(2)] == [False, True]
    assert table(made.trigger, COMPRESSED).all.original.rows == 1000
    file.write_text(CSV + "2026-11-28,AntGMM,,1,1\n", "utf-8")
    assert not append_file(made.trigger, file).known


def test_after_a_crash_the_same_file_adds_what_is_missing(made: Scene, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    days = [TODAY - timedelta(days=back) for back in range(4)]
    file.write_text("day,model,right,rows\n" + "".join(f"{day},AntGMM,9,10\n" for day in days), "utf-8")
    whole = scene(made.trigger.settings)
    whole.world.run(lambda: append_file(whole.trigger, file))
    wanted = table(whole.trigger, COMPRESSED)
    for point in range(1, whole.world.points + 1):
        killed = scene(made.trigger.settings)
        killed.world.kill_at = point
        killed.world.run(partial(append_file, killed.replica, file))
        killed.world.kill_at = None
        killed.world.run(partial(append_file, killed.replica, file))
        assert table(killed.trigger, COMPRESSED) == wanted


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_that_come_at_once_are_all_counted_once(made: Scene, seed: int) -> None:
    busy = scene(made.trigger.settings, seed)
    busy.objects.world.happens = lambda chance=16: False  # type: ignore[method-assign]
    for batch in ("a", "b", "a", "c"):
        busy.world.start(partial(append, busy.replica, [row()], batch))
    busy.world.settle()
    busy.world.calm = True
    for batch in ("a", "b", "c"):  # some were killed
        busy.world.run(partial(append, busy.replica, [row()], batch))
    assert table(busy.trigger, COMPRESSED).all.original == Count(right=27, rows=30)


def test_rows_of_strangers_and_of_the_future_are_refused_whole(made: Scene) -> None:
    for wrong, said in (
        (row("AntGMN"), "did you mean 'AntGMM'"),
        (row(day=TODAY + timedelta(days=2)), "in the future"),
    ):
        with pytest.raises(UserError, match=said):
            append(made.trigger, [row(), wrong], "a")
    assert table(made.trigger, COMPRESSED).all.original.rows == 0


# The table


def test_the_interval_is_newcombes() -> None:
    """The first example of the paper of 1998, Table II, method 10."""
    drop, low, high = drop_of(Count(right=56, rows=70), Count(right=48, rows=80))
    assert (drop, low, high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    assert drop_of(Count(right=10, rows=10), Count(right=0, rows=20)) == pytest.approx((1, 0.6791, 1), abs=5e-5)


def test_seven_days_end_today_or_where_somebody_says(made: Scene) -> None:
    append(made.trigger, [row(day=TODAY - timedelta(days=back)) for back in range(9)], "a")
    found = table(made.trigger, COMPRESSED)
    assert [line.day for line in found.days] == [TODAY - timedelta(days=back) for back in (6, 5, 4, 3, 2, 1, 0)]
    assert found.all.original.rows == 70
    assert table(made.trigger, COMPRESSED, until=TODAY - timedelta(days=8)).all.original.rows == 10
    assert found.all.drop is None, "there is nothing to compare with"
    assert not found.drifts


@pytest.mark.parametrize(
    ("rule", "original", "compressed", "drifts"),
    [
        ({}, (990, 1000), (900, 1000), True),
        ({}, (990, 1000), (965, 1000), False),  # 0.025, but it might be chance
        ({"certain": False}, (990, 1000), (965, 1000), True),
        ({"certain": False}, (990, 1000), (970, 1000), False),  # alpha itself is not beyond alpha
        ({}, (50, 50), (20, 50), False),  # too few rows
        ({"least_rows": 50}, (50, 50), (20, 50), True),
        ({"alpha": 0.2}, (990, 1000), (900, 1000), False),
        ({}, (900, 1000), (990, 1000), False),
    ],
)
def test_drift_is_a_loss_beyond_alpha(
    made: Scene, rule: dict[str, Any], original: tuple[int, int], compressed: tuple[int, int], drifts: bool
) -> None:
    made = drifting(made, **rule)
    append(made.trigger, [row(MODEL, *original), row(COMPRESSED, *compressed)], "a")
    found = table(made.trigger, COMPRESSED)
    assert found.drifts is drifts
    assert found.days[-1].drifts is drifts
    said, grid = found.shown()
    assert said == f"{COMPRESSED}; alpha {rule.get('alpha', 0.02):g}"
    assert isinstance(grid, Grid)
    assert (grid.rows[-2][-1] == "yes") is drifts
    told: Any = found.told()
    assert told["days"][-1]["drifts"] is drifts


def test_small_losses_of_many_days_may_drift_together(made: Scene) -> None:
    for back in range(7):
        append(made.trigger, [row(MODEL, 970, 1000, TODAY - timedelta(days=back))], f"o{back}")
        append(made.trigger, [row(COMPRESSED, 940, 1000, TODAY - timedelta(days=back))], f"c{back}")
    found = table(made.trigger, COMPRESSED)
    assert not any(line.drifts for line in found.days)
    assert found.all.drifts
