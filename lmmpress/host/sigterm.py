"""How a process ends that is asked to."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDED = 128 + signal.SIGTERM
"""The exit code of a process that SIGTERM has ended, as shells and containers tell it."""


@contextmanager
def ended_in_order() -> Iterator[None]:
    """In this context SIGTERM raises SystemExit, so that what was begun is ended: the first process of a container
    would otherwise not heed it."""

    def end(_number: int, _frame: FrameType | None) -> None:
        sys.exit(ENDED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
