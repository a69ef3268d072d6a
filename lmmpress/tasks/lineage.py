"""The lineage that a task records: where MLflow is, and what it is told of the pipeline."""

import importlib.metadata
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lmmpress.host.pod import COMMIT, MLFLOW_PAGES, PAGES, SUBMITTER, this_pod
from lmmpress.progress import listening
from lmmpress.progress.pulse import EVERY, Pulse
from lmmpress.store import Store
from lmmpress.store.records import LINEAGE as RECORD
from lmmpress.store.records import LineageNote
from lmmpress.tasks.submission import Submission

if TYPE_CHECKING:  # MLflow takes seconds to import, and most tasks never need it
    from lmmpress.tracking.background import Background
    from lmmpress.tracking.lineage import Lineage

URI = "MLFLOW_TRACKING_URI"
_SHORTLY = 20.0  # seconds that a task waits at its end for what it began to record


def tracking_uri() -> str:
    """The address of MLflow; empty if no lineage is recorded."""
    return os.environ.get(URI, "").strip()


def lineage_of(submission: Submission, run: str) -> "Lineage | None":
    """The recorder of the submission `run`; None if no lineage is recorded."""
    if not tracking_uri():
        return None
    from lmmpress.tracking.lineage import Lineage

    return Lineage(
        tracking_uri(),
        submission.name,
        os.environ.get("MLFLOW_EXPERIMENT_NAME", "lmmpress"),
        within=os.environ.get("MLFLOW_RUN_ID"),
        holder=run,
        about=submission.about,
    )


@contextmanager
def recording_of(submission: Submission, run: str) -> Iterator["Background | None"]:
    """A recorder beside the computation of a task, which also gets the task's progress. A task that fails marks the run
    as FAILED."""
    lineage = lineage_of(submission, run)
    if lineage is None:
        yield None
        return
    from lmmpress.tracking.background import Background

    recorder = Background(lineage)
    if lineage.within:  # Kubeflow has made an MLflow run for this task: it is told which run of ours the task works on
        recorder.attach(submission.key)
    with _progress_in(lineage, submission.key):
        try:
            yield recorder
        except BaseException:
            recorder.failed(submission.key)
            raise
        recorder.finish(_SHORTLY)


@contextmanager
def _progress_in(lineage: "Lineage", run_key: str) -> Iterator[None]:
    from lmmpress.tracking.progress_metrics import ProgressMetrics

    metrics = ProgressMetrics(lineage, run_key)
    try:
        with listening(Pulse(metrics.tell, apart=EVERY), beside=True):
            yield
    finally:
        metrics.end()


def note_lineage(store: Store, key: str, lineage: "Lineage") -> None:
    """Note in the store where MLflow has the run, for links to it."""
    if lineage.run:
        info = lineage.run.info
        noted = LineageNote(experiment=str(info.experiment_id), run=str(info.run_id))
        store.write_record(f"{RECORD}{key}", noted.model_dump())


def link_to_lineage(store: Store, key: str) -> str:
    """The address of the run's page in MLflow; empty if there is none that people reach."""
    pages = os.environ.get(MLFLOW_PAGES, "").strip().rstrip("/")
    noted = store.read_record(f"{RECORD}{key}") if pages else None
    return f"{pages}/#/experiments/{noted['experiment']}/runs/{noted['run']}" if noted else ""


def about_this_pipeline() -> dict[str, str]:
    """What the first task knows of its pipeline, as tags of the MLflow run: by them people find the one from the
    other."""
    pod, pages = this_pod(), os.environ.get(PAGES, "").strip().rstrip("/")
    if pod.pipeline_run:
        address = f"{pages}/#/runs/details/{pod.pipeline_run}"
    else:
        address = f"{pages}/workflows/{pod.namespace}/{pod.workflow}"
    known = {
        "pipeline_run": pod.pipeline_run,
        "pipeline": address if pages and pod.workflow else "",
        "workflow": pod.workflow,
        "image": pod.image,
        "version": importlib.metadata.version("lmmpress"),
        "commit": os.environ.get(COMMIT, ""),
        "submitter": os.environ.get(SUBMITTER, ""),
    }
    return {name: text for name, text in known.items() if text}
