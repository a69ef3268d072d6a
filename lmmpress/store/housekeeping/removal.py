"""Removing a run: its state, its records, and the tensors and checkpoints that no other run uses.

What a run uses follows from the store alone. A history names the checkpoints that steps began and ended with. Records
name what they were computed from, and so lead to the checkpoints in between. A record that names nothing stays.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from lmmpress.errors import UserError
from lmmpress.printing.one_line import printable
from lmmpress.store.housekeeping.contents import (
    Faults,
    delete,
    manifests,
    records,
    refuse_while_anyone_works,
    states,
)
from lmmpress.store.housekeeping.garbage import refuse_what_is_unknown
from lmmpress.store.kinds import CHECKPOINTS, RECORDS, RUNS, TENSORS, stem
from lmmpress.store.manifest import Manifest
from lmmpress.store.objects import Blob
from lmmpress.store.pins import read_pins
from lmmpress.store.records import (
    APPROVAL,
    COMPARED,
    DISAGREEMENTS,
    DTYPE,
    ENDED,
    LINEAGE,
    RESULT,
    RUN,
    SPLITS,
    SUBMISSION,
    TRIED,
    UNCOMPARED,
    WARM,
    RunNote,
    Subjects,
    subjects_of,
)
from lmmpress.store.run_state import digests_of
from lmmpress.store.store import Store

_OF_A_RUN = (RUN, DTYPE, SPLITS, LINEAGE, ENDED, RESULT, COMPARED, UNCOMPARED, DISAGREEMENTS)
_SHORTEST = 4
"""The fewest characters of a run key: an empty variable in a script must not name a run."""


class Removal(BaseModel):
    """What is removed with a run: names in the order of their removal, and the bytes of blobs.

    `kept` are the checkpoints of the run that stay, each with the keys of the runs that use it. The list of keys is
    empty for a teacher that the run did not copy into the store.
    """

    run_key: str
    names: list[str]
    bytes: int
    kept: dict[str, list[str]]


def remove_run(store: Store, run_key: str, dry_run: bool, force: bool = False) -> Removal:
    """Remove the run whose key begins with `run_key`, and what no other run uses.

    UserError, and nothing is removed, where no run or several runs have such a key, while a process works on any run,
    or where an object cannot be read: it may name what others use. Also where something of it is pinned, unless that is
    to be removed by `force`. If a removal was cut off, the same call finishes it.
    """
    with store.cleaning() as lease:
        refuse_while_anyone_works(store)
        faults: Faults = []
        held = _Held(
            {stem(name): read.stored.history for name, read in states(store, faults)},
            {stem(name): record for name, record in records(store, faults)},
            dict(manifests(store, faults)),
        )
        refuse_what_is_unknown(store, faults)
        removal = _removal(held, _one_run(store, held, run_key))
        if not force:
            _refuse_what_is_pinned(store, removal)
        if not dry_run:
            delete(store, removal.names, lease)
        return removal


def _refuse_what_is_pinned(store: Store, removal: Removal) -> None:
    """UserError where somebody outside of the store still needs the run, or one of the checkpoints that go with it."""
    goes = {stem(name) for name in removal.names if CHECKPOINTS.has(name)}
    needed: dict[str, str] = {}
    try:
        for pin in read_pins(store.objects):
            if removal.run_key in pin.runs:
                needed[f"run {removal.run_key[:12]}"] = pin.runs[removal.run_key]
            needed |= {f"checkpoint {digest[:12]}": pin.checkpoints[digest] for digest in goes & pin.checkpoints.keys()}
    except UserError as error:
        raise UserError(f"{error}; nothing is removed; --force removes the run all the same") from None
    if needed:
        what, why = next(iter(sorted(needed.items(), reverse=True)))  # the run first, where it is needed itself
        more = f" (and {len(needed) - 1} more)" if len(needed) > 1 else ""
        raise UserError(
            f"{store.root_address}: {what} is still needed: {printable(why)}{more}; nothing is removed; --force "
            "removes the run all the same"
        )


@dataclass(frozen=True)
class _Held:
    """What a store holds: histories by run key, records by name, manifests by the names of their objects."""

    histories: dict[str, list[dict[str, Any]]]
    records: dict[str, dict[str, Any]]
    manifests: dict[str, Manifest]


@dataclass
class _Uses:
    """What one run uses: checkpoints, and splits of data; None where they are unknown, as in runs of older versions."""

    checkpoints: set[str]
    data: set[str] | None

    def cover(self, subjects: Subjects) -> bool:
        """Whether this run may use what was computed from these."""
        return self.checkpoints >= set(subjects.checkpoints) and (self.data is None or self.data >= set(subjects.data))


def _one_run(store: Store, held: _Held, run_key: str) -> str:
    if len(run_key) < _SHORTEST and run_key not in held.histories:
        raise UserError(f"{run_key!r} names no run: give its key, or {_SHORTEST} characters or more of its beginning")
    if run_key in held.histories:
        return run_key
    found = sorted(key for key in held.histories if key.startswith(run_key))
    if not found:
        raise UserError(f"{store.root_address} holds no run {run_key}")
    if len(found) > 1:
        raise UserError(
            f"{store.root_address}: {len(found)} runs begin with {run_key}: {', '.join(key[:16] for key in found[:5])}"
        )
    return found[0]


def _removal(held: _Held, key: str) -> Removal:
    uses = _uses(held)
    mine = uses.pop(key)
    users = {
        digest: [other for other, used in uses.items() if digest in used.checkpoints] for digest in mine.checkpoints
    }
    stays = {digest for digest, keys in users.items() if keys}
    note, teacher = _note(held, key), _teacher(held, key)
    if teacher and not (note and note.taken_in):
        stays.add(teacher)
    lost = mine.checkpoints - stays
    submissions = {name for name, record in held.records.items() if _submitted_for(name, record) == key}
    goes = {CHECKPOINTS.name(digest) for digest in lost} & held.manifests.keys()
    gone = [
        name
        for name, record in held.records.items()
        if name in (f"{kind}{key}" for kind in _OF_A_RUN)
        or name.startswith(f"{APPROVAL}{key}-")
        or name in submissions
        or (name.startswith(TRIED) and f"{SUBMISSION}{record.get('run')}" in submissions)
        or (name.startswith(WARM) and record.get("run_key") == key)
        or lost & _results(record)
        or (_is_of(record, mine) and not any(_is_of(record, other) for other in uses.values()))
    ]
    tensors = sorted(TENSORS.name(name) for name in gone if TENSORS.name(name) in held.manifests)
    blobs = _blobs(held, goes | set(tensors))
    # a submission goes after the notes of its tasks, which it leads to
    records = sorted(gone, key=lambda name: (name in submissions, name))
    names = [*sorted(goes), *tensors, *(RECORDS.name(name) for name in records)]
    kept = {digest: sorted(users[digest]) for digest in sorted(stays) if CHECKPOINTS.name(digest) in held.manifests}
    return Removal(
        run_key=key,
        # the state is removed last: while it is there, the same command finds what is left to remove
        names=[*names, *sorted(blob.name for blob in blobs), RUNS.name(key)],
        bytes=sum(blob.size for blob in blobs),
        kept=kept,
    )


def _uses(held: _Held) -> dict[str, _Uses]:
    """What each run uses."""
    made = [
        (subjects, result)
        for record in held.records.values()
        for result in _results(record)
        if (subjects := subjects_of(record))
    ]
    uses = {}
    for key, history in held.histories.items():
        note, teacher = _note(held, key), _teacher(held, key)
        named = {digest for step in history for digest in digests_of(step)} | ({teacher} if teacher else set())
        uses[key] = _Uses(named, set(note.data) if note else None)
        _add_sources(uses[key].checkpoints, [pair for pair in made if pair[1] != teacher])
    # no history leads to what an unfinished step has made: every run that could have made it may use it
    known = {digest for used in uses.values() for digest in used.checkpoints}
    for used in uses.values():
        _add_pending(used, [pair for pair in made if pair[1] not in known])
    return uses


def _add_sources(checkpoints: set[str], made: list[tuple[Subjects, str]]) -> None:
    """Add the checkpoints that those were made from, and the ones that these were made from, and so on."""
    while True:
        found = {source for of, result in made if result in checkpoints for source in of.checkpoints} - checkpoints
        if not found:
            return
        checkpoints |= found


def _add_pending(used: _Uses, made: list[tuple[Subjects, str]]) -> None:
    """Add the checkpoints that a run may have made, and the ones that it may have made from these, and so on."""
    while True:
        found = {result for of, result in made if used.cover(of)} - used.checkpoints
        if not found:
            return
        used.checkpoints |= found


def _results(record: dict[str, Any]) -> set[str]:
    """The checkpoint that a record names as made, if any."""
    return digests_of({"checkpoint": record.get("checkpoint")})


def _is_of(record: dict[str, Any], used: _Uses) -> bool:
    subjects = subjects_of(record)
    return subjects is not None and used.cover(subjects)


def _teacher(held: _Held, key: str) -> str | None:
    """The checkpoint that a run began with, if its record or its history names it."""
    if note := _note(held, key):
        return note.teacher
    first = next(iter(held.histories[key]), {})
    return next(iter(digests_of({"parent": first.get("parent")})), None)


def _note(held: _Held, key: str) -> RunNote | None:
    try:
        return RunNote.model_validate(held.records[f"{RUN}{key}"])
    except (KeyError, ValidationError):
        return None


def _submitted_for(name: str, record: dict[str, Any]) -> str | None:
    """The key of the run that a pipeline was submitted for, if this is the record of a submission."""
    if not name.startswith(SUBMISSION):
        return None
    try:
        submission = from_json(str(record.get("submission", "")))
    except ValueError:
        return None
    return str(submission["key"]) if isinstance(submission, dict) and "key" in submission else None


def _blobs(held: _Held, goes: set[str]) -> set[Blob]:
    """The blobs that only the manifests `goes` name."""
    going = {file.blob for name in goes for file in held.manifests[name].files.values()}
    staying = {
        file.sha256 for name, manifest in held.manifests.items() if name not in goes for file in manifest.files.values()
    }
    return {blob for blob in going if blob.sha256 not in staying}
