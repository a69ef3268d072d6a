"""How far a task is, as metrics in MLflow, beside the computation: they never hold it up or fail it.

Unlike lineage they are only news: what MLflow does not take at once is dropped, and the next report follows.
"""

import threading
import time
from typing import TYPE_CHECKING

from lmmpress.progress.pulse import Report
from lmmpress.tracking import values
from lmmpress.tracking.client import open_client
from lmmpress.tracking.lineage import Lineage
from lmmpress.tracking.runs import log, run_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


class ProgressMetrics:
    """Metrics of the MLflow run that Kubeflow has made for this task, else of the run's own, once there is one.

    `progress.WORK` is the share of some work that is done, such as `progress.distil`; `progress.seconds_left` and
    `progress.run_seconds_left` are what a `Report` says. Their step is the number of seconds since the MLflow run
    began, so that several tasks of one run follow each other.
    """

    def __init__(self, lineage: Lineage, run_key: str) -> None:
        self._lineage, self._key = lineage, run_key
        self._client: MlflowClient | None = None
        self._run: Run | None = None
        self._news: tuple[Report, float] | None = None
        self._changed = threading.Condition()
        self._ended = False
        self._thread: threading.Thread | None = None

    def tell(self, report: Report) -> None:
        """Send a report, in another thread, in the place of one that is not sent yet."""
        if report.total is None or report.over:
            return
        with self._changed:
            self._news = report, time.time()
            self._changed.notify_all()
            if self._thread is None and not self._ended:
                self._thread = threading.Thread(target=self._work, name="progress metrics", daemon=True)
                self._thread.start()

    def end(self) -> None:
        """Send nothing more; what is being sent is not waited for."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._news is None and not self._ended:
                    self._changed.wait()
                if self._ended or self._news is None:
                    return
                (report, at), self._news = self._news, None
            try:
                self._send(report, at)
            except Exception:
                self._client = self._run = None  # whatever it is: these are news, and there will be more

    def _send(self, report: Report, at: float) -> None:
        if self._client is None:
            self._client = open_client(self._lineage.tracking_uri)
        if self._run is None:
            self._run = self._find(self._client)
        if self._run is None:
            return
        since = max(0, round(at - self._run.info.start_time / 1000))
        share = (report.done or 0) / report.total if report.total else 1.0
        told = {
            f"progress.{report.label}": share,
            "progress.seconds_left": report.seconds_left,
            "progress.run_seconds_left": report.run_seconds_left,
        }
        log(self._client, self._run.info.run_id, values.metrics(told, round(1000 * at), since))

    def _find(self, client: "MlflowClient") -> "Run | None":
        if self._lineage.within:
            return client.get_run(self._lineage.within)
        known = client.get_experiment_by_name(values.title(self._lineage.experiment))
        return run_of(client, known.experiment_id, self._key) if known else None
