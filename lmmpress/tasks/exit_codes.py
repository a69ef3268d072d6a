"""How a task ends: its message on stderr, and its exit code."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from lmmpress.errors import AwayError, UserError
from lmmpress.host.full_disk import system_says
from lmmpress.printing.visible import visible
from lmmpress.progress import listening, note, part
from lmmpress.progress.log import log_traceback, logging_in_form
from lmmpress.progress.relay import to_starter
from lmmpress.progress.terminal import on_terminal

P = ParamSpec("P")
T = TypeVar("T")


_PARTS = {"compress_stage": "stage", "next_due": "due", "wait_for_approval": "approval"}
"""What functions are called in the log whose names are not those of their tasks."""


def for_people(task: Callable[P, T]) -> Callable[P, T]:
    """Show a task's messages and progress on stderr, in the form that LMMPRESS_LOG asks for, also for the process that
    started this one.

    If the cause of an error is the input or the environment, end the task with a line for each fault and exit code 2;
    if a server is away, with a line and exit code 1; if it is a fault of lmmpress, with a traceback without secrets and
    exit code 1.
    """

    name = _PARTS.get(task.__name__, task.__name__)

    @wraps(task)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with logging_in_form():
            try:
                with listening(on_terminal()), listening(to_starter(), beside=True), part(name):
                    return task(*args, **kwargs)
            except UserError as error:
                for line in error.lines:
                    print(f"error: {line}", file=sys.stderr)
                note(error="; ".join(error.lines))
                sys.exit(1 if isinstance(error, AwayError) else 2)  # 2 is never tried again, 1 may be
            except OSError as error:
                line = visible(system_says(error, "run the pipeline again: it continues"))
                print(f"error: {line}", file=sys.stderr)
                note(error=line)
                sys.exit(2)
            except Exception as error:
                log_traceback(error)
                note(error=f"{type(error).__name__}: {error}")
                sys.exit(1)

    return run
