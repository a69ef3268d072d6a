"""What is known of a run: one small JSON object, changed by compare-and-swap.

Its history is a list of decisions that is only ever added to; everything else about the run follows from it. A lease
says which process works on the run now; one that was not renewed for its time is taken over. Times are told by the
store's own clock, so no machine's clock need be right.
"""

import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lmmpress.errors import UserError
from lmmpress.printing.visible import visible
from lmmpress.progress import say
from lmmpress.result import StepResult
from lmmpress.store.manifest import first_fault
from lmmpress.store.objects import ChangedError, Found, Objects, UnreadableError

LEASE = 90.0  # seconds
DIGEST = re.compile("[0-9a-f]{64}")
_LONGEST = 3600.0  # seconds: what claims a run for longer was not written by lmmpress


class Lease(BaseModel):
    """Who works on it: `host` and `pid` tell processes of this machine from others. Each renewal counts `beat` up.

    The bounds are those of a process's number and of a time that somebody may be waited for.
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
        """The name of the holder's machine, fit to be printed."""
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


class RunState:
    """The state of a run, held under a lease by this process until `hold` ends."""

    def __init__(self, objects: Objects, name: str, lease: Lease) -> None:
        self._objects, self._name, self._lease = objects, name, lease

    def history(self) -> list[dict[str, Any]]:
        """Every decision so far, oldest first."""
        return self._mine().stored.history

    def decide(self, number: int, decision: dict[str, Any]) -> dict[str, Any]:
        """Add the decision with that number, counted from 0; what stands at that number then, be it another's.

        Raises UserError where another process has taken over the run, or decisions before this one are missing.
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
        """Say that this process still works; UserError where another has taken over."""
        while True:
            read = self._mine()
            assert read.stored.lease is not None
            read.stored.lease.beat += 1
            try:
                return write_state(self._objects, self._name, read)
            except ChangedError:
                continue

    def release(self) -> None:
        """Let others have it at once."""
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
                f"{self._objects.address}: another process has taken over this run, because this one was silent for "
                f"{self._lease.seconds:.0f} s; nothing of it is lost, carry on with --resume when that one has ended"
            )
        return read


def digests_of(step: dict[str, Any]) -> set[str]:
    """The checkpoints that a decision names: the one it started from, and the one it made."""
    named = (step.get("parent"), step.get("checkpoint"))
    return {digest for digest in named if isinstance(digest, str) and DIGEST.fullmatch(digest)}


def step_of(entry: dict[str, Any]) -> StepResult:
    """A decision as the record that a run makes of each step, without an address; ValueError where it is none."""
    step = StepResult.model_validate(entry | {"address": None})
    for digest in (step.parent, step.checkpoint):
        if digest is not None and not DIGEST.fullmatch(digest):
            raise ValueError("a checkpoint is named by its digest")
    return step


def read_state(objects: Objects, name: str) -> StateRead:
    """The state of that name; a new one where there is none.

    UnreadableError where it is none. What its decisions say is not looked at: `step_of` does that.
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
    """Whether a process may be working on it now."""
    lease = read.stored.lease
    if lease is None or read.found is None or _ended_here(lease):
        return False
    # neither way: a time that lies far ahead comes from another clock, and would hold the run for ever
    return abs(objects.now() - read.found.modified) < lease.seconds


@contextmanager
def hold(objects: Objects, name: str, seconds: float = LEASE, holder: str | None = None) -> Iterator[RunState]:
    """Take the lease of that state, renew it while the block runs, and give it back.

    Where another process holds it and is heard of, UserError; one that stays silent is waited for until its lease has
    run out. The lease of a process that ended on this machine is taken at once. A `holder` is whom several processes
    work for, one after the other: each takes the lease from the one before, and leaves it to run out, so that nobody
    comes between two of them. The last of them gives it back with `RunState.release`.
    """
    state = _take(objects, name, _new_lease(seconds, holder))
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(seconds / 3):
            with suppress(Exception):  # lost, or out of reach for now: the next decision tells which
                state.renew()

    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield state
    finally:
        ended.set()
        thread.join(timeout=1)
        with suppress(UserError, OSError):  # it runs out by itself, and what ended the block is what counts
            state.release() if holder is None else state.renew()


def _take(objects: Objects, name: str, mine: Lease) -> RunState:
    waited_for: tuple[str, int] | None = None
    while True:
        read = read_state(objects, name)
        lease = read.stored.lease
        if lease is not None and read.found is not None and lease.holder != mine.holder and is_live(objects, read):
            seen = (lease.holder, lease.beat)
            if _runs_here(lease) or (waited_for is not None and waited_for != seen):
                raise UserError(
                    f"{objects.address}: another process works on this run ({lease.machine}, process {lease.pid}); "
                    "wait for it or end it"
                )
            left = max(0.1, lease.seconds - (objects.now() - read.found.modified))
            if waited_for is None:
                say(f"{lease.machine} has not given this run back; waiting {left:.0f} s for its lease")
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


def _host() -> str:
    """This machine since it was started, or this container of it: where the numbers of processes mean the same."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _started(pid: int) -> str:
    """When a process was started, in ticks since the machine was; empty where that cannot be told, or it has ended."""
    try:
        # what follows the name of the program, which is in brackets and may hold anything
        state, *fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state == "Z" else fields[18]


def _ended_here(lease: Lease) -> bool:
    """Whether the holder was a process of this machine and has certainly ended."""
    if lease.host != _host():
        return False
    try:
        os.kill(lease.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # somebody else's: it is there
        return False
    return _started(lease.pid) != lease.started


def _runs_here(lease: Lease) -> bool:
    return lease.host == _host() and not _ended_here(lease)
