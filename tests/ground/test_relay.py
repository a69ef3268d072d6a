"""The progress of another process arrives at the listener of the one that has started it."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lmmpress.progress import Event, Work, counter, listening, part
from lmmpress.progress.relay import RELAY, from_started, to_starter

CHILD = """
from lmmpress.progress import at_step, counter, listening, Outlook, part, say
from lmmpress.progress.relay import to_starter
with listening(to_starter()), at_step(Outlook("block, step 1 of 2")):
    say("a line, which notes tell")
    with part("distill"), counter("distil", 3) as advance:
        advance(3)
    begun = counter("forgotten", 2)
    begun.__enter__()
    import os
    os._exit(0)
"""


@pytest.fixture
def heard() -> list[Event]:
    return []


def works(heard: list[Event]) -> list[tuple[str, int, bool, str]]:
    """Label, how much is done, whether it is over, and step of what was heard."""
    return [
        (one.label, one.done, one.over, one.part.step if one.part else "") for one in heard if isinstance(one, Work)
    ]


def test_work_of_a_process_is_heard_with_its_part_and_ends_with_it(
    heard: list[Event], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = tmp_path / "events.jsonl"
    monkeypatch.setenv(RELAY, str(events))
    with listening(heard.append), from_started(events):
        subprocess.run([sys.executable, "-c", CHILD], check=True)
    step = "block, step 1 of 2"
    assert works(heard) == [
        ("distill", 0, False, step),
        ("distil", 0, False, step),
        ("distil", 3, True, step),
        ("distill", 0, True, step),
        ("forgotten", 0, False, ""),
        ("forgotten", 0, True, ""),
    ]


def test_what_names_no_part_belongs_to_that_of_the_starter(
    heard: list[Event], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = tmp_path / "events.jsonl"
    monkeypatch.setenv(RELAY, str(events))
    with listening(heard.append), part("distill"), from_started(events), listening(to_starter()), counter("distil", 1):
        pass
    (own, *told, end) = [one for one in heard if isinstance(one, Work)]
    assert {one.part for one in told} == {own.part}
    assert {one.number for one in told} & {own.number} == set()
    assert end == replace(own, over=True)


def test_lines_that_are_no_events_are_left_out(heard: list[Event], tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    whole = json.dumps({"number": "1-1", "label": "x\x1b[2J", "done": 0, "total": 1})
    events.write_text(f'[]\n{{}}\nnonsense\n{{"part": 3}}\n{whole}\n{whole[:-4]}', "utf-8")
    with listening(heard.append), from_started(events):
        pass
    assert works(heard) == [(r"x\x1b[2J", 0, False, ""), (r"x\x1b[2J", 0, True, "")]


def test_without_a_starter_that_listens_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RELAY, raising=False)
    assert to_starter() is None
