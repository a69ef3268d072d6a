"""Claims: the records in the store that a question is being answered.

The claims of one model are one small object, changed by compare-and-swap. So a claim and the rules that it has to keep
(one run at a time, so many a day) are decided together, whichever process asks and wherever it is killed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from lmmpress.errors import UserError
from lmmpress.printing.one_line import printable
from lmmpress.store.kinds import CLAIMS, stem
from lmmpress.store.manifest import first_fault
from lmmpress.store.objects import ChangedError, Objects, UnreadableError
from lmmpress.trigger.question import Question, model_key
from lmmpress.trigger.texts import Text

LONGEST = 500
"""Characters of a note, a reason or a name that are kept."""


class State(StrEnum):
    """How far the answer to a question is."""

    claimed = "claimed"
    submitted = "submitted"
    running = "running"
    succeeded = "succeeded"
    failed = "failed"
    cancelled = "cancelled"
    lost = "lost"

    @property
    def text(self) -> Text:
        """The state as people are told of it."""
        return Text(f"claim.{self}")


OPEN = (State.claimed, State.submitted, State.running)
"""The states of a claim that is still worked on."""
AGAIN = (State.failed, State.cancelled, State.lost)
"""The states from which an operator may have a question tried again."""


class Cause(StrEnum):
    """Why a question was asked: by a notice of MLflow's, through the API or the page, by the reconciler, or from a
    shell."""

    webhook = "webhook"
    rest = "REST"
    page = "page"
    reconciler = "reconciler"
    shell = "shell"


BY_ITSELF = (Cause.webhook, Cause.reconciler)
"""The causes with which the trigger starts a run by itself; with the others a person asks for it."""


@dataclass(frozen=True)
class Event:
    """A change of a claim: its state from then on, when, by whom, and why."""

    state: State
    at: AwareDatetime
    by: str
    note: str = ""


@dataclass(frozen=True)
class Sent:
    """A run that an engine has taken: its id there, and where people see it."""

    id: str
    link: str = ""


@dataclass(frozen=True)
class Sending:
    """A process is about to give the run to the engine. Until it is certain that none of its requests can arrive any
    more, no other process does."""

    holder: str
    at: AwareDatetime


@dataclass(frozen=True)
class Wish:
    """An operator wants the run cancelled."""

    by: str
    at: datetime
    why: str


@dataclass(frozen=True)
class Claim:
    """A question that is being answered, or that has been.

    `by`, `cause` and `why` are those of the first asking. `attempt` counts from 1; an operator's retry raises it.
    `sent` is the run, once the engine has taken it. `missing` is since when the engine has not known it. `revision`
    counts the changes.
    """

    key: str
    question: Question
    state: State
    by: str
    cause: Cause
    why: str
    events: Annotated[tuple[Event, ...], Field(min_length=1)]
    attempt: int = 1
    sent: Sent | None = None
    sending: Sending | None = None
    cancel: Wish | None = None
    missing: AwareDatetime | None = None
    revision: int = 0

    @property
    def run(self) -> str:
        """The name of the run, the same on every machine."""
        return self.question.run_name(self.attempt)

    @property
    def note(self) -> str:
        """What was said last."""
        return self.events[-1].note

    @property
    def at(self) -> dict[State, datetime]:
        """When the claim last came to each state that it has been in."""
        return {event.state: event.at for event in self.events}

    @property
    def is_open(self) -> bool:
        """Whether it is still worked on."""
        return self.state in OPEN

    @property
    def began(self) -> tuple[datetime, ...]:
        """When each attempt was claimed."""
        return tuple(event.at for event in self.events if event.state is State.claimed)


class NotAllowedError(UserError):
    """The claim is in a state in which this cannot be done, or the policy does not allow it now. `texts` say why, and
    the lines are the same in English."""

    def __init__(self, *texts: Text) -> None:
        super().__init__(*(str(one) for one in texts))
        self.texts = texts


class ConflictError(Exception):
    """Another process has changed the claim since it was read: read it again."""


@dataclass(frozen=True)
class _Ledger:
    """All claims of a model, oldest first, as the store holds them."""

    model: str
    claims: tuple[Claim, ...] = ()
    format: Literal[1] = 1


@dataclass(frozen=True)
class _Read:
    ledger: _Ledger
    tag: str | None


_FORM = TypeAdapter(_Ledger)

Admit = Callable[[tuple[Claim, ...]], Text | None]
"""Why a model with these claims may not get another; None where it may."""


@dataclass
class Claims:
    """The claims in a store. Methods raise UserError where the store cannot be reached, or a record is damaged."""

    objects: Objects
    _seen: dict[str, _Read] = field(default_factory=dict, repr=False)

    def get(self, key: str) -> Claim | None:
        """The claim with that key; None where there is none."""
        return _with_key(self._read(_name(key)).ledger.claims, key)

    def all(self, model: str | None = None, damaged: Callable[[UnreadableError], object] | None = None) -> list[Claim]:
        """All claims, or those of a model, in the order in which they were made. With `damaged`, which gets the fault,
        a model whose record is damaged is left out."""
        if model is not None:
            return list(self._read(CLAIMS.name(model_key(model))).ledger.claims)
        found: list[Claim] = []
        for name in [entry.name for entry in self.objects.entries(CLAIMS.prefix) if CLAIMS.has(entry.name)]:
            try:
                found += self._read(name).ledger.claims
            except UnreadableError as error:
                if damaged is None:
                    raise
                damaged(error)
        return sorted(found, key=lambda claim: claim.events[0].at)

    def create(
        self, question: Question, *, by: str, cause: Cause, why: str, now: datetime, admit: Admit = lambda claims: None
    ) -> Claim | Text:
        """Claim a question, or find the claim that it has; the reason where the model may get no other claim now."""
        name = CLAIMS.name(model_key(question.model))
        while True:
            read = self._read(name, question.model)
            if existing := _with_key(read.ledger.claims, question.key):
                return existing
            if (refused := admit(read.ledger.claims)) is not None:
                return refused
            by, why = _short(by), _short(why)
            claim = Claim(question.key, question, State.claimed, by, cause, why, (Event(State.claimed, now, by, why),))
            try:
                self._write(name, read, (*read.ledger.claims, claim))
                return claim
            except ChangedError:
                continue

    def move(
        self, claim: Claim, state: State | None = None, *, by: str, now: datetime, note: str = "", **changes: Any
    ) -> Claim:
        """Change a claim that was read; its new form. With a new `state`, or a note, the change becomes an event.

        ConflictError where another process has changed it since.
        """
        return self.change(claim, lambda others: None, state, by=by, now=now, note=note, **changes)

    def change(
        self,
        claim: Claim,
        admit: Admit,
        state: State | None = None,
        *,
        by: str,
        now: datetime,
        note: str = "",
        **changes: Any,
    ) -> Claim:
        """As `move`, where `admit` allows it beside the model's other claims; NotAllowedError where not."""
        new = replace(claim, state=state or claim.state, revision=claim.revision + 1, **changes)
        if note or new.state is not claim.state or new.attempt != claim.attempt:
            new = replace(new, events=(*claim.events, Event(new.state, now, _short(by), _short(note))))
        name = _name(claim.key)
        while True:
            read = self._read(name)
            if _with_key(read.ledger.claims, claim.key) != claim:
                raise ConflictError(claim.key)
            others = tuple(one for one in read.ledger.claims if one.key != claim.key)
            if (refused := admit(others)) is not None:
                raise NotAllowedError(refused)
            try:
                self._write(name, read, tuple(new if one.key == claim.key else one for one in read.ledger.claims))
                return new
            except ChangedError:
                continue

    def _read(self, name: str, model: str = "") -> _Read:
        found = self.objects.read(name)
        if found is None:
            return _Read(_Ledger(model), None)
        seen = self._seen.get(name)
        if seen is None or seen.tag != found.tag:
            try:
                ledger = _FORM.validate_json(found.data)
                if model_key(ledger.model) != stem(name):
                    raise UnreadableError(self.objects.address, name, "holds the claims of another model")
            except ValidationError as error:
                fault = f"holds no claims that this lmmpress can read: {first_fault(error)}"
                raise UnreadableError(self.objects.address, name, fault) from None
            seen = self._seen[name] = _Read(ledger, found.tag)
        return seen

    def _write(self, name: str, read: _Read, claims: tuple[Claim, ...]) -> None:
        self.objects.write(name, _FORM.dump_json(replace(read.ledger, claims=claims), indent=1), read.tag)


def _name(key: str) -> str:
    """The name of the object with the claim of that key, which may come from a stranger."""
    model = key.partition("-")[0]
    return CLAIMS.name(model if len(model) == 12 and model.isalnum() and model.isascii() else "none")


def _with_key(claims: tuple[Claim, ...], key: str) -> Claim | None:
    return next((claim for claim in claims if claim.key == key), None)


def _short(text: str) -> str:
    return printable(text, LONGEST)
