"""Progress in MLflow: few points, in the right MLflow run, and never in the way of the computation."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.lineage import run_info

from lmmpress.errors import UserError
from lmmpress.progress import counter, listening, part
from lmmpress.progress.pulse import EVERY, Pulse, Report
from lmmpress.tracking.client import open_client
from lmmpress.tracking.lineage import Lineage
from lmmpress.tracking.progress_metrics import ProgressMetrics

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")
HALF = Report("distil", done=24, total=48, seconds_left=60.0, run_seconds_left=7200.0)


def until(condition: Callable[[], Any]) -> Any:
    for _ in range(600):
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("not in time")


@pytest.fixture
def made() -> Iterator[list[ProgressMetrics]]:
    found: list[ProgressMetrics] = []
    yield found
    for one in found:
        one.end()


def test_they_go_to_the_mlflow_run_of_the_run(lineage: Lineage, made: list[ProgressMetrics]) -> None:
    made.append(metrics := ProgressMetrics(lineage, "told"))
    metrics.tell(HALF)  # there is no MLflow run yet, so this is dropped
    lineage.begin(run_info("told"))
    assert lineage.run is not None
    run_id, began = lineage.run.info.run_id, lineage.run.info.start_time

    def told() -> dict[str, float]:
        metrics.tell(HALF)
        data = open_client(lineage.tracking_uri).get_run(run_id).data.metrics
        return {key: value for key, value in data.items() if key.startswith("progress.")}

    assert until(told) == {
        "progress.distil": 0.5,
        "progress.seconds_left": 60.0,
        "progress.run_seconds_left": 7200.0,
    }
    first = lineage.client.get_metric_history(run_id, "progress.distil")[0]
    assert first.step == pytest.approx((first.timestamp - began) / 1000, abs=1)


def test_within_kubeflows_mlflow_run_of_a_task_they_go_there(lineage: Lineage, made: list[ProgressMetrics]) -> None:
    client = open_client(lineage.tracking_uri, create=True)
    task = client.create_run(client.create_experiment("plugin")).info.run_id
    lineage.within = task
    made.append(metrics := ProgressMetrics(lineage, "plugged"))
    metrics.tell(Report("evaluate gate", done=1, total=4))
    assert until(lambda: client.get_run(task).data.metrics) == {"progress.evaluate gate": 0.25}


class Away(ProgressMetrics):
    """MLflow that holds the first request until `answers`, and then fails it."""

    def __init__(self) -> None:
        super().__init__(Lineage("http://127.0.0.1:9", "model"), "key")
        self.asked, self.answers = threading.Event(), threading.Event()
        self.sent: list[Report] = []

    def _send(self, report: Report, at: float) -> None:
        if not self.asked.is_set():
            self.asked.set()
            assert self.answers.wait(30)
            raise UserError("no answer")
        self.sent.append(report)


def test_while_mlflow_is_away_only_the_newest_report_waits() -> None:
    metrics = Away()
    metrics.tell(HALF)
    assert metrics.asked.wait(30)
    begun = time.monotonic()
    for done in range(48):
        metrics.tell(Report("distil", done=done, total=48))
    assert time.monotonic() - begun < 5, "nobody waits"
    metrics.answers.set()
    until(lambda: metrics.sent)
    metrics.end()
    assert [one.done for one in metrics.sent] == [47]


def test_after_the_end_nothing_is_sent() -> None:
    metrics = Away()
    metrics.end()
    metrics.tell(HALF)
    assert not metrics.asked.wait(0.1)


def test_there_is_a_point_every_30_seconds() -> None:
    now, told = 0.0, list[Report]()
    pulse = Pulse(told.append, apart=EVERY, clock=lambda: now, beats=False)
    with listening(pulse), part("distill"), counter("distil", 1000) as advance:
        for second in range(300):
            now = float(second)
            advance(1)
            pulse.look()
    assert len(told) == 300 / EVERY + 1, "one every 30 s, and one when the part has ended"
