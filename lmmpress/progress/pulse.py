"""When to speak of work that nobody watches: at every change of part, and every 30 seconds.

Events may come thousands of times a second, or not for minutes while one long update is computed. So the events are
only noted, and a thread speaks; it lives while there is work, and ends with the last piece of it.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from lmmpress.progress.events import Event, Part, Said, Unit, Work

EVERY = 30.0  # seconds between two reports, at most
APART = 5.0  # seconds between two reports, at least: parts that are shorter do not fill the log
_LOOKS_BACK = 300.0  # seconds that the rate is an average of
_SAMPLES = 300


@dataclass(frozen=True)
class Report:
    """How far work is. `label` is what is counted now; `total`, `done` and `rate` (a second) are None if nothing is.

    `seconds` have passed since the part began, or the work if it belongs to no part. `seconds_left` are those that the
    counted work still takes, or the part if nothing is counted; `run_seconds_left` those of all steps of the run at
    most. Both are None if they cannot be estimated. `over`: the part has ended.
    """

    label: str
    part: Part | None = None
    done: int | None = None
    total: int | None = None
    unit: Unit = "items"
    rate: float | None = None
    seconds: float = 0.0
    seconds_left: float | None = None
    run_seconds_left: float | None = None
    over: bool = False


Speak = Callable[[Report], None]


@dataclass
class _Piece:
    """A piece of work: its last event, when it began, and how far it was when."""

    work: Work
    began: float
    samples: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_SAMPLES))

    def note(self, work: Work, now: float) -> bool:
        """Note an event; whether the work has another label now."""
        changed = work.label != self.work.label
        if changed:
            self.began = now
        if work.done != self.work.done:
            if len(self.samples) > 1 and now - self.samples[-2][0] < _LOOKS_BACK / _SAMPLES:
                self.samples.pop()  # one sample a second is enough
            self.samples.append((now, work.done))
            while len(self.samples) > 2 and self.samples[1][0] < now - _LOOKS_BACK:
                self.samples.popleft()
        self.work = work
        return changed

    def rate(self) -> float | None:
        """Things a second, between events: a long update that is not done yet changes nothing."""
        (begun, before), (ended, after) = self.samples[0], self.samples[-1]
        return (after - before) / (ended - begun) if after > before and ended > begun else None

    def left(self, now: float) -> float | None:
        """Seconds until the work is done; what is computed since the last event counts as done."""
        rate = self.rate()
        if rate is None or self.work.total is None:
            return None
        return max(0.0, (self.work.total - self.work.done) / rate - (now - self.samples[-1][0]))


class Pulse:
    """A listener that calls `speak` with a report: when a part begins, at least `every` seconds while there is work,
    and when a part ends that took so long. Two reports are `apart` seconds apart or more, except for the end of a part.

    Work outside of parts is reported once it has lasted `every` seconds: a command that is refused says nothing else.
    `speak` is called by one thread at a time, and
    never after the end of all work; if it raises OSError or ValueError, as for a stderr that is closed, that is
    ignored. Without `beats` there is no thread, and somebody else has to call `look`. A process that was forked from
    this one reports nothing.
    """

    def __init__(
        self,
        speak: Speak,
        every: float = EVERY,
        apart: float = APART,
        clock: Callable[[], float] = time.monotonic,
        beats: bool = True,
    ) -> None:
        self._speak, self._every, self._apart, self._clock, self._beats = speak, every, apart, clock, beats
        self._process = os.getpid()
        self._changed = threading.Condition()  # a lock that one thread may take again: a destructor may send an event
        self._open: dict[int, _Piece] = {}
        self._spoke = float("-inf")
        self._told: set[tuple[str, str]] = set()  # what is open and was reported
        self._thread: threading.Thread | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Said) or os.getpid() != self._process:
            return
        with self._changed:
            now, known = self._clock(), self._open.get(event.number)
            if event.over:
                if known is not None:
                    self._end(known, now)
            elif known is None:
                self._open[event.number] = _Piece(event, now, deque([(now, event.done)], _SAMPLES))
                self._look(now)
                self._wake()
            elif known.note(event, now):
                self._wake()

    def look(self) -> float | None:
        """Speak if it is time to. Seconds until it may be time again; None if there is no work."""
        with self._changed:
            return self._look(self._clock())

    def _look(self, now: float) -> float | None:
        due = self._due()
        if due is not None and now >= due:
            self._spoke = now
            self._told.add(_name(self._last().work))
            self._tell(self._report(now))
            due = self._due()
        return None if due is None else max(0.0, due - now)

    def _due(self) -> float | None:
        """When to speak next; None if there is no work."""
        if not self._open:
            return None
        last = self._last()
        if last.work.part is not None and _name(last.work) not in self._told:
            return max(last.began, self._spoke + self._apart)
        return max(self._spoke, self._began(last.work)) + self._every

    def _end(self, piece: _Piece, now: float) -> None:
        name = _name(piece.work)
        if sum(_name(one.work) == name for one in self._open.values()) == 1:
            self._told.discard(name)
            if piece.work.part is not None and now - piece.began >= self._every:
                seconds = now - piece.began
                self._tell(Report(piece.work.label, piece.work.part, seconds=seconds, over=True))
        del self._open[piece.work.number]
        self._wake()  # the thread ends with the last piece of work

    def _tell(self, report: Report) -> None:
        try:
            self._speak(report)
        except (OSError, ValueError):
            return  # nobody reads any more: no reason to end hours of work

    def _last(self) -> _Piece:
        return self._open[next(reversed(self._open))]

    def _began(self, work: Work) -> float:
        """When the part of some work began, or the work, if it belongs to none."""
        return min(one.began for one in self._open.values() if _name(one.work) == _name(work))

    def _report(self, now: float) -> Report:
        last = self._last()
        same = [one for one in self._open.values() if _name(one.work) == _name(last.work)]
        counted = [one for one in same if one.work.total is not None]
        piece = counted[-1] if counted else last
        work, part = piece.work, piece.work.part
        seconds = now - self._began(work)
        left, after = (piece.left(now) if counted else None), None
        if left is None and part is not None and part.usual is not None:
            left = max(0.0, part.usual - seconds)
        if left is not None and part is not None and part.later is not None:
            after = left + part.later
        if not counted:
            return Report(work.label, part, seconds=seconds, seconds_left=left, run_seconds_left=after)
        return Report(work.label, part, work.done, work.total, work.unit, piece.rate(), seconds, left, after)

    def _wake(self) -> None:
        self._changed.notify_all()
        if self._beats and self._thread is None and self._open:
            self._thread = threading.Thread(target=self._beat, name="progress", daemon=True)
            self._thread.start()

    def _beat(self) -> None:
        with self._changed:
            while (seconds := self._look(self._clock())) is not None:
                self._changed.wait(seconds)
            self._thread = None


def _name(work: Work) -> tuple[str, str]:
    """What a change of is reported: the part with its step, or the work, if it belongs to no part."""
    return (work.part.name, work.part.step) if work.part else (work.label, "")
