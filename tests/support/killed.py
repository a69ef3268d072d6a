"""Work that kills its own process in the middle: tests call it in a fork (see forks.py)."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from lmmpress.engine.compression import compress
from lmmpress.engine.parts import load
from lmmpress.plan import parse_plan
from support import task_functions as tasks
from support.tasks import walk


def resume_and_die(raw: dict[str, Any], out: str, after: int) -> None:
    """Continue a run, and kill it just before change number `after` in its store."""
    changes = {"os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir"}
    seen = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        written = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        if (written or event in changes) and str(arguments[0]).startswith(f"{out}/store"):
            seen += 1
            if seen == after:
                os.kill(os.getpid(), signal.SIGKILL)

    load.verify_for_users = lambda checkpoint: None  # as `trusting` does
    sys.addaudithook(watch)
    compress(parse_plan(raw), Path(out), resume=True)


def make_tasks(raw: dict[str, Any], dies_in: str | None) -> None:
    """All tasks of a pipeline; the process is killed when the first task of a component has done its work."""
    if dies_in:
        axis = dies_in.removesuffix("_prune")
        name = dies_in if axis == dies_in else "prune"
        work = getattr(tasks, name)

        def dying(*arguments: Any, **named: Any) -> Any:
            done = work(*arguments, **named)
            if name != "prune" or arguments[2] == axis:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        setattr(tasks, name, dying)
    for _, task in walk(raw):
        task()
