"""Runs as processes of this machine, for the trigger without Kubernetes. `lmmpress.trigger.local_files` lists files.

The process is a session of its own: a restart of the trigger does not end it, and the next one finds it by its note.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from lmmpress.errors import UserError
from lmmpress.host.processes import environment
from lmmpress.host.this_machine import machine, started
from lmmpress.host.whole_file import write_whole
from lmmpress.progress.log import as_text
from lmmpress.trigger.claims import Sent
from lmmpress.trigger.engines.interface import Order, Seen
from lmmpress.trigger.local_files import SILENT, Begun, Ended, Ordered, RunFiles

Form = TypeVar("Form", bound=BaseModel)
START = 60.0
"""How many seconds a process may take to begin."""


class LocalEngine:
    """The processes whose folders are in `runs`. They do not get the variables of the environment in `withheld`, which
    hold the secrets of the trigger's server: a run reads the files of strangers."""

    settles = 0.0

    def __init__(self, runs: Path, withheld: Collection[str] = ()) -> None:
        self._runs, self._withheld = runs, withheld
        self._children: list[subprocess.Popen[bytes]] = []

    def find(self, order: Order) -> list[Sent]:
        files = self._files(order)
        return [_sent(order, files)] if files.begun.exists() else []

    def create(self, order: Order) -> Sent:
        """Start the process, unless one has begun the run: of two that start, the lock lets one begin."""
        files = self._files(order)
        try:
            files.folder.mkdir(parents=True, exist_ok=True)
            ordered = Ordered(plan=order.plan, tracking=order.tracking)
            write_whole(files.order, ordered.model_dump_json(indent=1) + "\n")
            variables = environment(MLFLOW_TRACKING_URI=order.tracking)
            command = [sys.executable, "-m", "lmmpress.trigger.local_run", str(files.folder), order.run]
            with files.log.open("ab") as log:
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={name: value for name, value in variables.items() if name not in self._withheld},
                    start_new_session=True,
                )
        except OSError as error:
            raise UserError(f"{files.folder}: no run can be started: {error.strerror}") from None
        self._children.append(child)
        until = time.monotonic() + START
        while not files.begun.exists():
            if child.poll() is not None or time.monotonic() > until:
                raise UserError(f"{order.run} did not begin: {_last_line(files.log)}")
            time.sleep(0.05)
        return _sent(order, files)

    def look(self, order: Order, sent: Sent) -> Seen:
        self._children = [child for child in self._children if child.poll() is None]
        files = self._files(order)
        if not files.folder.is_dir():
            return Seen("gone", f"there is no folder {files.folder} any more")
        alive = _alive(files)  # before the end is read: a process that is not alive has written it
        if (ended := _read(files.ended, Ended)) is not None:
            return Seen(ended.state, ended.said)
        if alive:
            return Seen("running")
        return Seen("dead", f"its process has ended without a word, so it was killed; {files.log} has what it printed")

    def cancel(self, order: Order, sent: Sent) -> None:
        with suppress(OSError):
            self._files(order).cancel.touch()

    def reach(self, order: Order) -> str:
        there = next(folder for folder in (self._runs, *self._runs.parents) if folder.exists())
        try:
            with tempfile.TemporaryFile(dir=there):  # has no name where the disk can do that, so nothing is left
                pass
        except OSError as error:
            raise UserError(f"{self._runs} cannot be written: {error.strerror}") from None
        return f"runs are processes of this machine, in {self._runs}"

    def _files(self, order: Order) -> RunFiles:
        return RunFiles(self._runs / order.key, order.run)


def _sent(order: Order, files: RunFiles) -> Sent:
    return Sent(order.run, str(files.out / "report.html"))


def _alive(files: RunFiles) -> bool:
    begun = _read(files.begun, Begun)
    if begun is None:
        return False
    if begun.machine == machine():
        return bool(begun.started) and started(begun.pid) == begun.started
    try:
        return time.time() - files.begun.stat().st_mtime < SILENT
    except OSError:
        return False


def _read(path: Path, form: type[Form]) -> Form | None:
    """A file of a run; None if there is none, or it cannot be read as one."""
    try:
        return form.model_validate(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, ValidationError):
        return None


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text("utf-8", "replace").strip().splitlines()
    except OSError:
        lines = []
    return as_text(lines[-1]) if lines else f"{log} says nothing"
