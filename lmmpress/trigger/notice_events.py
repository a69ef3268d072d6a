"""What notices are about: the states of claims, versions that nobody compresses, accuracy that drifts."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from lmmpress.trigger.claims import Claim, Event, State
from lmmpress.trigger.drift import Line, Table
from lmmpress.trigger.notice_settings import NoticeKind
from lmmpress.trigger.notices import Notice
from lmmpress.trigger.registry import Release
from lmmpress.trigger.texts import Text

NEWS = timedelta(days=7)
"""How long a change of a claim is news."""
_KINDS = {
    State.submitted: NoticeKind.started,
    State.succeeded: NoticeKind.finished,
    State.failed: NoticeKind.failed,
    State.lost: NoticeKind.failed,
}


def of_claims(claims: Iterable[Claim], since: datetime, now: datetime) -> Iterator[Notice]:
    """The notices of claims whose states have changed since then, and not too long ago."""
    for claim in claims:
        attempt = 0
        for event in claim.events:
            attempt += event.state is State.claimed
            kind = _KINDS.get(event.state)
            if kind is not None and event.at >= max(since, now - NEWS):
                name = f"{claim.key}:{attempt}" + (":lost" if event.state is State.lost else "")
                link = claim.sent.link if claim.sent else ""
                yield Notice(kind, claim.question.model, _text(claim, event, attempt), link, name)


def of_version(
    release: Release, claims: Iterable[Claim], since: datetime, days: float, now: datetime, link: str
) -> Iterator[Notice]:
    """The notice that a version is the one to be compressed `since` then, and that no run has done so for that many
    days."""
    if now - since < timedelta(days=days):
        return
    done = any(
        claim.state is State.succeeded
        and (claim.question.version, claim.question.digest) == (release.version, release.digest)
        for claim in claims
    )
    if not done:
        age = f"{(now - since) / timedelta(days=1):.0f}"
        text = Text("notice.stale", version=release.version, model=release.model, days=age)
        yield Notice(NoticeKind.stale, release.model, text, link, version_name(release))


def of_table(model: str, table: Table, link: str) -> Iterator[Notice]:
    """The notices of the days on which the accuracy drifts; of the last day with rows, if only all days together do."""
    beyond = [line for line in table.days if line.drifts]
    for line in beyond:
        yield _drift(model, table, line, line, link)
    if table.all.drifts and not beyond:
        last = [line for line in table.days if line.drop is not None]
        yield _drift(model, table, last[-1] if last else table.days[-1], table.all, link)


def version_name(release: Release) -> str:
    """The name of a version that is to be compressed, for `Box.seen` and the event."""
    return f"{release.version}:{release.digest[:24]}"


def _text(claim: Claim, event: Event, attempt: int) -> Text:
    question = claim.question
    run: dict[str, str | int | Text] = {
        "version": question.version,
        "model": question.model,
        "plan": question.plan_name,
        "run": question.run_name(attempt),
        "engine": question.pipeline,
    }
    if event.state is State.submitted:
        return Text("notice.started", by=claim.by, cause=Text(f"notice.cause.{claim.cause}"), **run)
    if event.state is State.succeeded:
        return Text("notice.finished", **run)
    what = Text("notice.lost" if event.state is State.lost else "notice.failed", **run)
    return Text("notice.said", what=what, note=event.note) if event.note else what


def _drift(model: str, table: Table, at: Line, line: Line, link: str) -> Notice:
    assert at.day is not None
    assert line.drop is not None
    assert line.low is not None
    assert line.high is not None
    found: dict[str, str | int | Text] = {
        "compressed": table.compressed,
        "lost": f"{line.drop:.4f}",
        "low": f"{line.low:.4f}",
        "high": f"{line.high:.4f}",
        "rows": line.compressed.rows,
        "original_rows": line.original.rows,
        "alpha": f"{table.alpha:g}",
    }
    if line.day:
        text = Text("notice.drift.day", day=line.day.isoformat(), **found)
    else:
        last = table.days[-1].day
        text = Text("notice.drift.days", n=len(table.days), day=str(last), **found)
    return Notice(NoticeKind.drift, model, text, link, at.day.isoformat())
