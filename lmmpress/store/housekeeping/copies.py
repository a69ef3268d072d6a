"""Copies from store to store, and of one checkpoint into a store."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from lmmpress.errors import UserError
from lmmpress.files.allow_list import choose
from lmmpress.progress import transfer
from lmmpress.store.housekeeping.contents import entries, manifests, states
from lmmpress.store.kinds import (
    ACTS,
    BLOBS,
    CHECKPOINTS,
    CLAIMS,
    COMPARISONS,
    COPIES,
    NOTICES,
    ONLINE,
    RECORDS,
    SERVING,
    stem,
)
from lmmpress.store.manifest import Manifest
from lmmpress.store.objects import ChangedError, DamagedError, MissingError
from lmmpress.store.run_state import read_state, write_state
from lmmpress.store.store import Store

OF_THE_TRIGGER = (CLAIMS, ACTS, SERVING, COMPARISONS, ONLINE, NOTICES)
"""The kinds of objects that the trigger needs again in another store. Hints live for minutes; pins are about this store
alone."""


class Moved(BaseModel):
    """What a copy did: addresses of the checkpoints in the target, bytes sent, bytes that were there already, and how
    many objects of the trigger were written."""

    addresses: list[str]
    sent: int
    there: int
    of_the_trigger: int = 0


@dataclass(frozen=True)
class _Copied:
    """Bytes that were sent, and bytes that the target had already."""

    sent: int
    there: int


def copy_store(source: Store, target: Store, with_trigger: bool = False) -> Moved:
    """Copy all of a store into another; what the trigger has written down only `with_trigger`.

    Blobs go first, then the manifests that name them, then records and states of runs. UserError where the target has
    the same run with other decisions; and before anything is copied, where it has a newer object of the trigger.
    """
    listed, runs = list(manifests(source)), list(states(source))
    with _copying(target):
        told = list(_told(source, target)) if with_trigger else []
        copied = _copy_blobs(source, target, [manifest for _, manifest in listed])
        for name, _ in listed:
            _copy_object(source, target, name)
        for entry in entries(source, RECORDS):
            _copy_object(source, target, entry.name)
        for name, _ in runs:
            _copy_run(source, target, name)
        _write_told(target, told)
    digests = [stem(name) for name, _ in listed if CHECKPOINTS.has(name)]
    addresses = [target.address(digest) for digest in digests]
    return Moved(addresses=addresses, sent=copied.sent, there=copied.there, of_the_trigger=len(told))


def copy_checkpoint(directory: Path, target: Store) -> Moved:
    """Copy the checkpoint in a directory into a store."""
    with _copying(target):
        before = {entry.name for entry in entries(target, BLOBS)}
        digest = target.add_checkpoint(directory)
    files = {file.blob for file in target.manifest(digest).files.values()}
    sent = sum(blob.size for blob in files if blob.name not in before)
    return Moved(addresses=[target.address(digest)], sent=sent, there=sum(blob.size for blob in files) - sent)


def refuse_no_checkpoint(directory: Path) -> None:
    """UserError where a directory holds no checkpoint that could be copied."""
    if not choose(directory).weights:
        raise UserError(f"{directory} is no checkpoint: it has no safetensors weights")


@contextmanager
def _copying(target: Store) -> Iterator[None]:
    """Keep housekeeping away while the target has blobs that no manifest names yet."""
    name = COPIES.name(uuid.uuid4().hex)
    try:
        with target.working(name):
            yield
    finally:
        with suppress(UserError, OSError):  # the next housekeeping removes it
            target.objects.delete(name)


def _copy_blobs(source: Store, target: Store, listed: list[Manifest]) -> _Copied:
    blobs = list({file.blob: None for manifest in listed for file in manifest.files.values()})
    sent = 0
    with transfer("copying", sum(blob.size for blob in blobs)) as advance, source.scratch() as folder:
        for blob in blobs:
            if target.objects.holds(blob):
                advance(blob.size)
                continue
            path = folder / blob.sha256
            try:
                source.objects.fetch(blob, path, lambda _: None)
                target.objects.send(path, blob, advance)
            except (DamagedError, MissingError) as error:
                raise UserError(f"{source.root_address}: {error}; `lmmpress store verify` lists all such") from None
            path.unlink()
            sent += blob.size
    return _Copied(sent, sum(blob.size for blob in blobs) - sent)


def _copy_object(source: Store, target: Store, name: str) -> None:
    found = source.objects.read(name)
    if found is not None:
        with suppress(ChangedError):  # names are computed from inputs: the target has the same result already
            target.objects.write(name, found.data, None)


def _copy_run(source: Store, target: Store, name: str) -> None:
    theirs = read_state(source.objects, name).stored.history
    while True:
        read = read_state(target.objects, name)
        ours = read.stored.history
        common = min(len(ours), len(theirs))
        if ours[:common] != theirs[:common]:
            raise UserError(f"{target.root_address}: {name} has other decisions than that of {source.root_address}")
        if len(theirs) <= len(ours):
            return
        read.stored.history = theirs
        try:
            write_state(target.objects, name, read)
            return
        except ChangedError:
            continue


def _told(source: Store, target: Store) -> Iterator[tuple[str, bytes, str | None]]:
    """What the trigger has written down in the source and the target lacks: name, bytes, and what they replace."""
    for name in (entry.name for kind in OF_THE_TRIGGER for entry in entries(source, kind)):
        theirs, ours = source.objects.read(name), target.objects.read(name)
        if theirs is None or (ours is not None and ours.data == theirs.data):
            continue
        if ours is not None and ours.modified >= theirs.modified:
            raise UserError(
                f"{target.root_address} has a newer {name} than {source.root_address}, so nothing was copied; is this "
                "the right way round? If it is, remove that one first"
            )
        yield name, theirs.data, ours.tag if ours else None


def _write_told(target: Store, told: list[tuple[str, bytes, str | None]]) -> None:
    for name, data, tag in told:
        try:
            target.objects.write(name, data, tag)
        except ChangedError:
            raise UserError(
                f"{target.root_address}: somebody has just changed {name}: stop the trigger there"
            ) from None
