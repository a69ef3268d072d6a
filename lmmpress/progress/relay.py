"""The progress of a process for the one that started it, through a file: a process of a pipeline on this machine, or of
several that distil together."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import copy_context
from dataclasses import asdict, replace
from pathlib import Path

from lmmpress.progress.events import Event, Listener, Part, Said, Work, retold

RELAY = "LMMPRESS_RELAY"
"""The environment variable with the path of the file."""
_OFTEN = 1.0  # seconds between two events of a piece of work that are written, and between two looks at the file


def to_starter() -> Listener | None:
    """A listener that writes the progress of this process for the one that started it; None if that wants none."""
    file = os.environ.get(RELAY)
    return None if file is None else _Written(Path(file))


@contextmanager
def from_started(file: Path, telling: Callable[[], AbstractContextManager[None]] = nullcontext) -> Iterator[None]:
    """Send what processes write into `file` in this block to the listener of this context, in a thread that works
    within the context manager `telling` while it does so."""
    ended = threading.Event()
    # the thread finds the listener of this context
    arguments = (file, ended, telling)
    thread = threading.Thread(target=copy_context().run, args=(_retell, *arguments), name="relay", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class _Written:
    def __init__(self, file: Path) -> None:
        self._file, self._process = file, os.getpid()
        self._writing = threading.Lock()
        self._last: dict[int, float] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, Said) or os.getpid() != self._process:
            return
        now, number = time.monotonic(), f"{self._process}-{event.number}"
        if not event.over and now - self._last.get(event.number, -_OFTEN) < _OFTEN:
            return
        self._last[event.number] = now
        line = json.dumps(asdict(event) | {"number": number}) + "\n"
        with self._writing, suppress(OSError), self._file.open("a", encoding="utf-8") as file:
            file.write(line)


def _retell(file: Path, ended: threading.Event, telling: Callable[[], AbstractContextManager[None]]) -> None:
    """Send the events in a file, as they are written, until the end; then the end of all work that has not ended."""
    tell, position, numbers, open_ = retold(), 0, dict[str, int](), dict[int, Work]()
    while True:
        last = ended.wait(_OFTEN)
        data = b""
        with suppress(OSError), file.open("rb") as written:
            written.seek(position)
            data = written.read().rpartition(b"\n")[0]  # without a line that is not whole yet
        position += len(data) + 1 if data else 0
        works = [work for line in data.splitlines() if (work := _read(line, numbers))]
        with telling():
            for work in works:
                with suppress(Exception):  # of a listener, which only the process's own work is to heed
                    tell(work)
                open_[work.number] = work
                if work.over:
                    del open_[work.number]
            if last:
                for work in reversed(open_.values()):
                    with suppress(Exception):
                        tell(replace(work, over=True))
                return


def _read(line: bytes, numbers: dict[str, int]) -> Work | None:
    """The work in a line; None if there is none."""
    try:
        found = json.loads(line)
        part = Part(**found.pop("part")) if found.get("part") else found.pop("part", None)
        number = numbers.setdefault(str(found.pop("number")), len(numbers))
        return Work(number=number, part=part, **found)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
