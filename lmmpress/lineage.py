"""Lineage: a compression run as MLflow records it, from the registered model back to the original.

A run of lmmpress is one MLflow run with a nested run for every step. Every checkpoint a run goes on from is a
LoggedModel, the output of its step and an input of the next, so that the chain can be walked through `get_run`.
MLflow holds addresses and digests only: the checkpoints themselves stay where the store put them.

All that is told twice is recorded once. A resumed run is found again by its key, its steps by their tag, and every
time stamp follows from the first telling, because MLflow takes an equal metric for the same one only then.
"""

import json
import logging
import os
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lmmpress.errors import UserError
from lmmpress.result import DataInfo, Headline, Result, RunInfo, StepResult

if TYPE_CHECKING:  # MLflow takes seconds to import, and most commands never need it
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric, Run

ALIAS = "compressed"
DIGEST_LENGTH = 36  # what MLflow allows of a data set's digest; the whole one is in the tag lmmpress.digest
KEY_LENGTH, VALUE_LENGTH, INPUT_TAG_LENGTH = 250, 5000, 500
PARAMS_PER_BATCH, METRICS_PER_BATCH = 100, 1000

T = TypeVar("T")
Scalars = Mapping[str, float | None]


@dataclass
class Lineage:
    """A `Recorder` that writes to MLflow; its final model is registered as `model_name` with the alias `compressed`.

    `begin` opens the store, and creates it where it is a new sqlite file; nothing is written before. `begin`, `step`
    and `end` raise UserError where the store cannot be reached or refuses what is written.

    `within` is the MLflow run of the task that this process is, where Kubeflow has made one, below a run for its whole
    pipeline: that one then is the run of the first pipeline that works on this key, in its experiment; the pipelines
    that carry it on say which it is.
    """

    tracking_uri: str
    model_name: str
    experiment: str = "lmmpress"
    within: str | None = None
    client: "MlflowClient" = field(init=False, repr=False)
    experiment_id: str = field(init=False, repr=False)
    run: "Run | None" = field(init=False, default=None, repr=False)
    data: list[DataInfo] = field(init=False, default_factory=list, repr=False)
    models: dict[str, str] = field(init=False, default_factory=dict, repr=False)
    steps: dict[str, "Run"] = field(init=False, default_factory=dict, repr=False)

    def begin(self, run: RunInfo) -> None:
        """Find the run of this key or start it, with the original as its input."""
        with explained(self.tracking_uri):
            self.client = open_client(self.tracking_uri)
            pipeline = self._pipeline_run()
            self.experiment_id = (
                pipeline.info.experiment_id
                if pipeline
                else _experiment(self.client, self.experiment, self.tracking_uri)
            )
            self.data = run.data
            self.run = self._parent_run(run, pipeline)
            self.models = _models_of(self.client, self.experiment_id, run.run_key)
            self.steps = _steps_of(self.client, self.experiment_id, self.run.info.run_id)
            if not _is_recorded(self.run):
                self._record_beginning(self.run, run)

    def step(self, step: StepResult) -> None:
        """Record a step as a nested run: its parent checkpoint as input and, unless rolled back, its own as output."""
        with explained(self.tracking_uri):
            name = f"{step.stage}/{step.index}"
            known = self.steps.get(name)
            if known and _is_recorded(known):
                return
            self.steps[name] = known or self._start_step(name, step)
            self._record_step(self.steps[name], step)
            self.steps[name] = self.client.get_run(self.steps[name].info.run_id)

    def end(self, result: Result, checkpoint: Path | None) -> None:
        """Register the compressed model, of which there is a copy at `checkpoint`, and finish the run."""
        with explained(self.tracking_uri):
            run = self._begun()
            if _is_recorded(run):
                return
            model = self.models[result.compressed.checkpoint]
            if result.compressed.checkpoint != result.original.checkpoint:
                _log_output(self.client, run.info.run_id, model)
            stamp = run.info.start_time + round(1000 * result.seconds)
            metrics = [
                *_metrics(_closing_values(result), stamp, len(self.steps)),
                *self._accuracies(_accuracy_values(result.compressed, "test."), stamp, len(self.steps), "test", model),
                *self._accuracies(
                    _accuracy_values(result.original, "test."),
                    stamp,
                    0,
                    "test",
                    self.models[result.original.checkpoint],
                ),
            ]
            _log(self.client, run.info.run_id, metrics, tags=_tags(environment=result.environment))
            version = self._register(run.info.run_id, model, result, checkpoint)
            self.client.set_terminated(run.info.run_id, "FINISHED")
            _log(self.client, run.info.run_id, tags=_tags(model_version=version, recorded="true"))
            self.run = self.client.get_run(run.info.run_id)

    def interrupted(self, error: BaseException | None = None) -> None:
        """Mark a run that has begun as KILLED, or as FAILED by `error`; never raises, as something else went wrong."""
        if self.run is None or _is_recorded(self.run):
            return
        failed = error is not None and not isinstance(error, KeyboardInterrupt)
        with suppress(Exception):
            self.client.set_terminated(self.run.info.run_id, "FAILED" if failed else "KILLED")

    def failed(self, run_key: str) -> None:
        """Mark the run of that key as FAILED, if another process has begun it and it has not ended; never raises, as
        something else went wrong. Kubeflow does so itself with a run of its own."""
        if self.within is not None:
            return
        with suppress(Exception):
            client = open_client(self.tracking_uri)
            experiment = client.get_experiment_by_name(self.experiment)
            experiments = [experiment.experiment_id] if experiment else []
            for run in client.search_runs(experiments, _is_run_of(run_key), max_results=1):
                if not _is_recorded(run):
                    client.set_terminated(run.info.run_id, "FAILED")

    def _begun(self) -> "Run":
        if self.run is None:
            raise RuntimeError("begin comes before step and end")
        return self.run

    def _pipeline_run(self) -> "Run | None":
        """The run that Kubeflow has made for the pipeline of which this process is a task."""
        if self.within is None:
            return None
        task = self.client.get_run(self.within)
        return self.client.get_run(task.data.tags.get("mlflow.parentRunId", self.within))

    def _parent_run(self, info: RunInfo, pipeline: "Run | None") -> "Run":
        found = self.client.search_runs([self.experiment_id], _is_run_of(info.run_key), max_results=1)
        tags = _tags(kind="run", run_key=info.run_key, original=info.teacher)
        if pipeline:
            known = found[0].info.run_id if found else pipeline.info.run_id
            for run_id in {str(self.within), pipeline.info.run_id} - {known}:
                _log(self.client, run_id, tags=_tags(run_key=info.run_key, run=known))
            if not found:
                _log(self.client, known, tags=tags)
                return self.client.get_run(known)
        if not found:
            name = f"{self.model_name} {info.run_key[:12]}"
            return self.client.create_run(self.experiment_id, tags=tags, run_name=name[:KEY_LENGTH])
        if not _is_recorded(found[0]):
            self.client.update_run(found[0].info.run_id, "RUNNING")
        return self.client.get_run(found[0].info.run_id)

    def _record_beginning(self, run: "Run", info: RunInfo) -> None:
        from mlflow.entities import LoggedModelInput

        run_id, widths = run.info.run_id, info.parameters_by_tower
        original = self._model(
            info.teacher, "original", run_id, {"address": info.teacher_address, "run_key": info.run_key}, widths
        )
        self.client.log_inputs(run_id, _dataset_inputs(info), [LoggedModelInput(original)])
        values = {"parameters": float(sum(widths.values()))} | _by("parameters", widths)
        metrics = _metrics(values, run.info.start_time, 0)
        metrics += self._accuracies({"accuracy": info.gate_accuracy}, run.info.start_time, 0, "gate", original)
        # a parameter is write-once, and a resumed run may have moved: its paths are no part of its key
        settings = _flat(info.plan.model_dump(mode="json"))
        settings = {key: value for key, value in settings.items() if key not in run.data.params}
        _log(self.client, run_id, metrics, settings)

    def _start_step(self, name: str, step: StepResult) -> "Run":
        """A nested run that began as long ago as the step's parts took, and is the next in order."""
        parent = self._begun()
        tags = _tags(
            kind="step",
            step=name,
            position=len(self.steps) + 1,
            run_key=parent.data.tags["lmmpress.run_key"],
            stage=step.stage,
            index=step.index,
            tower=step.tower,
            removed=step.removed,
            decision=step.decision,
            reason=step.reason,
            parent=step.parent,
        ) | {"mlflow.parentRunId": parent.info.run_id}
        began = round(1000 * (time.time() - sum(step.seconds.values())))
        title = f"{step.stage} {step.index} {step.tower}"
        return self.client.create_run(self.experiment_id, began, tags, title[:KEY_LENGTH])

    def _record_step(self, run: "Run", step: StepResult) -> None:
        from mlflow.entities import LoggedModelInput

        parent, run_id = self._begun(), run.info.run_id
        position = int(run.data.tags["lmmpress.position"])
        ended = run.info.start_time + round(1000 * sum(step.seconds.values()))
        self.client.log_inputs(run_id, models=[LoggedModelInput(self.models[step.parent])])
        model = None
        if step.decision != "rolled back" and step.checkpoint:
            tags = {
                "address": step.address,
                "run_key": parent.data.tags["lmmpress.run_key"],
                "parent": step.parent,
                "decision": step.decision,
            }
            model = self._model(
                step.checkpoint, f"{step.stage}-{step.index}", run_id, tags, step.parameters_by_tower, step.tower
            )
            _log_output(self.client, run_id, model)
        measured = {"accuracy_pruned": step.accuracy_pruned, "drop": step.drop, "reference": step.reference}
        counts = {"parameters": float(step.parameters)} | _by("parameters", step.parameters_by_tower)
        bounds = step.drop_interval and {"drop_low": step.drop_interval.low, "drop_high": step.drop_interval.high}
        shared = _metrics(measured | counts | (bounds or {}), ended, position)
        shared += self._accuracies({"accuracy": step.accuracy}, ended, position, "gate", model)
        own = _metrics(_by("seconds", step.seconds) | {"score_reliability": step.score_reliability}, ended, position)
        own += self._accuracies(_by("accuracy", step.accuracy_by_task), ended, position, "gate", model)
        own += [one for update, loss in enumerate(step.loss) for one in _metrics({"loss": loss}, ended, update)]
        _log(self.client, parent.info.run_id, shared)
        _log(self.client, run_id, shared + own)
        self.client.set_terminated(run_id, "FINISHED", ended)
        _log(self.client, run_id, tags=_tags(recorded="true"))

    def _accuracies(self, values: Scalars, stamp: int, position: int, role: str, model: str | None) -> "list[Metric]":
        """Metrics that MLflow shows at the model and at the data they were measured on."""
        used = next((split for split in self.data if split.role == role), None)
        where = {"dataset_name": used.split, "dataset_digest": _short(used.digest)} if used else {}
        return _metrics(values, stamp, position, model_id=model, **where)

    def _model(
        self, digest: str, name: str, run_id: str, tags: Mapping[str, Any], widths: Mapping[str, int], tower: str = ""
    ) -> str:
        """The id of a checkpoint's LoggedModel, made where there is none yet."""
        if digest not in self.models:
            params = {"checkpoint": digest, "parameters": sum(widths.values())} | _by("parameters", widths)
            made = self.client.create_logged_model(
                self.experiment_id,
                _plain(f"{self.model_name}-{name}"),
                run_id,
                tags=_tags(checkpoint=digest, **tags) | ({"lmmpress.tower": tower} if tower else {}),
                params=_texts(params),
                model_type="lmmpress",
            )
            self.models[digest] = made.model_id
        self.client.finalize_logged_model(self.models[digest], "READY")
        return self.models[digest]

    def _register(self, run_id: str, model: str, result: Result, checkpoint: Path | None) -> str:
        name = _plain(self.model_name)
        _ensure_registered_model(self.client, name)
        tags = _tags(
            run_key=result.run_key,
            checkpoint=result.compressed.checkpoint,
            address=result.compressed.address,
            path=checkpoint,
            original=result.original.checkpoint,
        )
        versions = self.client.search_model_versions(f"name='{name}'")
        known = [version for version in versions if version.tags.get("lmmpress.run_key") == result.run_key]
        if known:
            version = known[0]
        else:
            with _resolving_models_in(self.tracking_uri):
                version = self.client.create_model_version(
                    name, f"models:/{model}", run_id, tags, await_creation_for=0, model_id=model
                )
        self.client.set_registered_model_alias(name, ALIAS, version.version)
        return str(version.version)


