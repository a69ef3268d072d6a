"""Progress of long work, as events for a listener. Without a listener nothing is printed.

    with listening(print):
        ...

`terminal.py` has the listener of the command line, which shows the events on stderr.
"""

from lmmpress.progress.events import (
    Event,
    Listener,
    Said,
    Work,
    counter,
    doing,
    listening,
    say,
    say_once,
    track,
    transfer,
)
from lmmpress.progress.notes import NOTES, note

__all__ = [
    "NOTES",
    "Event",
    "Listener",
    "Said",
    "Work",
    "counter",
    "doing",
    "listening",
    "note",
    "say",
    "say_once",
    "track",
    "transfer",
]
