"""Promotion: which version of a compressed model is in service, by an alias of MLflow's, and how that is changed.

MLflow moves an alias without a condition. So a record in the store is what lmmpress goes by: all moves of the alias, of
which only one is made at a time, under the record's lease. A move is noted before it is made; then the alias is read,
moved and read back. Whoever comes after a process that was killed sees from the note and the alias what has happened.
What somebody moves without lmmpress is found the next time that the alias is read.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from lmmpress.errors import UserError
from lmmpress.printing.one_line import printable
from lmmpress.settings.faults import nearest
from lmmpress.store.run_state import HeldError, RunState, hold
from lmmpress.tracking.registry import name_of_compressed
from lmmpress.tracking.values import plain, tags
from lmmpress.trigger.acts import LONGEST_WHY, Act, acting
from lmmpress.trigger.claims import NotAllowedError
from lmmpress.trigger.promotion_rule import Candidate, aliases_of, broken_rules, evidence, read_candidate
from lmmpress.trigger.promotion_settings import PromotionSettings
from lmmpress.trigger.serving_record import Deed, Entry, Standing, What, parsed, read_entries, record_name, replayed
from lmmpress.trigger.settings import WatchedModel
from lmmpress.trigger.texts import Text
from lmmpress.trigger.trigger import Trigger

ANY = "any"
"""In the place of a version that somebody has seen in service: any may be there."""
OUTSIDE = "somebody outside of lmmpress"
"""Who has moved an alias that lmmpress has not moved."""


@dataclass(frozen=True)
class Serving:
    """The version in service. `before` is what rolling back leads to, None if there is none. `since`, `by` and `why`
    are those of the move; `since` is None if it was not lmmpress that made it and nobody has noted it yet."""

    compressed: str
    alias: str
    version: str
    before: str | None
    since: datetime | None
    by: str
    why: str


@dataclass(frozen=True)
class Waiting:
    """A promotion that `by` has asked for, and that a second person has to confirm, by promoting the same version."""

    compressed: str
    version: str
    by: str
    since: datetime
    why: str


def original_of(trigger: Trigger, compressed: str) -> tuple[str, WatchedModel]:
    """The watched model that a compressed model comes from, and its settings; UserError if there is none."""
    names = {compressed_of(model): model for model in trigger.settings.models}
    if compressed not in names:
        raise UserError(
            f"{compressed!r} is the compressed form of no watched model; {nearest(compressed, list(names))}"
        )
    return names[compressed], trigger.settings.models[names[compressed]]


def compressed_of(model: str) -> str:
    """The name that the compressed versions of a registered model are registered under."""
    return plain(name_of_compressed(f"models:/{model}/1"))


@dataclass(frozen=True)
class InService:
    """The version in service, and the promotion that waits for a second person; None where there is none."""

    serving: Serving | None
    waiting: Waiting | None


def in_service(trigger: Trigger, compressed: str) -> InService:
    """What is in service, and what waits: the alias in MLflow and the record, each read once.

    Changes nothing. Raises UserError if the compressed model comes from no watched one, or MLflow or the store do not
    answer.
    """
    watched = original_of(trigger, compressed)[1]
    standing = replayed(read_entries(trigger.objects, compressed))
    version = aliases_of(trigger).version_at(compressed, watched.serving)
    asked = standing.asked if watched.promotion.second_person else None
    return InService(
        serving=_serving(compressed, watched.serving, version, standing),
        waiting=_waiting(compressed, asked) if asked else None,
    )


def serving(trigger: Trigger, compressed: str) -> Serving | None:
    """The version in service: the one that the alias names in MLflow now. None if it names none. UserError as
    `in_service`."""
    return in_service(trigger, compressed).serving


def waiting(trigger: Trigger, compressed: str) -> Waiting | None:
    """The promotion that waits for a second person. UserError as `in_service`."""
    return in_service(trigger, compressed).waiting


def history(trigger: Trigger, compressed: str) -> tuple[Entry, ...]:
    """All moves of the alias that were made or found, the oldest first."""
    original_of(trigger, compressed)
    entries = read_entries(trigger.objects, compressed)
    return tuple(entry for entry in entries if entry.what in ("moved", "found"))


def obstacles(trigger: Trigger, compressed: str, version: str, *, by: str) -> tuple[Text, ...]:
    """Why a version may not be promoted now by this person, a text for each reason; none: it may.

    Raises UserError as `in_service`.
    """
    rule = original_of(trigger, compressed)[1].promotion
    now = in_service(trigger, compressed)
    return obstacles_of(read_candidate(trigger, compressed, version, rule), now, rule, by=by)


def obstacles_of(candidate: Candidate, now: InService, rule: PromotionSettings, *, by: str) -> tuple[Text, ...]:
    """The obstacles of a version by what was read."""
    if now.serving and now.serving.version == candidate.version:
        return (Text("refused.in_service", compressed=candidate.compressed, version=candidate.version),)
    found = broken_rules(candidate, rule)
    asked = now.waiting
    if not found and asked and asked.version == candidate.version and _same(asked.by, by):
        return (Text("refused.same_person", by=printable(by)),)
    return found


def promote(
    trigger: Trigger,
    compressed: str,
    version: str,
    *,
    by: str,
    why: str,
    seen: str | None = ANY,
    role: str = "operator",
) -> Serving | Waiting:
    """Put a version into service. If it is there already, nothing happens.

    `seen` is the version that the person has seen in service, None for none: if another one is there now, nothing is
    done. Raises NotAllowedError with the obstacles, if there are any, and if the alias was moved meanwhile; UserError
    if MLflow or the store do not answer. A second try is right after any error, also after a crash.
    """
    watched, why = original_of(trigger, compressed)[1], _reason(why)
    rule = watched.promotion
    with _working(trigger, compressed, watched.serving) as book:
        present = book.settle()
        if present == version:
            return book.serving()
        _refuse_if_moved(compressed, watched.serving, seen, present)
        candidate = read_candidate(trigger, compressed, version, rule)
        if broken := broken_rules(candidate, rule):
            raise NotAllowedError(*broken)
        asked = book.standing.asked
        if rule.second_person and (asked is None or asked.version != version):
            with acting(trigger.objects, _act(trigger, "ask to promote", compressed, by, role, why)) as said:
                asked = book.add("asked", version, by=by, why=why)
                said(f"version {version} waits for a second person")
            return _waiting(compressed, asked)
        if rule.second_person and asked and _same(asked.by, by):
            return _waiting(compressed, asked)
        who = f"{asked.by} and {by}" if rule.second_person and asked else by
        book.move("promote", version, by=who, role=role, why=why, note=evidence(candidate, rule))
        return book.serving()


def roll_back(
    trigger: Trigger, compressed: str, *, by: str, why: str, seen: str | None = ANY, role: str = "operator"
) -> Serving:
    """Put the version back into service that was there before the present one was promoted.

    Rolling back again leads one version further back. Versions that are no longer registered are passed over. No rule
    and no second person are asked. Raises NotAllowedError if there is no version before, and as `promote` for `seen`
    and for an alias that moves meanwhile; UserError if MLflow or the store do not answer.
    """
    watched, why = original_of(trigger, compressed)[1], _reason(why)
    with _working(trigger, compressed, watched.serving) as book:
        present = book.settle()
        if book.ended == "roll back":
            return book.serving()  # a try before this one has done it, and was killed then
        _refuse_if_moved(compressed, watched.serving, seen, present)
        for version in book.standing.before:
            if aliases_of(trigger).about(compressed, version) is not None:
                book.move("roll back", version, by=by, role=role, why=why)
                return book.serving()
        raise NotAllowedError(_none_before(compressed, present, book.standing.before))


def settle(trigger: Trigger, compressed: str) -> None:
    """Bring the record in line with the alias: after a process that was killed, or somebody who moved the alias.

    Writes nothing where they agree, and where another process works on it. A model that was never promoted has no
    record, and MLflow is not asked. Raises UserError as `in_service`.
    """
    alias = original_of(trigger, compressed)[1].serving
    entries = read_entries(trigger.objects, compressed)
    if not entries:
        return
    standing = replayed(entries)
    if standing.moving is None and aliases_of(trigger).version_at(compressed, alias) == standing.present:
        return
    try:
        with hold(trigger.objects, record_name(compressed), wait=False) as state:
            _Book(trigger, compressed, alias, state).settle()
    except HeldError:
        return


class _Book:
    """A model's record, under its lease. `ended` is what `settle` has found interrupted and ended."""

    def __init__(self, trigger: Trigger, compressed: str, alias: str, state: RunState) -> None:
        self._trigger, self._compressed, self._alias, self._state = trigger, compressed, alias, state
        self.ended: Deed | None = None
        self._entries = parsed(trigger.objects, record_name(compressed), state.history())

    @property
    def standing(self) -> Standing:
        return replayed(self._entries)

    def serving(self) -> Serving:
        """The version that was just found or put into service."""
        now_there = _serving(self._compressed, self._alias, self.standing.present, self.standing)
        assert now_there is not None
        return now_there

    def add(self, what: What, version: str | None, *, by: str, why: str, deed: Deed = "promote") -> Entry:
        entry = Entry(
            what=what,
            version=version,
            deed=deed,
            by=printable(by),
            at=self._trigger.clock(),
            why=printable(why, LONGEST_WHY),
        )
        self._state.decide(len(self._entries), entry.model_dump(mode="json"))
        self._entries.append(entry)
        return entry

    def settle(self) -> str | None:
        """End a move that a process has begun and not ended, and note where the alias is; the version there."""
        there, begun = self._at(), self.standing.moving
        if begun is not None and there == begun.version:
            with self._acting(f"end of {begun.deed}", begun.by, "", begun.why) as said:
                said(f"{self._alias} was at version {there} when the process that moved it had ended")
                self._end(begun, self.standing.present)
                self.ended = begun.deed
        elif begun is not None:
            self.add("not moved", self.standing.present, by=begun.by, why="the process ended before", deed=begun.deed)
        if there != self.standing.present:
            was = self.standing.present
            with self._acting("found", OUTSIDE, "", "") as said:
                said(f"{self._alias} was at {_named(was)}, and is found at {_named(there)}")
                self.add("found", there, by=OUTSIDE, why="")
        return there

    def move(self, deed: Deed, version: str, *, by: str, role: str, why: str, note: str = "") -> None:
        """Move the alias from where the record says that it is; UserError if somebody else moves it meanwhile."""
        was = self.standing.present
        with self._acting(deed, by, role, why) as said:
            begun = self.add("moving", version, by=by, why=why, deed=deed)
            self._state.renew()  # nobody else has the lease, and this process was not halted for long
            there = self._at()
            if there == was:
                aliases_of(self._trigger).move(self._compressed, self._alias, version)
                there = self._at()
                if there == version:
                    said(f"{self._alias} moved from {_named(was)} to version {version}" + (f"; {note}" if note else ""))
                    self._end(begun, was)
                    return
            self.settle()
            raise NotAllowedError(
                Text(
                    "refused.moved.meanwhile",
                    alias=self._alias,
                    compressed=self._compressed,
                    version=version,
                    was=_where(was),
                    present=_where(there),
                )
            )

    def _end(self, begun: Entry, was: str | None) -> None:
        """Say in MLflow who has moved the alias, then note that it has moved."""
        assert begun.version is not None
        when = begun.at.strftime("%Y-%m-%dT%H:%M:%SZ")
        name = "promoted" if begun.deed == "promote" else "put_back"
        told = {f"{name}_by": begun.by, f"{name}_at": when, f"{name}_why": begun.why}
        aliases = aliases_of(self._trigger)
        aliases.tag(self._compressed, begun.version, tags(**told))
        if begun.deed == "roll back" and was is not None and aliases.about(self._compressed, was) is not None:
            told = {"rolled_back_by": begun.by, "rolled_back_at": when, "rolled_back_why": begun.why}
            aliases.tag(self._compressed, was, tags(**told))
        self.add("moved", begun.version, by=begun.by, why=begun.why, deed=begun.deed)

    def _at(self) -> str | None:
        return aliases_of(self._trigger).version_at(self._compressed, self._alias)

    @contextmanager
    def _acting(self, what: str, by: str, role: str, why: str) -> Iterator[Callable[[str], None]]:
        with acting(self._trigger.objects, _act(self._trigger, what, self._compressed, by, role, why)) as said:
            yield said


