"""The state of a run: one small JSON object, changed by compare-and-swap.

Its history is the list of decisions; decisions are only ever added, and all else about the run follows from them. Its
lease says which process works on the run now. A lease that is not renewed in time is taken over by another process.
Times are those of the store's own clock, so no machine's clock has to be right.
"""

import json
import os
import re
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lmmpress.errors import UserError
from lmmpress.host.this_machine import machine as _host
from lmmpress.host.this_machine import started as _started
from lmmpress.printing.visible import visible
from lmmpress.progress import say
from lmmpress.result import StepResult
from lmmpress.store.manifest import first_fault
from lmmpress.store.objects import ChangedError, Found, Objects, UnreadableError

LEASE = 90.0  # seconds
DIGEST = re.compile("[0-9a-f]{64}")
_LONGEST = 3600.0  # seconds: lmmpress writes no lease that is longer


class Lease(BaseModel):
    """Which process works on a run, or several processes under one `holder`.

    `host` and `pid` identify a process of this machine, `started` distinguishes it from a later one with the same pid.
    `beat` counts the renewals. The lease ends `seconds` after the last one.
    """

    model_config = ConfigDict(extra="forbid")

    holder: str
    host: str
    pid: Annotated[int, Field(gt=0, lt=2**31)]
    started: str
    beat: Annotated[int, Field(ge=0, lt=2**62)] = 0
    seconds: Annotated[float, Field(gt=0, le=_LONGEST)]

    @property
    def machine(self) -> str:
        """The name of the holder's machine, safe to print."""
        return visible((self.host.split() or ["somebody"])[0][:80])


