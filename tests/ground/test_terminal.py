"""What is printed is text: no markup, no emoji, no control character and no secret, wherever it comes from."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress, TextColumn

import lmmpress
from lmmpress.cli.shared import console, out
from lmmpress.kubeflow.local_runner import _Log
from lmmpress.printing.terminal import Table, Terminal
from lmmpress.progress import NOTES, counter, listening, note
from lmmpress.progress.terminal import on_terminal

ODD = ["data/:smile:.png", "host x[/y]", "[bold]no[/bold]", "a\x1b[2Jb", "one\nerror: forged", "s3://KEY:hush@b/p"]
SHOWN = ["data/:smile:.png", "host x[/y]", "[bold]no[/bold]", r"a\x1b[2Jb", r"one\nerror: forged", "s3://b/p"]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What is sent to a terminal with colours and a cursor."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("FORCE_COLOR", "1")
    return lambda: "".join(capsys.readouterr())


@pytest.mark.parametrize(("text", "shown"), zip(ODD, SHOWN, strict=True))
def test_a_text_is_printed_as_it_is(printed: Callable[[], str], text: str, shown: str) -> None:
    Terminal().print(text)
    assert printed() == shown + "\n"


@pytest.mark.parametrize(("text", "shown"), zip(ODD, SHOWN, strict=True))
def test_headers_and_cells_of_tables_are_printed_as_they_are(printed: Callable[[], str], text: str, shown: str) -> None:
    table = Table(text, "b")
    table.add_row(text, text)
    Terminal().print(table)
    assert printed().count(shown) == 3


@pytest.mark.parametrize(("text", "shown"), zip(ODD, SHOWN, strict=True))
def test_the_status_is_printed_as_it_is(printed: Callable[[], str], text: str, shown: str) -> None:
    terminal = Terminal(stderr=True)
    with terminal.status(text) as status:
        status.update(text)
        terminal.print("between")
    found = printed()
    assert shown in found
    assert "hush" not in found


@pytest.mark.parametrize(("text", "shown"), zip(ODD, SHOWN, strict=True))
def test_labels_of_progress_bars_are_printed_as_they_are(
    monkeypatch: pytest.MonkeyPatch, text: str, shown: str
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    seen: list[str] = []

    def add_task(self: Progress, label: str, **_: object) -> int:
        seen.append(label)
        return 0

    monkeypatch.setattr(Progress, "add_task", add_task)
    monkeypatch.setattr(Progress, "advance", lambda self, task, amount: None)
    columns: list[Any] = []
    original = Progress.__init__

    def noting(self: Progress, *given: Any, **options: Any) -> None:
        columns.extend(given)
        original(self, *given, **options)

    monkeypatch.setattr(Progress, "__init__", noting)
    with listening(on_terminal()), counter(text, 3) as advance:
        advance(1)
    assert seen == [shown]
    (described,) = (one for one in columns if isinstance(one, TextColumn) and "description" in one.text_format)
    assert not described.markup


@given(st.text(st.characters(codec=None)))
def test_any_text_is_one_printed_line(text: str) -> None:
    terminal = Terminal()
    with terminal.capture() as captured:
        terminal.print(text)
    assert captured.get().endswith("\n")
    assert len(captured.get()[:-1].splitlines()) <= 1


def test_only_the_terminal_module_imports_rich() -> None:
    """Consoles, tables and columns of rich itself would read foreign text as markup."""
    assert type(out) is type(console) is Terminal
    root = Path(lmmpress.__file__).parent
    for path in root.rglob("*.py"):
        if path.name == "terminal.py":
            continue
        text = path.read_text("utf-8")
        for name in ("rich.console", "rich.table", "rich.status", "rich.markup", "from rich import"):
            assert name not in text, f"{path}: {name}"


def test_a_traceback_repeats_no_secret(tmp_path: Path) -> None:
    """Also with --debug."""
    plan = {"model": "s3://KEY:hush@b/m", "data": "d", "stages": {}}
    (tmp_path / "plan.yaml").write_text(json.dumps(plan), "utf-8")
    command = [sys.executable, "-m", "lmmpress.cli", "plan", str(tmp_path / "plan.yaml"), "--debug"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "holds credentials" in done.stderr
    assert "hush" not in done.stderr + done.stdout


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv(NOTES, str(tmp_path / "notes.jsonl"))
    with (tmp_path / "tasks.log").open("w", encoding="utf-8") as file:
        yield _Log(file, tmp_path / "notes.jsonl")


@pytest.mark.usefixtures("aloud")
def test_text_printed_by_a_task_is_not_taken_for_the_runners(
    log: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The runner indents what tasks print."""
    log.write("10:00:00.123 - INFO - Executing task \x1b[96m'prepare'\x1b[0m\n")
    log.write("    error: forged\n    step 1/3 forged\n")
    log.write("    10:00:00.124 - INFO - Task 'forged' finished with status FAILURE\n")
    assert (log.fault, log.failed) == ("", "")
    note(step="step 1/3 block -1")
    note(error="the disk\nis full at s3://KEY:hush@b")
    log.write("10:00:01.000 - ERROR - Task \x1b[96m'prepare'\x1b[0m finished with status \x1b[91mFAILURE\x1b[0m\n")
    assert (log.fault, log.failed) == (r"the disk\nis full at s3://b", "prepare")
    assert capsys.readouterr().err == "step 1/3 block -1\n"


def test_the_log_of_tasks_has_no_control_characters_and_no_secrets(log: Any, tmp_path: Path) -> None:
    log.write(
        "10:00:00.123 - INFO - Executing task \x1b[96m'prepare'\x1b[0m\n    from https://u:hush@h/m \x1b]0;x\x07\n"
    )
    log.flush()
    assert (tmp_path / "tasks.log").read_text("utf-8") == (
        "10:00:00.123 - INFO - Executing task 'prepare'\n    from https://h/m \\x1b]0;x\\x07\n"
    )


def test_a_note_is_dropped_where_nobody_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NOTES, raising=False)
    note(step="step 1/3")
    assert NOTES not in os.environ
