"""The server's threads: they look at models that were hinted at, carry claims on, and reconcile every minute.

All may be killed at any moment. A thing that is added again while it waits is looked at once. So no more models wait
than are watched, however many deliveries come. What a killed server has not worked off lies in the store as hints.
"""

import logging
import threading
import time
from collections.abc import Callable

from lmmpress.trigger.server.logs import note

_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 60.0
"""Seconds until a thing is tried again that could not be looked at."""


class Waiting:
    """A thread that calls `look` with each thing that was added, one after the other, until it succeeds. A thing is the
    name of a model, or the key of a claim."""

    def __init__(self, name: str, look: Callable[[str], None], gather: float = 0.1, apart: float = 1.0) -> None:
        self._name, self._look, self._gather, self._apart = name, look, gather, apart
        self._looked: dict[str, float] = {}  # when each was looked at last, as far as that is less than `apart` ago
        self._due: dict[str, float] = {}  # when each is looked at, in seconds of the monotonic clock
        self._pauses: dict[str, float] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def add(self, thing: str) -> None:
        """Have a thing looked at after `gather` seconds, and not sooner than `apart` seconds after the last look: what
        is added many times meanwhile is one look."""
        with self._changed:
            now = time.monotonic()
            due = max(now + self._gather, self._looked.get(thing, -self._apart) + self._apart)
            if self._due.get(thing, float("inf")) > due:
                self._due[thing] = due
                self._changed.notify()

    def __len__(self) -> int:
        """How many things wait."""
        return len(self._due)

    @property
    def works(self) -> bool:
        """Whether the thread is there to work."""
        return self._thread.is_alive()

    def stop(self, seconds: float) -> bool:
        """Take no further thing, and wait for the one that is under way; whether the thread has ended in time."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (thing := self._next()) is not None:
            try:
                self._look(thing)
                self._pauses.pop(thing, None)
            except Exception as error:
                pause = self._pauses[thing] = min(_LONGEST_PAUSE, self._pauses.get(thing, _FIRST_PAUSE / 2) * 2)
                note(f"{self._name} failed", logging.WARNING, error, what=thing, again_in=pause)
                with self._changed:
                    self._due.setdefault(thing, time.monotonic() + pause)

    def _next(self) -> str | None:
        """Wait for the thing that is due first, and take it; None at the end."""
        with self._changed:
            while not self._stopping:
                thing = min(self._due, key=self._due.__getitem__, default=None)
                wait = None if thing is None else self._due[thing] - time.monotonic()
                if thing is not None and wait is not None and wait <= 0:
                    del self._due[thing]
                    now = time.monotonic()
                    self._looked = {one: at for one, at in self._looked.items() if now - at < self._apart}
                    self._looked[thing] = now
                    return thing
                self._changed.wait(wait)
        return None


class Rounds:
    """A thread that calls `work` at once, and then again `seconds` after the last call has ended."""

    def __init__(self, work: Callable[[], None], seconds: float) -> None:
        self._work, self._seconds = work, seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rounds", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    @property
    def works(self) -> bool:
        """Whether the thread is there to work."""
        return self._thread.is_alive()

    def stop(self, seconds: float) -> bool:
        """Begin no further round, and wait for the one that is under way; whether it has ended in time."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._work()
            except Exception as error:  # the next round tries again
                note("round failed", logging.WARNING, error)
            self._stopping.wait(self._seconds)