class StoredState(BaseModel):
    """A state as the store holds it, in one JSON object."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    history: list[dict[str, Any]] = []
    lease: Lease | None = None


@dataclass(frozen=True)
class StateRead:
    """A state, and the object that it was read from: None where there is none yet."""

    stored: StoredState
    found: Found | None

    @property
    def tag(self) -> str | None:
        """What `Objects.write` replaces this state by."""
        return self.found.tag if self.found else None


class HeldError(UserError):
    """Another process holds the lease of a state."""


class RunState:
    """The state of a run, under a lease that this process holds until `hold` ends."""

    def __init__(self, objects: Objects, name: str, lease: Lease) -> None:
        self._objects, self._name, self._lease = objects, name, lease

    def history(self) -> list[dict[str, Any]]:
        """All decisions so far, oldest first."""
        return self._mine().stored.history

    def decide(self, number: int, decision: dict[str, Any]) -> dict[str, Any]:
        """Add the decision with that number, counted from 0, unless there is one; the decision that has it now.

        Raises UserError where another process has taken over the run, or where earlier decisions are missing.
        """
        decision = json.loads(json.dumps(decision))
        while True:
            read = self._mine()
            history = read.stored.history
            if number < len(history):
                return history[number]
            if number > len(history):
                raise UserError(f"{self._objects.address}: {self._name} has {len(history)} steps, not {number}")
            history.append(decision)
            try:
                write_state(self._objects, self._name, read)
                return decision
            except ChangedError:
                continue

    def renew(self) -> None:
        """Renew the lease; UserError where another process has taken it over."""
        while True:
            read = self._mine()
            assert read.stored.lease is not None
            read.stored.lease.beat += 1
            try:
                return write_state(self._objects, self._name, read)
            except ChangedError:
                continue

    def release(self) -> None:
        """Give the lease back, so that another process can take it at once."""
        while True:
            read = read_state(self._objects, self._name)
            if read.stored.lease is None or read.stored.lease.holder != self._lease.holder:
                return
            read.stored.lease = None
            try:
                return write_state(self._objects, self._name, read)
            except ChangedError:
                continue

    def _mine(self) -> StateRead:
        read = read_state(self._objects, self._name)
        if read.stored.lease is None or read.stored.lease.holder != self._lease.holder:
            raise UserError(
                f"{self._objects.address}: another process has taken over this run, because this process did not renew "
                f"its lease for {self._lease.seconds:.0f} s; nothing is lost: carry on with --resume when the other "
                "process has ended"
            )
        return read


def digests_of(step: dict[str, Any]) -> set[str]:
    """The checkpoints that a decision names: the one that the step started from, and the one that it made."""
    named = (step.get("parent"), step.get("checkpoint"))
    return {digest for digest in named if isinstance(digest, str) and DIGEST.fullmatch(digest)}


def step_of(entry: dict[str, Any]) -> StepResult:
    """A decision as the result of a step, without an address; ValueError where it cannot be one."""
    step = StepResult.model_validate(entry | {"address": None})
    for digest in (step.parent, step.checkpoint):
        if digest is not None and not DIGEST.fullmatch(digest):
            raise ValueError("a checkpoint is named by its digest")
    return step


def read_state(objects: Objects, name: str) -> StateRead:
    """The state of that name; a new one where there is none.

    UnreadableError where the object is not a state. The content of decisions is not checked here: `step_of` does that.
    """
    found = objects.read(name)
    if found is None:
        return StateRead(StoredState(), None)
    try:
        return StateRead(StoredState.model_validate_json(found.data), found)
    except ValidationError as error:
        fault = f"is no state that this lmmpress can read: {first_fault(error)}"
        raise UnreadableError(objects.address, name, fault) from None


def is_live(objects: Objects, read: StateRead) -> bool:
    """Whether a process may be working on it: its lease has not run out, and it has not ended on this machine."""
    lease = read.stored.lease
    if lease is None or read.found is None or _ended_here(lease):
        return False
    # abs: a time far in the future comes from a wrong clock, and would hold the run for ever
    return abs(objects.now() - read.found.modified) < lease.seconds


@contextmanager
def hold(
    objects: Objects, name: str, seconds: float = LEASE, holder: str | None = None, wait: bool = True
) -> Iterator[RunState]:
    """Take the lease of a state, renew it while the block runs, and give it back.

    Raises HeldError where another process holds the lease and renews it. If it does not renew it, this waits until the
    lease has run out; without `wait`, HeldError is raised at once. The lease of a process that has ended on this
    machine is taken at once.

    Several processes may work one after the other under one `holder`. Each takes the lease from the one before, and
    does not give it back, so that no other process can take it between two of them. The last one gives it back with
    `RunState.release`.
    """
    state = _take(objects, name, _new_lease(seconds, holder), wait)
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(seconds / 3):
            with suppress(Exception):  # the lease is lost, or the store out of reach: the next decision will fail then
                state.renew()

    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield state
    finally:
        ended.set()
        thread.join(timeout=1)
        with suppress(UserError, OSError):  # the lease runs out by itself; an error of the block must not be hidden
            state.release() if holder is None else state.renew()


def _take(objects: Objects, name: str, mine: Lease, wait: bool) -> RunState:
    waited_for: tuple[str, int] | None = None
    while True:
        read = read_state(objects, name)
        lease = read.stored.lease
        if lease is not None and read.found is not None and lease.holder != mine.holder and is_live(objects, read):
            seen = (lease.holder, lease.beat)
            if not wait or _runs_here(lease) or (waited_for is not None and waited_for != seen):
                raise HeldError(
                    f"{objects.address}: another process works on this run ({lease.machine}, process {lease.pid}); "
                    "wait for it or end it"
                )
            left = max(0.1, lease.seconds - (objects.now() - read.found.modified))
            if waited_for is None:
                say(f"{lease.machine} still holds the lease of this run; waiting {left:.0f} s for it to run out")
            waited_for = seen
            time.sleep(min(left, lease.seconds / 6))
            continue
        read.stored.lease = mine
        try:
            write_state(objects, name, read)
            return RunState(objects, name, mine)
        except ChangedError:
            continue


def write_state(objects: Objects, name: str, read: StateRead) -> None:
    """Store a state that was changed since it was read; ChangedError where another has changed it too."""
    objects.write(name, read.stored.model_dump_json(indent=1).encode(), read.tag)


def _new_lease(seconds: float, holder: str | None) -> Lease:
    pid = os.getpid()
    return Lease(holder=holder or uuid.uuid4().hex, host=_host(), pid=pid, started=_started(pid), seconds=seconds)


def _ended_here(lease: Lease) -> bool:
    """Whether the holder was a process of this machine that has certainly ended."""
    if lease.host != _host():
        return False
    try:
        os.kill(lease.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # the process of another user: it is there
        return False
    return _started(lease.pid) != lease.started


def _runs_here(lease: Lease) -> bool:
    return lease.host == _host() and not _ended_here(lease)
