"""Lineage beside the computation: MLflow holds up nothing, fails nothing, and gets everything when it answers."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support.lineage import STEPS, result, run_info

from lmmpress.errors import UserError
from lmmpress.progress import Event, Said, listening
from lmmpress.tracking.background import Background
from lmmpress.tracking.lineage import Lineage

AWAY = UserError("MLflow at http://mlflow: no answer")


class Unsteady(Lineage):
    """A recorder that notes its calls, and fails as often as `errors` has errors."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__("http://mlflow", "model")
        self.errors, self.calls = list(errors), list[str]()
        self.slow = threading.Event()

    def _called(self, name: str) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.calls.append(name)

    def take_over(self, run_key: str) -> None:
        self._called("take over")

    def begin(self, run: Any) -> None:
        self._called("begin")

    def step(self, step: Any) -> None:
        self._called(f"step {step.index}")

    def end(self, result: Any, checkpoint: Path | None) -> None:
        self._called("end")

    def failed(self, run_key: str) -> None:
        self.calls.append("failed")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmmpress.tracking.background._AGAIN", 0.05)


def recorded(lineage: Unsteady, seconds: float = 10) -> tuple[Background, bool]:
    background = Background(lineage)
    background.begin(run_info("key"))
    for step in STEPS:
        background.step(step)
    background.end(result("key", STEPS), None)
    return background, background.finish(seconds)


WHOLE = ["begin", *(f"step {step.index}" for step in STEPS), "end"]


def test_calls_are_made_in_their_order_and_each_once() -> None:
    lineage = Unsteady()
    _, done = recorded(lineage)
    assert (done, lineage.calls) == (True, WHOLE)


def test_what_failed_is_tried_again_and_said_once() -> None:
    lineage, said = Unsteady(AWAY, AWAY, AWAY), list[Event]()
    with listening(said.append):
        background, done = recorded(lineage)
    assert (done, background.behind, lineage.calls) == (True, None, WHOLE)
    assert [event.words for event in said if isinstance(event, Said)] == [
        f"{AWAY}; the run goes on, and the lineage is recorded when MLflow answers"
    ]


def test_a_computation_never_waits_and_never_fails() -> None:
    lineage = Unsteady(*[AWAY] * 10_000)
    background = Background(lineage)
    begun = time.monotonic()
    background.begin(run_info("key"))
    for step in STEPS:
        background.step(step)
    assert time.monotonic() - begun < 1
    assert not background.finish(0.2)
    assert str(background.behind) == str(AWAY)
    assert lineage.calls == []


def test_a_wrong_address_is_seen_before_anything_is_computed() -> None:
    with pytest.raises(UserError, match="no answer"):
        Background(Unsteady(AWAY)).take_over("key")


def test_a_fault_of_ours_is_raised_at_the_end() -> None:
    with pytest.raises(KeyError):
        recorded(Unsteady(KeyError("lmmpress.checkpoint")))


def test_a_failed_task_stops_recording_and_marks_the_run() -> None:
    lineage = Unsteady(*[AWAY] * 10_000)
    background = Background(lineage)
    background.begin(run_info("key"))
    background.failed("key")
    time.sleep(0.2)
    assert lineage.calls == ["failed"]
