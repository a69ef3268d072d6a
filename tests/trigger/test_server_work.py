"""The server's threads: models that were hinted at, and rounds."""

import threading
import time
from itertools import pairwise

import pytest

from lmmpress.errors import UserError
from lmmpress.trigger.server import work
from lmmpress.trigger.server.work import Rounds, Waiting


def until(what: object, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.01)


def test_many_hints_at_one_model_are_one_look() -> None:
    looked: list[str] = []
    hinted = Waiting("hint", looked.append)
    for _ in range(1000):
        hinted.add("antgmm")
    hinted.add("other")
    assert len(hinted) == 2
    hinted.start()
    until(lambda: len(looked) == 2)
    assert hinted.stop(5)
    assert sorted(looked) == ["antgmm", "other"]


def test_a_hint_during_a_look_is_another_look() -> None:
    began, go_on, looked = threading.Event(), threading.Event(), []

    def look(model: str) -> None:
        looked.append(model)
        began.set()
        go_on.wait(10)

    hinted = Waiting("hint", look, gather=0, apart=0)
    hinted.start()
    hinted.add("antgmm")
    assert began.wait(10)
    hinted.add("antgmm")
    go_on.set()
    until(lambda: len(looked) == 2)
    assert hinted.stop(5)


def test_looks_at_one_thing_are_apart_however_often_it_is_added() -> None:
    looked: list[float] = []
    waiting = Waiting("hint", lambda model: looked.append(time.monotonic()), gather=0, apart=0.3)
    waiting.start()

    def four() -> bool:
        waiting.add("antgmm")
        return len(looked) >= 4

    until(four)
    assert waiting.stop(5)
    assert min(later - sooner for sooner, later in pairwise(looked)) > 0.25


def test_a_look_that_fails_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "_FIRST_PAUSE", 0.02)
    looked: list[str] = []

    def look(model: str) -> None:
        looked.append(model)
        if looked.count(model) < 3:
            raise UserError("MLflow is away") if len(looked) == 1 else RuntimeError("our fault")

    hinted = Waiting("hint", look, gather=0, apart=0)
    hinted.start()
    hinted.add("antgmm")
    until(lambda: looked.count("antgmm") == 3)
    until(lambda: len(hinted) == 0)
    assert hinted.works
    assert hinted.stop(5)
    assert not hinted.works


def test_rounds_go_on_after_a_fault_and_end_at_once() -> None:
    rounds: list[int] = []

    def work() -> None:
        rounds.append(1)
        raise RuntimeError("our fault")

    thread = Rounds(work, 0.01)
    thread.start()
    until(lambda: len(rounds) > 2)
    assert thread.stop(5)

    slow = Rounds(lambda: None, 3600)
    slow.start()
    began = time.monotonic()
    assert slow.stop(5)
    assert time.monotonic() - began < 2


def test_what_never_began_can_be_stopped() -> None:
    assert Waiting("hint", lambda model: None).stop(1)
    assert Rounds(lambda: None, 1).stop(1)
