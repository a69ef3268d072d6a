"""Pins: what somebody outside of a store still needs of it, and for what. `lmmpress store rm` leaves it there.

The store cannot know which checkpoint is in service, or which run somebody waits for. Whoever knows writes a pin, and
changes or removes it when that changes.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lmmpress.errors import UserError
from lmmpress.store.kinds import PINS
from lmmpress.store.manifest import first_fault
from lmmpress.store.objects import ChangedError, Objects, UnreadableError

_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Reason = Annotated[str, Field(max_length=300)]


class Pin(BaseModel):
    """Checkpoints by their digests and runs by their keys, each with what it is needed for, in one line."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    checkpoints: dict[_Digest, _Reason] = {}
    runs: dict[_Digest, _Reason] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing is needed."""
        return not self.checkpoints and not self.runs


def read_pin(objects: Objects, stem: str) -> Pin:
    """The pin of that name, an empty one where there is none; UserError if it cannot be read."""
    return _parsed(objects, PINS.name(stem))[0]


def read_pins(objects: Objects) -> Iterator[Pin]:
    """All pins of a store; UserError if one cannot be read."""
    for entry in objects.entries(PINS.prefix):
        if PINS.has(entry.name):
            yield _parsed(objects, entry.name)[0]


def write_pin(objects: Objects, stem: str, pin: Pin) -> None:
    """Let the pin of that name say this, where it does not; an empty one is removed. Of two who write at once, the next
    look brings it in order."""
    name = PINS.name(stem)
    try:
        there, tag = _parsed(objects, name)
        if there == pin:
            return
        if pin.is_empty:
            objects.delete(name)
        else:
            objects.write(name, pin.model_dump_json(indent=1).encode(), tag)
    except ChangedError:
        return


def _parsed(objects: Objects, name: str) -> tuple[Pin, str | None]:
    try:
        found = objects.read(name)
        return (Pin(), None) if found is None else (Pin.model_validate_json(found.data), found.tag)
    except (UnreadableError, ValidationError) as error:
        fault = error.fault if isinstance(error, UnreadableError) else first_fault(error)
        raise UserError(f"{objects.address}: {name} says what is still needed, and cannot be read: {fault}") from None
