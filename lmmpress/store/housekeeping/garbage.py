"""Removing what no manifest in a store names any more."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from lmmpress.errors import UserError
from lmmpress.store.housekeeping.contents import Faults, entries, manifests, refuse_while_anyone_works, remove
from lmmpress.store.kinds import BLOBS
from lmmpress.store.objects import Entry
from lmmpress.store.store import Store

_TICK = 1.0  # seconds: the resolution of a server's clock


@dataclass(frozen=True)
class Garbage:
    """Blobs that no manifest names, and what killed writers left half-written, older than the grace period. `spared`
    counts the younger ones."""

    entries: list[Entry]
    spared: int

    @property
    def bytes(self) -> int:
        return sum(entry.size for entry in self.entries)


def collect_garbage(store: Store, grace: float, dry_run: bool) -> Garbage:
    """Remove blobs that no manifest names, and what killed writers left half-written, if older than `grace` seconds.

    UserError, and nothing is removed, while a process works on any run, or where a manifest cannot be read.
    """
    with store.cleaning() as lease:
        refuse_while_anyone_works(store)
        listed = entries(store, BLOBS)
        faults: Faults = []
        named = {file.blob.name for _, manifest in manifests(store, faults) for file in manifest.files.values()}
        refuse_what_is_unknown(store, faults)
        unnamed = {entry: partial(store.objects.delete, entry.name) for entry in listed if entry.name not in named}
        removals: dict[Entry, Callable[[], None]] = {
            **unnamed,
            **{one: one.remove for one in store.objects.leftovers()},
        }
        now = store.objects.now() + _TICK
        old = [entry for entry in removals if now - entry.modified >= grace]
        if not dry_run:
            remove([removals[entry] for entry in old], lease)
        return Garbage(old, spared=len(removals) - len(old))


def refuse_what_is_unknown(store: Store, faults: Faults) -> None:
    """UserError where an object cannot be read: it may name what is to be removed."""
    if faults:
        raise UserError(
            f"{store.root_address}: {faults[0].name} {faults[0].fault}; what it names is unknown, so nothing is "
            "removed; `lmmpress store verify --discard` sets it aside"
        )
