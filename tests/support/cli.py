"""Commands of lmmpress: run in this process, run as a program, and refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lmmpress.cli.app import app
from lmmpress.errors import UserError


def run(*arguments: object, code: int = 0) -> str:
    """Run a command in this process; a UserError reaches the test unchanged."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout


def fail(*arguments: object, cwd: Path | None = None) -> str:
    """Run the real program, and return its one line of error."""
    command = [sys.executable, "-m", "lmmpress.cli", *map(str, arguments)]
    environment = os.environ | {"COLUMNS": "400"}
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=cwd, env=environment)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    return lines[0]


def refused(*arguments: object) -> str:
    """The one line of error of a command that is refused."""
    with pytest.raises(UserError) as caught:
        run(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def run_store(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["store", *arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output
