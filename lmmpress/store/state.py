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


class State(BaseModel):
    """What is stored."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    history: list[dict[str, Any]] = []
    lease: Lease | None = None


class Run:
    """A run's state, held under a lease by this process until `hold` ends."""

    def __init__(self, objects: Objects, name: str, lease: Lease) -> None:
        self._objects, self._name, self._lease = objects, name, lease

    def history(self) -> list[dict[str, Any]]:
        """Every decision so far, oldest first."""
        return self._mine()[0].history

    def decide(self, number: int, decision: dict[str, Any]) -> dict[str, Any]:
        """Add the decision with that number, counted from 0; what stands at that number then, be it another's.

        Raises UserError where another process has taken over the run, or decisions before this one are missing.
        """
        decision = json.loads(json.dumps(decision))
        while True:
            state, found = self._mine()
            if number < len(state.history):
                return state.history[number]
            if number > len(state.history):
                raise UserError(f"{self._objects.address}: {self._name} has {len(state.history)} steps, not {number}")
            state.history.append(decision)
            try:
                _write(self._objects, self._name, state, found)
                return decision
            except ChangedError:
                continue

    def renew(self) -> None:
        """Say that this process still works; UserError where another has taken over."""
        while True:
            state, found = self._mine()
            assert state.lease is not None
            state.lease.beat += 1
            try:
                return _write(self._objects, self._name, state, found)
            except ChangedError:
                continue

    def release(self) -> None:
        """Let others have it at once."""
        while True:
            state, found = read_state(self._objects, self._name)
            if state.lease is None or state.lease.holder != self._lease.holder:
                return
            state.lease = None
            try:
                return _write(self._objects, self._name, state, found)
            except ChangedError:
                continue

    def _mine(self) -> tuple[State, Found | None]:
        state, found = read_state(self._objects, self._name)
        if state.lease is None or state.lease.holder != self._lease.holder:
            raise UserError(
                f"{self._objects.address}: another process has taken over this run, because this one was silent for "
                f"{self._lease.seconds:.0f} s; nothing of it is lost, carry on with --resume when that one has ended"
            )
        return state, found


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


def read_state(objects: Objects, name: str) -> tuple[State, Found | None]:
    """The state of that name, a new one where there is none, and what it was read of.

    UnreadableError where it is none. What its decisions say is not looked at: `step_of` does that.
    """
    found = objects.read(name)
    if found is None:
        return State(), None
    try:
        return State.model_validate_json(found.data), found
    except ValidationError as error:
        fault = f"is no state that this lmmpress can read: {first_fault(error)}"
        raise UnreadableError(objects.address, name, fault) from None


def is_live(objects: Objects, state: State, found: Found | None) -> bool:
    """Whether a process may be working on it now."""
    if state.lease is None or found is None or _ended_here(state.lease):
        return False
    # neither way: a time that lies far ahead comes from another clock, and would hold the run for ever
    return abs(objects.now() - found.modified) < state.lease.seconds


@contextmanager
def hold(objects: Objects, name: str, seconds: float = LEASE, holder: str | None = None) -> Iterator[Run]:
    """Take the lease of that state, renew it while the block runs, and give it back.

    Where another process holds it and is heard of, UserError; one that stays silent is waited for until its lease has
    run out. The lease of a process that ended on this machine is taken at once. A `holder` is whom several processes
    work for, one after the other: each takes the lease from the one before, and leaves it to run out, so that nobody
    comes between two of them. The last of them gives it back with `Run.release`.
    """
    run = _take(objects, name, _new_lease(seconds, holder))
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(seconds / 3):
            with suppress(Exception):  # lost, or out of reach for now: the next decision tells which
                run.renew()

    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield run
    finally:
        ended.set()
        thread.join(timeout=1)
        with suppress(UserError, OSError):  # it runs out by itself, and what ended the block is what counts
            run.release() if holder is None else run.renew()


def _take(objects: Objects, name: str, mine: Lease) -> Run:
    waited_for: tuple[str, int] | None = None
    while True:
        state, found = read_state(objects, name)
        if found is not None and state.lease is not None and _is_anothers(objects, state, found, mine):
            lease = state.lease
            seen = (lease.holder, lease.beat)
            if _runs_here(lease) or (waited_for is not None and waited_for != seen):
                raise UserError(
                    f"{objects.address}: another process works on this run ({lease.machine}, process {lease.pid}); "
                    "wait for it or end it"
                )
            left = max(0.1, lease.seconds - (objects.now() - found.modified))
            if waited_for is None:
                say(f"{lease.machine} has not given this run back; waiting {left:.0f} s for its lease")
            waited_for = seen
            time.sleep(min(left, lease.seconds / 6))
            continue
        state.lease = mine
        try:
            _write(objects, name, state, found)
            return Run(objects, name, mine)
        except ChangedError:
            continue


def _is_anothers(objects: Objects, state: State, found: Found, mine: Lease) -> bool:
    """Whether somebody else may be working on it."""
    assert state.lease is not None
    return state.lease.holder != mine.holder and is_live(objects, state, found)


def _write(objects: Objects, name: str, state: State, found: Found | None) -> None:
    objects.write(name, state.model_dump_json(indent=1).encode(), found.tag if found else None)


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
