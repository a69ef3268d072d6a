"""Checking all objects of a store; and removing damaged ones, with everything that needs them."""

import errno
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lmmpress.progress import transfer
from lmmpress.store.housekeeping.contents import (
    Fault,
    Faults,
    delete,
    entries,
    manifests,
    records,
    refuse_while_anyone_works,
    states,
)
from lmmpress.store.kinds import BLOBS, CHECKPOINTS, DAMAGED, RECORDS, RUNS, TENSORS, stem
from lmmpress.store.objects import Blob, ChangedError, DamagedError, MissingError, UnreadableError
from lmmpress.store.parallel import each
from lmmpress.store.records import IMPORTANCE
from lmmpress.store.run_state import digests_of, step_of
from lmmpress.store.store import Store

_ORDER = (RUNS, RECORDS, CHECKPOINTS, TENSORS, BLOBS)
"""In this order objects are removed: whatever names others goes before what it names."""


def verify_store(store: Store) -> list[Fault]:
    """All faults of a store: blobs that are missing or do not match their names; manifests, records and states that
    cannot be read; objects that name a missing checkpoint. Reads all bytes, writes nothing."""
    faults: Faults = []
    needed: dict[Blob, list[str]] = {}
    whole: set[str] = set()
    for name, manifest in manifests(store, faults):
        whole.add(stem(name))
        for file in manifest.files.values():
            needed.setdefault(file.blob, []).append(name)
    for name, record in records(store, faults):
        faults += _missing(name, digests_of({"checkpoint": record.get("checkpoint")}) - whole)
        if stem(name).startswith(IMPORTANCE) and stem(name) not in whole:
            faults.append(Fault(name=TENSORS.name(stem(name)), fault="is missing", needed_by=[name]))
    for name, read in states(store, faults):
        faults += _wrong_step(name, read.stored.history)
        faults += _missing(name, {digest for step in read.stored.history for digest in digests_of(step)} - whole)
    return sorted([*faults, *_wrong_blobs(store, needed)], key=lambda fault: (fault.name, fault.fault))


@dataclass(frozen=True)
class Discarded:
    """What `discard_faults` found, and the names that it removed. `set_aside`: of those whose bytes were kept, the new
    name under `damaged/` by the old one."""

    faults: list[Fault]
    removed: list[str]
    set_aside: dict[str, str]


def discard_faults(store: Store) -> Discarded:
    """Verify a store that no process works on, and remove what is damaged and what needs it. The next
    `lmmpress run --resume` makes the removed steps again.

    A history is never shortened. Where it names a lost checkpoint, the whole state is removed, and the next run makes
    it again from the records. The bytes of states, and of objects that cannot be read, are kept under `damaged/`.
    """
    with store.cleaning() as lease:
        refuse_while_anyone_works(store)
        faults = verify_store(store)
        names = {name for fault in faults for name in (fault.name, *fault.needed_by)}
        lost = {stem(name) for name in names if CHECKPOINTS.has(name) or TENSORS.has(name)}
        for name, record in records(store, []):
            if lost & {stem(name), *digests_of({"checkpoint": record.get("checkpoint")})}:
                names.add(name)
        for name, read in states(store, []):
            if lost & {digest for step in read.stored.history for digest in digests_of(step)}:
                names.add(name)
        unreadable = {fault.name for fault in faults if not BLOBS.has(fault.name)}
        in_order = sorted(names, key=lambda name: (next(at for at, kind in enumerate(_ORDER) if kind.has(name)), name))
        aside = {}
        for name in in_order:
            if (name in unreadable or RUNS.has(name)) and (new := _set_aside(store, name)):
                aside[name] = new
        delete(store, in_order, lease)
    return Discarded(faults, in_order, aside)


def _missing(name: str, digests: Iterable[str]) -> Faults:
    return [Fault(name=CHECKPOINTS.name(digest), fault="is missing", needed_by=[name]) for digest in sorted(digests)]


def _wrong_step(name: str, history: list[dict[str, Any]]) -> Faults:
    """The first decision of a run that cannot be read."""
    for number, entry in enumerate(history, start=1):
        try:
            step_of(entry)
        except ValueError:
            return [Fault(name=name, fault=f"holds a decision of step {number} that this lmmpress cannot read")]
    return []


def _wrong_blobs(store: Store, needed: dict[Blob, list[str]]) -> Faults:
    """Faults of blobs: of those in `needed`, each with the manifests that name it, and of those that none names."""
    named = {blob.name for blob in needed}
    unnamed = [Blob(stem(entry.name), entry.size) for entry in entries(store, BLOBS) if entry.name not in named]
    blobs = [*needed, *unnamed]

    def check(blob: Blob) -> str | None:
        try:
            store.objects.check(blob)
        except MissingError:
            return "is missing"
        except DamagedError as error:
            return str(error).partition(": ")[2]
        except OSError as error:
            if error.errno != errno.EIO:  # access denied, or out of reach: the bytes may be sound
                raise
            return "cannot be read from the disk"
        finally:
            advance(blob.size)
        return None

    with transfer("verifying", sum(blob.size for blob in blobs)) as advance:
        found = dict(zip(blobs, each(check, blobs), strict=True))
    sound = {blob.name for blob, fault in found.items() if fault is None}
    faults: Faults = []
    for blob, fault in found.items():
        if fault is not None and blob.name in sound:  # another manifest gives its size rightly
            faults += [Fault(name=name, fault=f"gives {blob.name} a wrong size") for name in needed[blob]]
        elif fault is not None:
            faults.append(Fault(name=blob.name, fault=fault, needed_by=needed.get(blob, [])))
    return faults


def _set_aside(store: Store, name: str) -> str | None:
    """Keep the bytes of a small object under a new name; that name, or None where there are no bytes to keep."""
    try:
        found = store.objects.read(name)
    except UnreadableError:  # no regular file, or too large
        return None
    if found is None:
        return None
    aside = f"{DAMAGED.prefix}{name.removesuffix('.json')}-{found.tag[:8]}.json"
    with suppress(ChangedError):  # it was kept there before
        store.objects.write(aside, found.data, None)
    return aside
