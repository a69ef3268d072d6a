"""Progress of long work, as events for a listener. Without a listener nothing is printed.

    with listening(print):
        ...

`terminal.py` has the listener of the command line, which shows the events on stderr: bars on a terminal, else lines
that `pulse.py` says when to print.
"""

from lmmpress.progress.events import (
    Event,
    Listener,
    Outlook,
    Part,
    Said,
    Work,
    at_step,
    counter,
    doing,
    listening,
    part,
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
    "Outlook",
    "Part",
    "Said",
    "Work",
    "at_step",
    "counter",
    "doing",
    "listening",
    "note",
    "part",
    "say",
    "say_once",
    "track",
    "transfer",
]
