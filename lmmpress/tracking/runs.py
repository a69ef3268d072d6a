"""The runs, models and experiments of lmmpress in MLflow: find them, write to them, end them."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lmmpress.tracking.values import equals, texts, title

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Metric, Run

T = TypeVar("T")

PARENT = "mlflow.parentRunId"
PARAMS_PER_BATCH, METRICS_PER_BATCH = 100, 1000
VIEW = {"mlflow.experimentKind": "custom_model_development"}
"""The tag that makes MLflow's pages show an experiment as model training; without it they show it as GenAI."""


def make_experiment(client: "MlflowClient", name: str, artifacts: Path | None) -> str:
    """The id of the experiment of that name. A missing one is created; the files of its runs go to `artifacts`, or to
    MLflow's default place."""
    known = client.get_experiment_by_name(title(name))
    if known is None:
        place = artifacts.as_uri() if artifacts else None
        return str(client.create_experiment(title(name), place, dict(VIEW)))
    open_for_training(client, known)
    return str(known.experiment_id)


def open_for_training(client: "MlflowClient", experiment: "Experiment") -> None:
    """Let MLflow show an experiment as model training, unless its tag already says something else."""
    for key, value in VIEW.items():
        if key not in experiment.tags:
            client.set_experiment_tag(experiment.experiment_id, key, value)


def run_of(client: "MlflowClient", experiment_id: str, run_key: str) -> "Run | None":
    """The run of that key."""
    wanted = f"{equals('run_key', run_key)} and {equals('kind', 'run')}"
    found = client.search_runs([experiment_id], wanted, max_results=1)
    return found[0] if found else None


def models_of(client: "MlflowClient", experiment_id: str, run_key: str) -> dict[str, str]:
    """The ids of a run's LoggedModels by the digests of their checkpoints."""
    found: dict[str, str] = {}
    token = None
    while True:
        page = client.search_logged_models([experiment_id], equals("run_key", run_key), page_token=token)
        found |= {model.tags["lmmpress.checkpoint"]: model.model_id for model in page}
        token = page.token
        if not token:
            return found


def steps_of(client: "MlflowClient", experiment_id: str, parent: str) -> "dict[str, Run]":
    """The nested runs of a run's steps by their names."""
    nested = _search(client, experiment_id, f"tags.`{PARENT}` = '{parent}'")
    return {run.data.tags["lmmpress.step"]: run for run in nested if "lmmpress.step" in run.data.tags}


def end_abandoned(client: "MlflowClient", experiment_id: str, run_key: str, holder: str, own: set[str]) -> None:
    """End as KILLED the MLflow runs of that run key that dead processes left RUNNING.

    Only the holder of that run's lease in the store may call this: then nobody else works on the run, and every RUNNING
    one is abandoned, except the runs `own` and a run of `holder`, which is in one of its tasks or between two.
    """
    for run in _search(client, experiment_id, f"{equals('run_key', run_key)} and attributes.status = 'RUNNING'"):
        kind = run.data.tags.get("lmmpress.kind")
        abandoned = kind in ("task", "step") or (kind == "run" and not is_held_by(run, holder))
        if abandoned and run.info.run_id not in own:
            client.set_terminated(run.info.run_id, "KILLED")


def is_held_by(run: "Run", holder: str) -> bool:
    return bool(run.data.tags.get("lmmpress.holder") == holder)


def is_recorded(run: "Run") -> bool:
    """Whether the run was written completely; one that was interrupted is written again."""
    return bool(run.data.tags.get("lmmpress.recorded") == "true")


def log(
    client: "MlflowClient",
    run_id: str,
    metrics: "Iterable[Metric]" = (),
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write to a run."""
    from mlflow.entities import Param, RunTag

    for values in _batches(list(metrics), METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=values)
    for settings in _batches([Param(key, text) for key, text in texts(params or {}).items()], PARAMS_PER_BATCH):
        client.log_batch(run_id, params=settings)
    if tags:
        client.log_batch(run_id, tags=[RunTag(key, text) for key, text in tags.items()])


def log_output(client: "MlflowClient", run_id: str, model: str) -> None:
    """Note a LoggedModel as the output of a run, once."""
    from mlflow.entities import LoggedModelOutput

    outputs = client.get_run(run_id).outputs
    if outputs is None or all(output.model_id != model for output in outputs.model_outputs):
        client.log_outputs(run_id, [LoggedModelOutput(model, step=0)])


def ensure_registered_model(client: "MlflowClient", name: str) -> None:
    from mlflow import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _search(client: "MlflowClient", experiment_id: str, wanted: str) -> "Iterator[Run]":
    token = None
    while True:
        page = client.search_runs([experiment_id], wanted, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _batches(items: list[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