@contextmanager
def _working(trigger: Trigger, compressed: str, alias: str) -> Iterator[_Book]:
    try:
        with hold(trigger.objects, record_name(compressed), wait=False) as state:
            yield _Book(trigger, compressed, alias, state)
    except HeldError:
        raise NotAllowedError(Text("refused.busy", compressed=compressed)) from None


def _serving(compressed: str, alias: str, version: str | None, standing: Standing) -> Serving | None:
    """What is in service, if the alias names `version`. If the record does not know that yet, it is what the record
    will say once it does."""
    if version is None:
        return None
    last, since = standing.last, standing.last.at if standing.last else None
    if version != standing.present:
        begun = standing.moving
        if begun and begun.version == version:
            standing, last, since = standing.after(begun.model_copy(update={"what": "moved"})), begun, begun.at
        else:
            last = Entry(what="found", version=version, by=OUTSIDE, at=datetime.min)
            standing, since = standing.after(last), None
    assert last is not None
    before = standing.before[0] if standing.before else None
    return Serving(compressed, alias, version, before, since, last.by, last.why)


def _waiting(compressed: str, asked: Entry) -> Waiting:
    assert asked.version is not None
    return Waiting(compressed, asked.version, asked.by, asked.at, asked.why)


def _refuse_if_moved(compressed: str, alias: str, seen: str | None, present: str | None) -> None:
    if seen not in (ANY, present):
        raise NotAllowedError(
            Text("refused.moved", alias=alias, compressed=compressed, seen=_where(seen), present=_where(present))
        )


def _act(trigger: Trigger, what: str, compressed: str, by: str, role: str, why: str) -> Act:
    return Act(at=trigger.clock().timestamp(), by=by, role=role, what=what, model=compressed, why=why)


def _reason(why: str) -> str:
    if not why.strip():
        raise NotAllowedError(Text("refused.why"))
    return why


def _same(one: str, other: str) -> bool:
    return printable(one).casefold() == printable(other).casefold()


def _none_before(compressed: str, present: str | None, gone: tuple[str, ...]) -> Text:
    """Why nothing can be rolled back; `gone` are versions that are no longer registered."""
    if present is None:
        said = Text("refused.none_before.none", compressed=compressed)
    else:
        said = Text("refused.none_before", compressed=compressed, version=present)
    return Text("refused.none_before.gone", said=said, versions=", ".join(gone)) if gone else said


def _where(version: str | None) -> Text:
    return Text("at.none") if version is None else Text("at.version", version=version)


def _named(version: str | None) -> str:
    return "no version" if version is None else f"version {version}"
