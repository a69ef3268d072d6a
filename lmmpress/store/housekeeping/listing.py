"""What a store holds."""

from typing import Any

from pydantic import BaseModel

from lmmpress.errors import UserError
from lmmpress.store.housekeeping.contents import Fault, Faults, entries, manifests, states
from lmmpress.store.kinds import BLOBS, CHECKPOINTS, RECORDS, TENSORS, stem
from lmmpress.store.run_state import StateRead, digests_of, is_live
from lmmpress.store.store import Store


class RunListing(BaseModel):
    """A run in a store: its decisions, and the machine that works on it now, if any."""

    run_key: str
    working: str | None
    steps: list[dict[str, Any]]


class CheckpointListing(BaseModel):
    """A checkpoint in a store. `own_bytes` counts the files that no checkpoint before it in the list has."""

    digest: str
    files: int
    bytes: int
    own_bytes: int


class Listing(BaseModel):
    """What a store holds. `damaged`: states and manifests that cannot be read; only `verify` checks all objects."""

    runs: list[RunListing]
    checkpoints: list[CheckpointListing]
    tensors: int
    records: int
    blobs: int
    bytes: int
    damaged: list[Fault]


def list_store(store: Store, run_key: str | None = None) -> Listing:
    """What a store holds; only of one run where its key, or the beginning of the key, is given."""
    damaged: Faults = []
    runs = [
        RunListing(
            run_key=stem(name),
            working=_worker(store, read),
            steps=read.stored.history,
        )
        for name, read in states(store, damaged)
        if run_key is None or stem(name).startswith(run_key)
    ]
    if run_key is not None and not runs:
        raise UserError(f"{store.root_address} holds no run {run_key}")
    named = {digest for run in runs for step in run.steps for digest in digests_of(step)}
    checkpoints, seen = [], set[str]()
    for name, manifest in manifests(store, damaged):
        if not CHECKPOINTS.has(name) or (run_key is not None and stem(name) not in named):
            continue
        new = {file.sha256: file.size for file in manifest.files.values() if file.sha256 not in seen}
        seen |= new.keys()
        checkpoints.append(
            CheckpointListing(
                digest=stem(name), files=len(manifest.files), bytes=manifest.size, own_bytes=sum(new.values())
            )
        )
    blobs = entries(store, BLOBS)
    return Listing(
        runs=runs,
        checkpoints=checkpoints,
        tensors=len(entries(store, TENSORS)),
        records=len(entries(store, RECORDS)),
        blobs=len(blobs),
        bytes=sum(blob.size for blob in blobs),
        damaged=damaged,
    )


def _worker(store: Store, read: StateRead) -> str | None:
    """The machine of the process that works on a run now, if any."""
    lease = read.stored.lease
    return lease.machine if lease and is_live(store.objects, read) else None
