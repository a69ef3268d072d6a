"""The form json of stderr: every line is one object, whoever prints it."""

import io
import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmmpress.cli.app import main
from lmmpress.errors import UserError
from lmmpress.printing.terminal import Terminal
from lmmpress.progress import Outlook, at_step, counter, listening, part, say
from lmmpress.progress.log import LOG, LogForm, as_text, log, log_form, log_traceback, logging_in_form
from lmmpress.progress.terminal import on_terminal


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What was printed on stderr since the last look; the environment asks for the form json."""
    monkeypatch.setenv(LOG, "json")
    return lambda: capsys.readouterr().err


def objects(text: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines()]
    for one in found:
        assert one.pop("time").endswith("Z")
    return found


def test_lines_of_everybody_become_objects(printed: Callable[[], str]) -> None:
    with logging_in_form(), warnings.catch_warnings():
        warnings.simplefilter("always")
        print("plain", file=sys.stderr)
        print("error: no such file\nwarning: old", file=sys.stderr)
        Terminal(stderr=True).print("note: in \x1b[31mred", style="red")
        logging.getLogger("other").warning("slow %s", "bucket")
        logging.getLogger("other").info("unheard")
        warnings.warn("deprecated", stacklevel=1)
        sys.stderr.write("10 %\r20 %\r")
        sys.stderr.write("no end of line")
    found = objects(printed())
    warned = found.pop(5)
    assert warned["logger"] == "py.warnings"
    assert "deprecated" in warned["message"]
    assert [(one["level"], one["message"]) for one in found] == [
        ("info", "plain"),
        ("error", "no such file"),
        ("warning", "old"),
        ("info", r"in \x1b[31mred"),
        ("warning", "slow bucket"),
        ("info", "10 %"),
        ("info", "20 %"),
        ("info", "no end of line"),
    ]
    print("after", file=sys.stderr)
    assert printed() == "after\n"


def test_progress_has_its_values(printed: Callable[[], str]) -> None:
    seen = Outlook("block, step 2 of 4", usual={"distill": 8.0}, later={"distill": 50.0})
    with logging_in_form(), listening(on_terminal()), at_step(seen):
        say("a line")
        with part("distill"), counter("distil", 8):
            pass
    said, told = objects(printed())
    assert said == {"level": "info", "message": "a line"}
    assert told == {
        "level": "info",
        "message": "block, step 2 of 4: distill, about 0:08 left; run: at most 0:58 to its last step",
        "kind": "progress",
        "part": "distill",
        "step": "block, step 2 of 4",
        "work": "distill",
        "done": None,
        "total": None,
        "unit": None,
        "rate": None,
        "seconds": 0.0,
        "seconds_left": 8.0,
        "run_seconds_left": 58.0,
        "over": False,
    }


def test_an_object_of_another_process_stays_as_it_is(printed: Callable[[], str]) -> None:
    line = '{"time": "2026-11-30T00:00:00.000Z", "level": "info", "event": "listening"}'
    with logging_in_form():
        print(line, file=sys.stderr)
        with logging_in_form():
            log("info", "inner")
    text = printed()
    assert text.startswith(line + "\n")
    assert len(objects(text)) == 2


def test_no_secret_and_no_control_character_is_printed(printed: Callable[[], str]) -> None:
    with logging_in_form():
        print("error: s3://KEY:hush@b/p \x1b]0;x\x07", file=sys.stderr)
        log("info", "a\nb https://u:hush@h")
        try:
            raise ValueError("https://u:hush@h")
        except ValueError as error:
            log_traceback(error)
    text = printed()
    first, second, third = objects(text)
    assert (first["message"], second["message"]) == (r"s3://b/p \x1b]0;x\x07", r"a\nb https://h")
    assert (third["level"], third["message"]) == ("error", "ValueError: https://h")
    assert "Traceback" in third["traceback"]
    assert "hush" not in text


@given(st.text())
def test_any_text_is_whole_objects(text: str) -> None:
    before, sys.stderr = sys.stderr, io.StringIO()
    try:
        with logging_in_form(LogForm.json):
            print(text, file=sys.stderr)
        for line in sys.stderr.getvalue().split("\n")[:-1]:
            assert json.loads(line)["message"]
    finally:
        sys.stderr = before


def test_threads_print_whole_lines(printed: Callable[[], str]) -> None:
    def many(name: int) -> None:
        for number in range(50):
            print(f"{name} {number}", file=sys.stderr)

    with logging_in_form():
        threads = [threading.Thread(target=many, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(objects(printed())) == 200


def test_a_line_is_read_back_as_people_see_it(printed: Callable[[], str]) -> None:
    lines = ["plain", "error: no such file", "warning: old", '{"time": broken', '{"time": 1, "event": "x"}', '{"a": 1}']
    with logging_in_form():
        for line in lines[:3]:
            print(line, file=sys.stderr)
        try:
            raise KeyError("x")
        except KeyError as error:
            log_traceback(error)
    assert [as_text(line) for line in printed().splitlines()] == [*lines[:3], "KeyError: 'x'"]
    assert [as_text(line) for line in lines] == lines


def test_another_form_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOG, "xml")
    with pytest.raises(UserError, match="LMMPRESS_LOG is 'xml': it is text or json"):
        log_form()
    monkeypatch.setenv(LOG, "")
    assert log_form() is LogForm.text


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run the command line in this process: its exit code, and what it printed on stderr."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(os, "environ", os.environ.copy())

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["lmmpress", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--log", "json", "inspect", "nowhere"], 2, "nowhere: there is no checkpoint"),
        (["inspect", "nowhere", "--log=json"], 2, "nowhere: there is no checkpoint"),
        (["inspect", "--log", "json", "nowhere", "--debug"], 1, "UserError: nowhere: there is no checkpoint"),
        (["inspct", "--log", "json"], 2, "No such command 'inspct'"),
        (["inspect", "--log", "json"], 2, "Missing argument"),
        (["store", "ls", "nowhere", "--log", "json"], 2, "nowhere"),
    ],
    ids=["first", "last", "traceback", "no command", "no argument", "group"],
)
def test_the_option_may_stand_anywhere(
    arguments: list[str], code: int, said: str, command: Callable[..., tuple[int, str]]
) -> None:
    ended, text = command(*arguments)
    (found,) = objects(text)
    assert (ended, found["level"]) == (code, "error")
    assert said in found["message"]


def test_the_environment_asks_for_it_and_the_option_has_the_last_word(
    command: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOG, "json")
    assert objects(command("inspect", "nowhere")[1])[0]["level"] == "error"
    assert command("inspect", "nowhere", "--log", "text")[1].startswith("error: nowhere")
    ended, text = command("inspect", "nowhere", "--log", "xml")
    assert (ended, "'xml' is" in text) == (2, True)


def test_what_comes_after_two_dashes_is_no_option(command: Callable[..., tuple[int, str]]) -> None:
    assert "extra argument" in command("inspect", "--", "--log", "json")[1]
