"""The rules of a model's policy: whether a run may start now."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from lmmpress.trigger.claims import BY_ITSELF, Cause, Claim
from lmmpress.trigger.settings import Policy, Start, Window
from lmmpress.trigger.texts import Text


def refusal(policy: Policy, claims: Iterable[Claim], cause: Cause, now: datetime) -> Text | None:
    """Why a model with these claims may not begin another run now; None if it may.

    One run at a time and the runs of a day bind everybody; the rest only the runs that the trigger starts by itself.
    """
    claims = tuple(claims)
    if cause in BY_ITSELF:
        if policy.start is Start.by_hand:
            return Text("refused.by_hand")
        if policy.window and not is_open(policy.window, now):
            following = opens_next(policy.window, now)
            return Text("refused.window", at=f"{following:%Y-%m-%d %H:%M}", zone=policy.window.zone)
    if at_work := [claim for claim in claims if claim.is_open]:
        version, state = at_work[0].question.version, at_work[0].state.text
        return Text("refused.one_at_a_time", version=version, state=state, run=at_work[0].run)
    if policy.most_a_day is not None:
        zone = ZoneInfo(policy.zone)
        today = now.astimezone(zone).date()
        begun = sum(at.astimezone(zone).date() == today for claim in claims for at in claim.began)
        if begun >= policy.most_a_day:
            most, day = policy.most_a_day, today.isoformat()
            return Text("refused.most_a_day", begun=begun, most=most, today=day, zone=policy.zone)
    return None


def is_open(window: Window, now: datetime) -> bool:
    """Whether the window is open at a time."""
    local = (now + timedelta(minutes=1)).astimezone(ZoneInfo(window.zone))  # since cron's times are before it
    try:
        opened = next(at for at in CronSim(window.opens, local, reverse=True) if at <= now)
    except (StopIteration, CronSimError):
        return False
    # in seconds that pass, which a change to summer time does not shorten
    return now.timestamp() - opened.timestamp() < window.hours * 3600


def opens_next(window: Window, now: datetime) -> datetime:
    """When the window opens next, in its own zone."""
    return next(CronSim(window.opens, now.astimezone(ZoneInfo(window.zone))))
