"""The record of which versions of a compressed model were in service: entries in the store, which are only added."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lmmpress.store.kinds import SERVING
from lmmpress.store.manifest import first_fault
from lmmpress.store.objects import Objects, UnreadableError
from lmmpress.store.run_state import read_state
from lmmpress.trigger.question import model_key

What = Literal["asked", "moving", "moved", "not moved", "found"]
Deed = Literal["promote", "roll back"]


class Entry(BaseModel):
    """One entry of a model's record.

    A promotion was `asked` for; a move is to be made (`moving`), and then was (`moved`) or was `not moved`; or the
    alias was `found` where lmmpress has not moved it. `version` is what the alias names from then on, None for nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    what: What
    version: str | None
    deed: Deed = "promote"
    by: str
    at: datetime
    why: str = ""


@dataclass(frozen=True)
class Standing:
    """What follows from a record. `stack` are the versions that were in service, the latest last; rolling back takes
    them off again. `last` is the entry by which `present` came into service."""

    present: str | None = None
    stack: tuple[str, ...] = ()
    last: Entry | None = None
    moving: Entry | None = None
    asked: Entry | None = None

    def after(self, entry: Entry) -> "Standing":
        """The standing after one more entry."""
        if entry.what == "asked":
            return Standing(self.present, self.stack, self.last, self.moving, entry)
        if entry.what == "moving":
            return Standing(self.present, self.stack, self.last, entry, self.asked)
        if entry.what == "not moved":
            return Standing(self.present, self.stack, self.last, None, self.asked)
        return Standing(entry.version, self._stack_after(entry), entry)

    @property
    def before(self) -> tuple[str, ...]:
        """The versions that rolling back may lead to, the first one first."""
        return tuple(version for version in reversed(self._below) if version != self.present)

    @property
    def _below(self) -> tuple[str, ...]:
        return self.stack[:-1] if self.stack and self.stack[-1] == self.present else self.stack

    def _stack_after(self, entry: Entry) -> tuple[str, ...]:
        if entry.version is None:
            return self.stack
        if entry.what == "moved" and entry.deed == "roll back" and entry.version in self._below:
            last = len(self._below) - 1 - self._below[::-1].index(entry.version)
            return self._below[: last + 1]
        return self.stack if self.stack[-1:] == (entry.version,) else (*self.stack, entry.version)


def record_name(compressed: str) -> str:
    """The name of the object that holds the record of a compressed model."""
    return SERVING.name(model_key(compressed))


def read_entries(objects: Objects, compressed: str) -> list[Entry]:
    """All entries of a compressed model, the oldest first. UserError if they cannot be read."""
    name = record_name(compressed)
    return parsed(objects, name, read_state(objects, name).stored.history)


def parsed(objects: Objects, name: str, entries: list[dict[str, Any]]) -> list[Entry]:
    """Entries as the store holds them; UnreadableError if this lmmpress cannot read one."""
    try:
        return [Entry.model_validate(entry) for entry in entries]
    except ValidationError as error:
        fault = f"is no record of what is in service that this lmmpress can read: {first_fault(error)}"
        raise UnreadableError(objects.address, name, fault) from None


def replayed(entries: list[Entry]) -> Standing:
    """What follows from all entries."""
    standing = Standing()
    for entry in entries:
        standing = standing.after(entry)
    return standing
