"""What a store holds, whether it still holds it, what nobody names any more, and copies from store to store."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lmmpress.errors import UserError
from lmmpress.progress import transfer
from lmmpress.store.objects import Blob, ChangedError, DamagedError, Entry, MissingError
from lmmpress.store.parallel import each
from lmmpress.store.state import Run, digests_of, is_live, read_state
from lmmpress.store.store import Manifest, Store, parse_manifest

_COPIES = "copies/"
_TICK = 1.0  # seconds: servers tell the time no finer


class RunListing(BaseModel):
    """A run in a store: its decisions, and the process that works on it now if any."""

    run_key: str
    working: str | None
    steps: list[dict[str, Any]]


class CheckpointListing(BaseModel):
    """A checkpoint in a store; `own_bytes` are those of files that no other checkpoint listed before it has."""

    digest: str
    files: int
    bytes: int
    own_bytes: int


class Listing(BaseModel):
    """What a store holds."""

    runs: list[RunListing]
    checkpoints: list[CheckpointListing]
    tensors: int
    records: int
    blobs: int
    bytes: int


class Fault(BaseModel):
    """Something in a store that is not what it should be, and the names of what needs it."""

    name: str
    fault: str
    needed_by: list[str]


@dataclass(frozen=True)
class Garbage:
    """What nothing names: blobs and half-written uploads older than the grace period."""

    entries: list[Entry]
    spared: int  # as unnamed, but younger

    @property
    def bytes(self) -> int:
        return sum(entry.size for entry in self.entries)


class Moved(BaseModel):
    """What a copy has done: where the checkpoints are now, bytes that were sent, and bytes that were there already."""

    addresses: list[str]
    sent: int
    there: int


def list_store(store: Store, run_key: str | None = None) -> Listing:
    """What a store holds; of one run only where its key, or the beginning of it, is given."""
    runs = [run for run in _runs(store) if run_key is None or run.run_key.startswith(run_key)]
    if run_key is not None and not runs:
        raise UserError(f"{store.root_address} holds no run {run_key}")
    named = {digest for run in runs for step in run.steps for digest in digests_of(step)}
    checkpoints, seen = [], set[str]()
    for entry in _entries(store, "checkpoints/"):
        digest = _stem(entry.name)
        if run_key is not None and digest not in named:
            continue
        manifest = store.manifest(digest)
        new = {file.sha256: file.size for file in manifest.files.values() if file.sha256 not in seen}
        seen |= new.keys()
        checkpoints.append(
            CheckpointListing(
                digest=digest, files=len(manifest.files), bytes=manifest.size, own_bytes=sum(new.values())
            )
        )
    blobs = _entries(store, "blobs/")
    return Listing(
        runs=runs,
        checkpoints=checkpoints,
        tensors=len(_entries(store, "tensors/")),
        records=len(_entries(store, "records/")),
        blobs=len(blobs),
        bytes=sum(blob.size for blob in blobs),
    )


def verify_store(store: Store) -> list[Fault]:
    """Every fault of a store: blobs that are missing or no longer match their names, manifests, records and states that
    cannot be read, and whatever names a checkpoint that is gone. All bytes are read."""
    faults: list[Fault] = []
    needed: dict[Blob, list[str]] = {}
    whole: set[str] = set()
    for name, manifest in _manifests(store, faults):
        whole.add(_stem(name))
        for file in manifest.files.values():
            needed.setdefault(file.blob, []).append(name)
    for record, digest in _records(store, faults):
        if digest and digest not in whole:
            faults.append(Fault(name=f"checkpoints/{digest}.json", fault="is missing", needed_by=[record]))
    for run in _runs(store, faults):
        for digest in sorted({digest for step in run.steps for digest in digests_of(step)} - whole):
            needs = [f"runs/{run.run_key}.json"]
            faults.append(Fault(name=f"checkpoints/{digest}.json", fault="is missing", needed_by=needs))
    named = {blob.name for blob in needed}
    unnamed = (entry for entry in _entries(store, "blobs/") if entry.name not in named)
    blobs = [*needed, *(Blob(_stem(entry.name), entry.size) for entry in unnamed)]

    def check(blob: Blob) -> Fault | None:
        try:
            store.objects.check(blob)
        except (DamagedError, MissingError, OSError) as error:
            why = {MissingError: "is missing", DamagedError: str(error).partition(": ")[2]}.get(type(error), str(error))
            return Fault(name=blob.name, fault=why, needed_by=needed.get(blob, []))
        finally:
            advance(blob.size)
        return None

    with transfer("verifying", sum(blob.size for blob in blobs)) as advance:
        faults += [fault for fault in each(check, blobs) if fault]
    return sorted(faults, key=lambda fault: fault.name)


def discard_faults(store: Store) -> tuple[list[Fault], list[str]]:
    """Verify a store that nobody works on, and remove what is damaged and what needs it; its steps are made anew when a
    run is carried on. What was found, and the names that were removed.

    A history is never cut: a run that speaks of what is lost goes as a whole, and is made again of the records.
    """
    with store.cleaning() as lease:
        _refuse_while_anyone_works(store)
        faults = verify_store(store)
        names = {name for fault in faults for name in (fault.name, *fault.needed_by)}
        lost = {_stem(name) for name in names if name.startswith(("checkpoints/", "tensors/"))}
        for record, digest in _records(store, []):
            if digest in lost or _stem(record) in lost:
                names.add(record)
        for run in _runs(store, []):
            if lost & {digest for step in run.steps for digest in digests_of(step)}:
                names.add(f"runs/{run.run_key}.json")
        # what speaks of others goes before them, so that being killed here leaves nothing that names what is gone
        order = ("runs/", "records/", "checkpoints/", "tensors/", "blobs/")
        names_in_order = sorted(names, key=lambda name: (order.index(f"{name.split('/')[0]}/"), name))
        _delete(store, names_in_order, lease)
    return faults, names_in_order


def collect_garbage(store: Store, grace: float, dry_run: bool) -> Garbage:
    """Remove the blobs that no manifest names and the uploads that nobody ended, older than `grace` seconds.

    UserError, and nothing is removed, while any run is worked on or where a manifest cannot be read.
    """
    with store.cleaning() as lease:
        _refuse_while_anyone_works(store)
        listed = _entries(store, "blobs/")
        faults: list[Fault] = []
        named = {file.blob.name for _, manifest in _manifests(store, faults) for file in manifest.files.values()}
        if faults:
            raise UserError(
                f"{store.root_address}: {faults[0].name} {faults[0].fault}; what it names is unknown, so "
                "nothing is removed"
            )
        unnamed = [entry for entry in [*listed, *store.objects.leftovers()] if entry.name not in named]
        now = store.objects.now() + _TICK
        old = [entry for entry in unnamed if now - entry.modified >= grace]
        if not dry_run:
            _delete(store, [entry.name for entry in old], lease)
        return Garbage(old, spared=len(unnamed) - len(old))


def copy_store(source: Store, target: Store) -> Moved:
    """Copy all of a store into another.

    Blobs go first, then the manifests that name them, then records and runs. A run that the target knows with other
    decisions is a UserError.
    """
    manifests = list(_manifests(source))
    with _copying(target):
        sent, there = _copy_blobs(source, target, [manifest for _, manifest in manifests])
        for name, _ in manifests:
            _copy_object(source, target, name)
        for entry in _entries(source, "records/"):
            _copy_object(source, target, entry.name)
        for run in _runs(source):
            _copy_run(source, target, f"runs/{run.run_key}.json")
    digests = [_stem(name) for name, _ in manifests if name.startswith("checkpoints/")]
    return Moved(addresses=[target.address(digest) for digest in digests], sent=sent, there=there)


def copy_checkpoint(directory: Path, target: Store) -> Moved:
    """Copy one checkpoint, from wherever it was opened, into a store."""
    with _copying(target):
        before = {entry.name for entry in _entries(target, "blobs/")}
        digest = target.add_checkpoint(directory)
    files = {file.blob for file in target.manifest(digest).files.values()}
    sent = sum(blob.size for blob in files if blob.name not in before)
    return Moved(addresses=[target.address(digest)], sent=sent, there=sum(blob.size for blob in files) - sent)


@contextmanager
def _copying(target: Store) -> Iterator[None]:
    """Keep whoever cleans up away while blobs are there that no manifest names yet."""
    name = f"{_COPIES}{uuid.uuid4().hex}.json"
    with target.working(name):
        yield
    target.objects.delete(name)


def _copy_blobs(source: Store, target: Store, manifests: list[Manifest]) -> tuple[int, int]:
    """Bytes that were sent, and bytes that were there."""
    blobs = list({file.blob: None for manifest in manifests for file in manifest.files.values()})
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
    return sent, sum(blob.size for blob in blobs) - sent


def _copy_object(source: Store, target: Store, name: str) -> None:
    found = source.objects.read(name)
    if found is not None:
        with suppress(ChangedError):  # names are made from inputs: what stands there answers the same question
            target.objects.write(name, found.data, None)


def _copy_run(source: Store, target: Store, name: str) -> None:
    theirs, _ = read_state(source.objects, name)
    while True:
        ours, found = read_state(target.objects, name)
        common = min(len(ours.history), len(theirs.history))
        if ours.history[:common] != theirs.history[:common]:
            raise UserError(f"{target.root_address}: {name} has other decisions than that of {source.root_address}")
        if len(theirs.history) <= len(ours.history):
            return
        ours.history = theirs.history
        try:
            target.objects.write(name, ours.model_dump_json(indent=1).encode(), found.tag if found else None)
            return
        except ChangedError:
            continue


def _delete(store: Store, names: list[str], lease: Run) -> None:
    """Remove objects while the lease is ours: a process that was asleep must not go on where others work by now."""
    for number, name in enumerate(names):
        if number % 20 == 0:
            lease.renew()
        store.objects.delete(name)


def _refuse_while_anyone_works(store: Store) -> None:
    for entry in [*_entries(store, "runs/"), *_entries(store, _COPIES)]:
        try:
            state, found = read_state(store.objects, entry.name)
        except UserError:  # what cannot be read, nobody works on
            continue
        if is_live(store.objects, state, found) and state.lease:
            raise UserError(
                f"{store.root_address}: {state.lease.machine} works on {entry.name}; nothing is removed meanwhile"
            )
        if entry.name.startswith(_COPIES):  # of a copy that was killed
            store.objects.delete(entry.name)


def _runs(store: Store, faults: list[Fault] | None = None) -> Iterator[RunListing]:
    for entry in _entries(store, "runs/"):
        try:
            state, found = read_state(store.objects, entry.name)
        except UserError as error:
            if faults is None:
                raise
            faults.append(Fault(name=entry.name, fault=str(error).rpartition(" is ")[2], needed_by=[]))
            continue
        working = state.lease.machine if state.lease and is_live(store.objects, state, found) else None
        yield RunListing(run_key=_stem(entry.name), working=working, steps=state.history)


def _records(store: Store, faults: list[Fault]) -> Iterator[tuple[str, str | None]]:
    """All records by their names, with the checkpoint that each names; those that cannot be read are faults."""
    for entry in _entries(store, "records/"):
        try:
            record = store.read_record(_stem(entry.name)) or {}
        except UserError:
            faults.append(Fault(name=entry.name, fault="is no record", needed_by=[]))
            continue
        yield entry.name, next(iter(digests_of({"checkpoint": record.get("checkpoint")})), None)


def _manifests(store: Store, faults: list[Fault] | None = None) -> Iterator[tuple[str, Manifest]]:
    """All manifests by their names; one that cannot be read is a fault where these are collected, else a UserError."""
    for entry in [*_entries(store, "checkpoints/"), *_entries(store, "tensors/")]:
        found = store.objects.read(entry.name)
        try:
            manifest = parse_manifest(found.data if found else b"", f"{store.root_address}: {entry.name}")
            if entry.name.startswith("checkpoints/") and manifest.digest != _stem(entry.name):
                raise UserError(f"{store.root_address}: {entry.name} lists files of another checkpoint")
        except UserError as error:
            if faults is None:
                raise
            faults.append(Fault(name=entry.name, fault=str(error).partition(entry.name)[2].strip(), needed_by=[]))
            continue
        yield entry.name, manifest


def _entries(store: Store, prefix: str) -> list[Entry]:
    return list(store.objects.entries(prefix))


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1].removesuffix(".json")
