"""Hints: webhook deliveries that were noted in the store before they were answered.

A hint only says that a model may have changed. It is written once, under the hash of its delivery's id: the same
delivery finds its own hint, on another replica too. A server that starts works off the hints that lie there, and hints
that are older than any delivery that would still be taken are removed.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from lmmpress.store.kinds import HINTS
from lmmpress.store.objects import ChangedError, Objects, UnreadableError

KEPT = 1800.0
"""Seconds that a hint is kept: longer than the five minutes for which a delivery counts, before or after its time."""


@dataclass(frozen=True)
class Hint:
    """A delivery: its id, the sha256 of its body, and the model and version that it names."""

    delivery: str
    sha256: str
    model: str
    version: str


_HINT = TypeAdapter(Hint)


def note(objects: Objects, hint: Hint) -> Literal["new", "repeated", "other"]:
    """Write a hint. `repeated` where this delivery was noted before, `other` where its id came with another body."""
    name = HINTS.name(hashlib.sha256(hint.delivery.encode("utf-8")).hexdigest())
    try:
        objects.write(name, json.dumps(asdict(hint)).encode("utf-8"), None)
    except ChangedError:
        before = _read(objects, name)
        return "repeated" if before is not None and before.sha256 == hint.sha256 else "other"
    return "new"


def hinted(objects: Objects) -> Iterator[Hint]:
    """All hints that are kept. What cannot be read is left out: the reconciler finds the model by itself."""
    for entry in objects.entries(HINTS.prefix):
        if HINTS.has(entry.name) and (hint := _read(objects, entry.name)) is not None:
            yield hint


def forget(objects: Objects, kept: float = KEPT) -> int:
    """Remove the hints that are older than `kept` seconds; how many were removed."""
    now = objects.now()
    old = [
        entry.name for entry in objects.entries(HINTS.prefix) if HINTS.has(entry.name) and now - entry.modified > kept
    ]
    for name in old:
        objects.delete(name)
    return len(old)


def _read(objects: Objects, name: str) -> Hint | None:
    try:
        found = objects.read(name)
        return None if found is None else _HINT.validate_json(found.data)
    except (UnreadableError, ValidationError):
        return None
