"""Notices to people, each sent once for each event and address: through apprise, to mail, chats and webhooks.

A notice is noted in the store first, by compare-and-swap, and sent afterwards: whoever sends it says so in the note
before, and what has come of it after. So replicas do not send it twice, and a restart forgets nothing. A process that
is killed while a message is under way leaves a doubt: the message is sent again after a while, and says so.
"""

import logging
import os
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lmmpress.errors import UserError
from lmmpress.host.extras import needs
from lmmpress.plan import digest_of
from lmmpress.printing.one_line import printable
from lmmpress.store.kinds import NOTICES
from lmmpress.store.manifest import first_fault
from lmmpress.store.objects import ChangedError, Objects, UnreadableError
from lmmpress.trigger.notice_settings import NoticeAddress, NoticeKind
from lmmpress.trigger.question import model_key
from lmmpress.trigger.texts import Language, Text
from lmmpress.trigger.trigger import Trigger

PAUSES = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 30, 120, 480))
"""After each try that failed; after the last one there is one more try."""
LAPSE = timedelta(minutes=10)
"""After this time nobody can be sending any more who has said so."""
HALTED = timedelta(minutes=3)
"""Who has said so longer ago does not begin to send."""
KEPT = timedelta(days=60)
"""How long it is remembered that a notice was sent. No event is looked at for longer, except of versions."""
BEFORE = timedelta(days=1)
"""Events that are older when the trigger first looks are no news."""
_LONGEST_ADDRESS = 8192  # bytes of a file
_LONGEST_TEXT = 1000

Send = Callable[[NoticeAddress, str, str], bool]
"""Sends a title and a text to an address; whether it was taken."""


@dataclass(frozen=True)
class Notice:
    """Something that people want to know about a watched model. `event` names what it is about: the same event of a
    model is noted once. By default that is the text."""

    kind: NoticeKind
    model: str
    text: Text
    link: str = ""
    event: str = ""

    @property
    def id(self) -> str:
        """The name of the event, among those of the model."""
        return f"{self.kind}:{self.event or digest_of(str(self.text))[:24]}"


class Delivery(BaseModel):
    """How far a notice has come to one address; `at` is when that was written, `holder` who sends it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: Literal["waiting", "sending", "sent", "given up"] = "waiting"
    tries: int = 0
    at: datetime
    holder: str = ""

    def is_due(self, now: datetime) -> bool:
        """Whether somebody should send it now."""
        if self.state == "waiting":
            return self.tries == 0 or now >= self.at + PAUSES[min(self.tries, len(PAUSES)) - 1]
        return self.state == "sending" and now >= self.at + LAPSE

    @property
    def is_over(self) -> bool:
        """Whether nothing is to be done any more."""
        return self.state in ("sent", "given up")


class Noted(BaseModel):
    """A notice in the store, and its deliveries by the name of the address. `text` is English; `others` has it in the
    other languages of those addresses."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: NoticeKind
    text: str
    others: dict[Language, str] | None = None
    link: str = ""
    at: datetime
    to: dict[str, Delivery]


