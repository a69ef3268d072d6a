"""When a run may start: on every release, by hand, in a window, so many a day, one at a time."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from support.trigger_world import MODEL, Scene, scene

from lmmpress.trigger.claims import Cause, Claim, State
from lmmpress.trigger.fire import Refused, fire
from lmmpress.trigger.policy import is_open, opens_next
from lmmpress.trigger.settings import TriggerSettings, Window

MakeSettings = Callable[..., TriggerSettings]
NIGHT = Window(opens="0 22 * * *", hours=8, zone="Asia/Shanghai")


def asked(made: Scene, cause: Cause = Cause.webhook, by: str = "mlflow") -> Claim | Refused:
    answer: Claim | Refused = made.world.run(lambda: fire(made.replica, MODEL, by=by, cause=cause))
    return answer


def end(made: Scene, claim: Claim) -> None:
    made.trigger.claims.move(claim, State.succeeded, by="test", now=made.trigger.clock())


def reason(answer: Claim | Refused) -> str:
    assert isinstance(answer, Refused)
    return answer.reason


def test_a_question_is_claimed_once(make_settings: MakeSettings) -> None:
    made = scene(make_settings())
    first = asked(made)
    assert isinstance(first, Claim)
    assert (first.state, first.by, first.cause, first.attempt) == (State.claimed, "mlflow", Cause.webhook, 1)
    assert asked(made, Cause.page, "ann") == first, "whoever asks again finds the claim as it is"
    assert asked(made, Cause.reconciler) == first


def test_one_run_at_a_time(make_settings: MakeSettings) -> None:
    made = scene(make_settings())
    first = asked(made)
    assert isinstance(first, Claim)
    made.registry.version = 2
    assert reason(asked(made)) == f"one run at a time: version 1 is claimed as {first.run}"
    assert "one run at a time" in reason(asked(made, Cause.page)), "a person has to wait too"
    end(made, first)
    second = asked(made)
    assert isinstance(second, Claim)
    assert second.question.version == "2"
    made.registry.version = 1
    assert asked(made) == made.trigger.claims.get(first.key), "going back to an answered version starts nothing"


def test_by_hand_binds_the_trigger_and_not_people(make_settings: MakeSettings) -> None:
    made = scene(make_settings(policy={"start": "by-hand"}))
    for cause in (Cause.webhook, Cause.reconciler):
        assert "by-hand" in reason(asked(made, cause))
    assert isinstance(asked(made, Cause.rest, "ann"), Claim)


def test_at_most_so_many_runs_a_day_of_the_policys_zone(make_settings: MakeSettings) -> None:
    made = scene(make_settings(policy={"most_a_day": 2, "zone": "Asia/Shanghai"}))
    made.world.time = datetime(2026, 5, 5, 23, tzinfo=ZoneInfo("Asia/Shanghai")).timestamp()
    for version in (1, 2):
        made.registry.version = version
        claim = asked(made)
        assert isinstance(claim, Claim)
        end(made, claim)
    made.registry.version = 3
    assert reason(asked(made, Cause.page)) == ("2 of at most 2 runs a day have begun today (2026-05-05 Asia/Shanghai)")
    made.world.time += 3700
    assert isinstance(asked(made), Claim), "it is the next day there, though not in UTC"


def test_outside_of_its_window_the_trigger_starts_nothing(make_settings: MakeSettings) -> None:
    policy = {"start": "window", "window": NIGHT.model_dump()}
    made = scene(make_settings(policy=policy))
    made.world.time = datetime(2026, 5, 5, 12, tzinfo=ZoneInfo("Asia/Shanghai")).timestamp()
    assert reason(asked(made)) == "outside of the window; it opens again at 2026-05-05 22:00 Asia/Shanghai"
    made.world.time += 10.5 * 3600
    assert isinstance(asked(made, Cause.reconciler), Claim)


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("21:59:59", False),
        ("22:00:00", True),
        ("22:00:01", True),
        ("23:59:59", True),
        ("05:59:59", True),
        ("06:00:00", False),
    ],
)
def test_a_window_is_open_from_its_cron_time_for_its_hours(time: str, expected: bool) -> None:
    local = datetime.fromisoformat(f"2026-05-05T{time}").replace(tzinfo=ZoneInfo(NIGHT.zone))
    assert is_open(NIGHT, local.astimezone(UTC)) is expected


def test_a_window_that_opens_again_while_it_is_open_stays_open() -> None:
    often = Window(opens="0 * * * *", hours=2)
    noon = datetime(2026, 5, 5, 12, tzinfo=UTC)
    assert all(is_open(often, noon + timedelta(minutes=minute, seconds=59.5)) for minute in range(0, 180, 7))


def test_a_change_to_summer_time_does_not_shorten_a_window() -> None:
    berlin = Window(opens="0 1 * * *", hours=4, zone="Europe/Berlin")
    opened = datetime(2026, 3, 29, 0, tzinfo=UTC)  # 1 o'clock; at 2 it is 3
    assert is_open(berlin, opened + timedelta(hours=3, minutes=59))
    assert not is_open(berlin, opened + timedelta(hours=4))


def test_the_next_opening_is_told_in_the_windows_zone() -> None:
    friday = datetime(2026, 5, 8, 15, tzinfo=UTC)
    assert f"{opens_next(Window(opens='0 22 * * 1-5', hours=8), friday):%a %H:%M}" == "Fri 22:00"