def local_store(folder: Path) -> str:
    """The tracking URI of the sqlite store in `folder`; all that MLflow writes lies in that folder too."""
    return f"sqlite:///{folder.resolve() / 'mlflow.db'}"


def open_client(tracking_uri: str) -> "MlflowClient":
    """A quiet MLflow client that gives up on a server in seconds and reports usage to nobody.

    What the environment sets already stays. A sqlite file that does not exist yet is created, with its folder. Raises
    UserError where the folder cannot be made.
    """
    for name, value in (
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"),
        ("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"),
    ):
        os.environ.setdefault(name, value)
    import mlflow

    for name in ("mlflow.store.db.utils", "mlflow.store.model_registry.abstract_store", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    path = _sqlite_path(tracking_uri)
    if path is None or path.exists():
        return mlflow.MlflowClient(tracking_uri)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path.parent}: cannot hold the lineage store: {error.strerror}") from None
    with _unsynchronized_sqlite():
        return mlflow.MlflowClient(tracking_uri)


@contextmanager
def _unsynchronized_sqlite() -> Iterator[None]:
    """Let SQLite not wait for the disk: MLflow creates its tables in hundreds of migrations, and waits at each.

    Only while nothing is in the file that could be lost; the connections made here wait again afterwards.
    """
    import sqlalchemy.event
    from sqlalchemy.engine import Engine

    opened: list[sqlite3.Connection] = []

    def relax(connection: object, _record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")
            opened.append(connection)

    sqlalchemy.event.listen(Engine, "connect", relax)
    try:
        yield
    finally:
        sqlalchemy.event.remove(Engine, "connect", relax)
        for connection in opened:
            with suppress(sqlite3.ProgrammingError):  # closed meanwhile
                connection.execute("PRAGMA synchronous = FULL")


@contextmanager
def _resolving_models_in(tracking_uri: str) -> Iterator[None]:
    """Point MLflow's global tracking URI at our store: a database store looks `models:/m-...` up there, not in its own
    tables, and would otherwise create an empty database in the working directory."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(tracking_uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None unsets it


@contextmanager
def explained(tracking_uri: str) -> Iterator[None]:
    """Turn what MLflow and its database raise into one line for a person."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("mlflow.", "sqlalchemy.")):
            raise
        fault = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"MLflow at {_without_password(tracking_uri)}: {_without_password(fault)[:300]}; "
            "once that is mended the run can be resumed"
        ) from error


