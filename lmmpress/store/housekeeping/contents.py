"""The objects in a store, by kind. An object that cannot be read becomes a fault in the list `faults`; without such a
list its error is raised.

Objects whose names are not those of a store are left alone: not listed, not checked, not removed.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel

from lmmpress.errors import UserError
from lmmpress.store.kinds import CHECKPOINTS, COPIES, RECORDS, RUNS, TENSORS, Kind, stem
from lmmpress.store.manifest import Manifest, parse_manifest
from lmmpress.store.objects import Entry, UnreadableError
from lmmpress.store.run_state import RunState, StateRead, is_live, read_state
from lmmpress.store.store import Store

T = TypeVar("T")


class Fault(BaseModel):
    """An object that is missing or damaged: its name, what is wrong, and the names of the objects that need it."""

    name: str
    fault: str
    needed_by: list[str] = []


Faults = list[Fault]


def entries(store: Store, kind: Kind) -> list[Entry]:
    """The objects of a kind."""
    return [entry for entry in store.objects.entries(kind.prefix) if kind.has(entry.name)]


def states(store: Store, faults: Faults | None = None) -> Iterator[tuple[str, StateRead]]:
    """The states of all runs by their names."""
    for name, read in _readable(store, RUNS, lambda name: read_state(store.objects, name), faults):
        if read.found is not None:
            yield name, read


def records(store: Store, faults: Faults | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """All records by their names."""
    for name, record in _readable(store, RECORDS, lambda name: store.read_record(stem(name)), faults):
        if record is not None:
            yield name, record


def manifests(store: Store, faults: Faults | None = None) -> Iterator[tuple[str, Manifest]]:
    """All manifests of checkpoints and tensors by their names."""

    def read(name: str) -> Manifest | None:
        found = store.objects.read(name)
        if found is None:  # removed after it was listed
            return None
        manifest = parse_manifest(found.data, store.root_address, name)
        if CHECKPOINTS.has(name) and manifest.digest != stem(name):
            raise UnreadableError(store.root_address, name, "lists files of another checkpoint")
        return manifest

    for kind in (CHECKPOINTS, TENSORS):
        for name, manifest in _readable(store, kind, read, faults):
            if manifest is not None:
                yield name, manifest


def refuse_while_anyone_works(store: Store) -> None:
    """UserError while a process works on a run, or copies into the store."""
    for entry in [*entries(store, RUNS), *entries(store, COPIES)]:
        try:
            read = read_state(store.objects, entry.name)
        except UnreadableError:  # no process can work on a state that cannot be read
            continue
        lease = read.stored.lease
        if lease and is_live(store.objects, read):
            raise UserError(
                f"{store.root_address}: {lease.machine} works on {entry.name}; nothing is removed meanwhile"
            )
        if COPIES.has(entry.name):  # left by a copy that was killed
            store.objects.delete(entry.name)


def delete(store: Store, names: list[str], lease: RunState) -> None:
    """Remove objects while the lease is held."""
    remove([partial(store.objects.delete, name) for name in names], lease)


def remove(removals: list[Callable[[], None]], lease: RunState) -> None:
    """Call all of `removals` while the lease is held. A process that was suspended may have lost it, and must stop."""
    for number, removal in enumerate(removals):
        if number % 20 == 0:
            lease.renew()
        removal()


def _readable(store: Store, kind: Kind, read: Callable[[str], T], faults: Faults | None) -> Iterator[tuple[str, T]]:
    for entry in entries(store, kind):
        try:
            value = read(entry.name)
        except UnreadableError as error:
            if faults is None:
                raise
            faults.append(Fault(name=entry.name, fault=error.fault))
            continue
        yield entry.name, value