class Box(BaseModel):
    """All notices of a model. Events before `since` are none; `seen` is when each version was first the one to be
    compressed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    model: str
    since: datetime
    seen: dict[str, datetime] = {}
    notices: dict[str, Noted] = {}


Change = Callable[[Box], Box]


def notify(trigger: Trigger, notice: Notice) -> None:
    """Note a notice; it is sent by the next round of the reconciler. Never raises: nothing waits for notices."""
    try:
        note(trigger, notice.model, [notice])
    except Exception as error:
        logging.getLogger(__name__).warning("a notice was not noted: %s", printable(f"{type(error).__name__}: {error}"))


def note(trigger: Trigger, model: str, notices: Iterable[Notice], version: str | None = None) -> Box:
    """Note the notices of a model that are new, and that `version` is the one to be compressed; the box afterwards.

    Raises UserError if the store does not answer.
    """
    now, wanted = trigger.clock(), list(notices)

    def change(box: Box) -> Box:
        new = {one.id: _noted(trigger, one, now) for one in wanted if one.id not in box.notices}
        new = {name: one for name, one in new.items() if one.to}
        seen = box.seen if version is None or version in box.seen else box.seen | {version: now}
        if not new and seen is box.seen:
            return box
        return box.model_copy(update={"notices": _remembered(box.notices, now) | new, "seen": seen})

    return change_box(trigger.objects, model, now, change)


def read_box(objects: Objects, model: str, now: datetime) -> tuple[Box, str | None]:
    """The notices of a model, and the tag of their object. UserError if the store does not answer."""
    name = NOTICES.name(model_key(model))
    found = objects.read(name)
    if found is None:
        return Box(model=model, since=now - BEFORE), None
    try:
        return Box.model_validate_json(found.data), found.tag
    except ValidationError as error:
        fault = f"holds no notices that this lmmpress can read: {first_fault(error)}"
        raise UnreadableError(objects.address, name, fault) from None


def change_box(objects: Objects, model: str, now: datetime, change: Change) -> Box:
    """Change the notices of a model by compare-and-swap; `change` may be called several times. It is not written if it
    stays the same, except for the first time."""
    while True:
        box, tag = read_box(objects, model, now)
        new = change(box)
        if new == box and tag is not None:
            return box
        try:
            objects.write(
                NOTICES.name(model_key(model)), new.model_dump_json(indent=1, exclude_none=True).encode("utf-8"), tag
            )
            return new
        except ChangedError:
            continue


def deliver(trigger: Trigger, send: Send) -> list[str]:
    """Send what is to be sent now; one line for each thing that went wrong. Raises nothing.

    Any number of processes may do this at the same time, and each may be killed anywhere.
    """
    faults: list[str] = []
    addresses = {address.name: address for address in trigger.settings.notices.addresses}
    for model in trigger.settings.models:
        try:
            now = trigger.clock()
            box = read_box(trigger.objects, model, now)[0]
            for event, noted in box.notices.items():
                for name, delivery in noted.to.items():
                    if name in addresses and delivery.is_due(now):
                        faults += _deliver(trigger, model, event, addresses[name], send)
        except Exception as error:  # the store; what a notice meets must not keep the others from being sent
            said = error.lines[0] if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            faults.append(printable(f"notices of {model}: {said}"))
    return faults


def send_with_apprise(address: NoticeAddress, title: str, text: str) -> bool:
    """Send a message. Raises UserError if there is no address in the file or variable, or none that apprise knows; no
    message ever holds the address, which has passwords in it."""
    where = secret_of(address)
    needs("apprise", "notices")
    import apprise

    # it writes parts of addresses to its log
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    sender = apprise.Apprise()
    if not sender.add(where):
        raise UserError(f"{address}: this is no address that apprise knows")
    return bool(sender.notify(body=text, title=title, body_format=apprise.NotifyFormat.TEXT))


def secret_of(address: NoticeAddress) -> str:
    """The address of a `NoticeAddress`, from its file or variable. UserError if there is none."""
    try:
        if address.file is None:
            text = os.environ.get(str(address.env), "")
        else:
            with address.file.open("rb") as opened:
                text = opened.read(_LONGEST_ADDRESS).decode("utf-8")
    except OSError as error:
        raise UserError(f"{address}: cannot be read: {error.strerror or type(error).__name__}") from None
    except UnicodeDecodeError:
        raise UserError(f"{address}: an address is one line in UTF-8") from None
    text = text.strip()
    if not text or len(text.splitlines()) != 1:
        raise UserError(f"{address}: there is {'more than one' if text else 'no'} address of apprise's in it")
    return text


def _deliver(trigger: Trigger, model: str, event: str, address: NoticeAddress, send: Send) -> list[str]:
    """Send one notice to one address, if nobody else does; what went wrong."""
    holder = uuid.uuid4().hex
    noted = _take(trigger, model, event, address.name, holder)
    if noted is None:
        return []
    mine = noted.to[address.name]
    if trigger.clock() - mine.at > HALTED:
        return []  # this process was halted, and another one may send by now
    fault = ""
    try:
        taken = send(address, *_message(model, noted, address.language, mine.tries > 1))
    except UserError as error:
        taken, fault = False, error.lines[0]
    except Exception as error:
        taken, fault = False, type(error).__name__  # its text might hold the address
    over: Literal["waiting", "given up"] = "given up" if mine.tries > len(PAUSES) else "waiting"
    state: Literal["waiting", "given up", "sent"] = "sent" if taken else over
    _mark(trigger, model, event, address.name, holder, state)
    if taken:
        return []
    said = f": {fault}" if fault else ""
    again = "; it is given up" if state == "given up" else "; it is tried again"
    return [f"a notice to {address.name} was not taken (try {mine.tries}){said}{again}"]


def _take(trigger: Trigger, model: str, event: str, name: str, holder: str) -> Noted | None:
    """Say that this process sends a notice now; the notice, None if it is not to be sent."""
    now = trigger.clock()

    def change(box: Box) -> Box:
        noted = box.notices.get(event)
        if noted is None or name not in noted.to or not noted.to[name].is_due(now):
            return box
        tries = noted.to[name].tries + 1
        return _with(box, event, name, Delivery(state="sending", tries=tries, at=now, holder=holder))

    taken = change_box(trigger.objects, model, now, change).notices.get(event)
    return taken if taken and name in taken.to and taken.to[name].holder == holder else None


def _mark(
    trigger: Trigger, model: str, event: str, name: str, holder: str, state: Literal["waiting", "sent", "given up"]
) -> None:
    now = trigger.clock()

    def change(box: Box) -> Box:
        noted = box.notices.get(event)
        if noted is None or name not in noted.to:
            return box
        known = noted.to[name]
        if known.holder != holder and state != "sent":
            return box  # another process sends it by now
        return _with(box, event, name, Delivery(state=state, tries=known.tries, at=now, holder=holder))

    change_box(trigger.objects, model, now, change)


def _with(box: Box, event: str, name: str, delivery: Delivery) -> Box:
    noted = box.notices[event]
    noted = noted.model_copy(update={"to": noted.to | {name: delivery}})
    return box.model_copy(update={"notices": box.notices | {event: noted}})


def _noted(trigger: Trigger, notice: Notice, now: datetime) -> Noted:
    addresses = [address for address in trigger.settings.notices.addresses if notice.kind in address.kinds]
    others = {address.language for address in addresses} - {"en"}
    return Noted(
        kind=notice.kind,
        text=printable(str(notice.text), _LONGEST_TEXT),
        others={one: printable(notice.text.to(one), _LONGEST_TEXT) for one in sorted(others)} or None,
        link=printable(notice.link, _LONGEST_TEXT),
        at=now,
        to={address.name: Delivery(at=now) for address in addresses},
    )


def _remembered(notices: dict[str, Noted], now: datetime) -> dict[str, Noted]:
    """The notices without those that can be forgotten. A version stays stale, so that is never forgotten."""

    def is_old(noted: Noted) -> bool:
        over = all(delivery.is_over for delivery in noted.to.values())
        return noted.kind is not NoticeKind.stale and over and now - noted.at > KEPT

    return {event: noted for event, noted in notices.items() if not is_old(noted)}


def _message(model: str, noted: Noted, language: Language, doubtful: bool) -> tuple[str, str]:
    """The title and the text of a message. It is English where the address had another language when it was noted."""
    others = noted.others or {}
    language = language if language in others else "en"
    title = Text("notice.title", model=printable(model, 100), what=Text(f"notice.title.{noted.kind}"))
    again = Text("notice.again").to(language) if doubtful else ""
    lines = [others.get(language, noted.text), noted.link, again]
    return title.to(language), "\n".join(line for line in lines if line)