def _experiment(client: "MlflowClient", name: str, tracking_uri: str) -> str:
    """The experiment's id. In a sqlite store its artifacts would lie next to the database, not in ./mlruns."""
    known = client.get_experiment_by_name(name)
    if known is not None:
        return str(known.experiment_id)
    path = _sqlite_path(tracking_uri)
    return str(client.create_experiment(name, (path.parent / "artifacts").as_uri() if path else None))


def _sqlite_path(tracking_uri: str) -> Path | None:
    place = tracking_uri.removeprefix("sqlite:///")
    return None if place == tracking_uri else Path(place).absolute()


def _models_of(client: "MlflowClient", experiment_id: str, run_key: str) -> dict[str, str]:
    """The ids of a run's LoggedModels by the digests of their checkpoints."""
    found: dict[str, str] = {}
    token = None
    while True:
        page = client.search_logged_models([experiment_id], _equals("run_key", run_key), page_token=token)
        found |= {model.tags["lmmpress.checkpoint"]: model.model_id for model in page}
        token = page.token
        if not token:
            return found


def _steps_of(client: "MlflowClient", experiment_id: str, parent: str) -> dict[str, "Run"]:
    found: dict[str, Run] = {}
    token = None
    while True:
        page = client.search_runs([experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'", page_token=token)
        found |= {run.data.tags["lmmpress.step"]: run for run in page if "lmmpress.step" in run.data.tags}
        token = page.token
        if not token:
            return found


def _is_run_of(run_key: str) -> str:
    return f"{_equals('run_key', run_key)} and {_equals('kind', 'run')}"


def _is_recorded(run: "Run") -> bool:
    """Whether everything of the run was written; one that was cut off half-way is written again."""
    return bool(run.data.tags.get("lmmpress.recorded") == "true")


def _ensure_registered_model(client: "MlflowClient", name: str) -> None:
    from mlflow import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _log_output(client: "MlflowClient", run_id: str, model: str) -> None:
    from mlflow.entities import LoggedModelOutput

    outputs = client.get_run(run_id).outputs
    if outputs is None or all(output.model_id != model for output in outputs.model_outputs):
        client.log_outputs(run_id, [LoggedModelOutput(model, step=0)])


def _log(
    client: "MlflowClient",
    run_id: str,
    metrics: "Iterable[Metric]" = (),
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    from mlflow.entities import Param, RunTag

    for values in _batches(list(metrics), METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=values)
    for settings in _batches([Param(key, text) for key, text in _texts(params or {}).items()], PARAMS_PER_BATCH):
        client.log_batch(run_id, params=settings)
    if tags:
        client.log_batch(run_id, tags=[RunTag(key, text) for key, text in tags.items()])


def _dataset_inputs(info: RunInfo) -> "list[DatasetInput]":
    """One input per split; a split used twice says both roles, because MLflow keeps only the first of equal inputs."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    roles: dict[tuple[str, str, int], list[str]] = {}
    for split in info.data:
        roles.setdefault((split.split, split.digest, split.rows), []).append(split.role)
    return [
        DatasetInput(
            Dataset(
                name=name[:KEY_LENGTH],
                digest=_short(digest),
                source_type="local",
                source=json.dumps({"uri": info.plan.data}),
                profile=json.dumps({"num_rows": rows}),
            ),
            tags=[
                InputTag("mlflow.data.context", ", ".join(used)),
                InputTag("lmmpress.digest", digest[:INPUT_TAG_LENGTH]),
            ],
        )
        for (name, digest, rows), used in roles.items()
    ]


def _closing_values(result: Result) -> dict[str, float | None]:
    """What the closing table says, other than accuracies."""
    values: dict[str, float | None] = {
        "test.drop": result.drop,
        "test.drop_low": result.drop_interval.low,
        "test.drop_high": result.drop_interval.high,
        "seconds": result.seconds,
    }
    for name, model in (("original", result.original), ("compressed", result.compressed)):
        values |= {
            f"{name}.samples_per_second": model.samples_per_second,
            f"{name}.latency_ms_p50": model.latency_ms.p50,
            f"{name}.latency_ms_p95": model.latency_ms.p95,
            f"{name}.parameters": model.parameters,
        }
    return values | _by("reduction", result.reduction) | _by("seconds", result.seconds_by_part)


def _accuracy_values(model: Headline, prefix: str) -> dict[str, float]:
    return {f"{prefix}accuracy": model.accuracy} | _by(f"{prefix}accuracy", model.accuracy_by_task)


def _metrics(values: Scalars, stamp: int, position: int, **where: Any) -> "list[Metric]":
    """Metrics of one moment, in milliseconds since 1970; what was not measured is left out."""
    from mlflow.entities import Metric

    return [
        Metric(_key(name), float(value), stamp, position, **where)
        for name, value in values.items()
        if value is not None
    ]


def _by(name: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{name}.{part}": value for part, value in values.items()}


def _tags(**values: object) -> dict[str, str]:
    return _texts({f"lmmpress.{name}": value for name, value in values.items()})


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    """Texts within MLflow's limits; mappings become JSON, nothing is recorded of None."""
    return {
        _key(key): (json.dumps(value) if isinstance(value, dict | list) else str(value))[:VALUE_LENGTH]
        for key, value in values.items()
        if value is not None
    }


def _flat(settings: Mapping[str, Any], prefix: str = "plan") -> dict[str, Any]:
    """Nested settings under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}.{key}"
        flat |= _flat(value, name) if isinstance(value, dict) else {name: value}
    return flat


def _key(name: str) -> str:
    return re.sub(r"[^\w. -]", "_", name)[:KEY_LENGTH]


def _plain(name: str) -> str:
    """A name that both the registry and LoggedModels take."""
    return re.sub(r"[^\w -]", "-", name)[:KEY_LENGTH] or "model"


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:DIGEST_LENGTH]


def _equals(tag: str, value: str) -> str:
    return f"tags.`lmmpress.{tag}` = '{value}'"


def _without_password(text: str) -> str:
    return re.sub(r"://[^/@\s]+@", "://", text)


def _batches(items: list[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
