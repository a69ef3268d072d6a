"""Runs a harness as a process: its output goes into a log, and it ends when this process ends."""

import os
import re
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lmmpress.printing.one_line import printable

_TAIL = 1 << 16  # bytes at the end of a log that are searched for the reason of a failure
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_CAUSE = re.compile(r"^(?:[\w.]+\.)?\w*(?:Error|Exception|Interrupt)\b.*", re.MULTILINE)


def run_logged(command: Sequence[str], folder: Path, variables: dict[str, str], log: Path) -> int:
    """Run a command in a folder, with its output in the file `log`, and return its exit code.

    The command gets a pipe as standard input, which closes when this process ends, however it ends. If waiting is
    interrupted, the command and all that it has started are killed.
    """
    with (
        log.open("wb") as out,
        subprocess.Popen(
            command,
            cwd=folder,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as child,
    ):
        try:
            return child.wait()
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            raise


def reason_of(log: Path, code: int) -> str:
    """Why a command failed, in one line: the last error in its log, or the last line of its log, or its exit code."""
    if code < 0:
        name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
        return f"it was ended by {name}" + (", perhaps because memory ran out" if -code == signal.SIGKILL else "")
    with log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _TAIL))
        text = _COLOURS.sub("", file.read().decode("utf-8", "replace")).replace("\r", "\n")
    lines = [line for line in text.splitlines() if line.strip()]
    return printable(([*_CAUSE.findall(text)] or lines or [f"it exited with {code}"])[-1])
