"""Acts: who has done what to which model or claim, when and why, and what came of it. Each is one object."""

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from lmmpress.errors import UserError
from lmmpress.printing.one_line import printable
from lmmpress.store.kinds import ACTS, stem
from lmmpress.store.objects import ChangedError, Objects, UnreadableError

LONGEST_WHY = 1000
"""Characters of a reason."""
Tell = Callable[[str, "Act"], str]
"""Tells others of an act that is done, by its name; why they could not be told, else nothing. Raises nothing."""


class Act(BaseModel):
    """One line of the audit. `at` in seconds since the epoch, by the clock of the server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: float
    by: str
    role: str
    what: str
    model: str | None = None
    claim: str | None = None
    why: str = ""
    outcome: str = ""
    """What came of it, in one line."""
    request: str = ""
    """The id of the request, which the log has too."""

    @property
    def when(self) -> str:
        """The time in UTC, to the second."""
        return datetime.fromtimestamp(self.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def acting(objects: Objects, act: Act, tell: Tell = lambda name, act: "") -> Iterator[Callable[[str], None]]:
    """Write an act down before the block does it, and what came of it afterwards, with the function that is given.

    Nothing is done that could not be written down: UserError where the store does not take it. If the outcome cannot be
    written, the act itself stands there without one. `tell` gets the act once it is done; what it says is added to the
    outcome.
    """
    name = record(objects, act)
    said: list[str] = []
    try:
        yield said.append
    except BaseException as error:
        _conclude(objects, name, f"failed: {error}")
        raise
    _conclude(objects, name, "; ".join(said))
    if untold := tell(stem(name), _safe(act.model_copy(update={"outcome": "; ".join(said)}))):
        _conclude(objects, name, "; ".join([*said, untold]))


def record(objects: Objects, act: Act) -> str:
    """Write an act down; the name of its object. Texts of people are made safe to print, and hold no credentials."""
    stamp = datetime.fromtimestamp(act.at, UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")
    name = ACTS.name(f"{stamp}-{uuid.uuid4().hex[:8]}")
    objects.write(name, _bytes_of(act), None)
    return name


def _conclude(objects: Objects, name: str, outcome: str) -> None:
    with suppress(UserError, OSError, ChangedError, ValidationError):
        found = objects.read(name)
        if found is not None:
            act = Act.model_validate_json(found.data)
            objects.write(name, _bytes_of(act.model_copy(update={"outcome": outcome})), found.tag)


def _bytes_of(act: Act) -> bytes:
    return json.dumps(_safe(act).model_dump(exclude_defaults=True)).encode("utf-8")


def _safe(act: Act) -> Act:
    safe = {"why": printable(act.why, LONGEST_WHY), "outcome": printable(act.outcome), "by": printable(act.by)}
    return act.model_copy(update=safe)


def recorded(objects: Objects, day: str = "") -> Iterator[Act]:
    """The acts of a day (`2026-11-29`, UTC) or all, oldest first. Objects that are damaged are left out."""
    for name in sorted(entry.name for entry in objects.entries(f"{ACTS.prefix}{day}") if ACTS.has(entry.name)):
        try:
            found = objects.read(name)
            if found is not None:
                yield Act.model_validate_json(found.data)
        except (UnreadableError, ValidationError):
            continue
