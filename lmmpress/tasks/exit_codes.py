"""How a task ends: its message on stderr, and its exit code."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from lmmpress.errors import AwayError, UserError, traceback_of
from lmmpress.host.full_disk import system_says
from lmmpress.printing.visible import visible
from lmmpress.progress import listening, note
from lmmpress.progress.terminal import on_terminal

P = ParamSpec("P")
T = TypeVar("T")


def for_people(task: Callable[P, T]) -> Callable[P, T]:
    """Show a task's messages on stderr. If the cause of an error is the input or the environment, end the task with a
    line for each fault and exit code 2; if a server is away, with a line and exit code 1; if it is a fault of lmmpress,
    with a traceback without secrets and exit code 1.
    """

    @wraps(task)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            with listening(on_terminal()):
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
            print(traceback_of(error), file=sys.stderr)
            note(error=f"{type(error).__name__}: {error}")
            sys.exit(1)

    return run
