"""Lineage: a compression run as MLflow records it, from the registered model back to the original.

A run of lmmpress is one MLflow run with a nested run for every step. Every checkpoint a run goes on from is a
LoggedModel, the output of its step and an input of the next, so that `get_run` leads along the chain.
MLflow holds addresses and digests only: the checkpoints themselves stay in the store.

Whatever is reported twice is recorded once. A resumed run is found by its key, its steps by their tag. Every time
stamp follows from the first report, because MLflow ignores a repeated metric only if its time is equal too.
"""

import time
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmpress.result import DataInfo, Result, RunInfo, StepResult
from lmmpress.tracking import values
from lmmpress.tracking.client import explained, open_client, resolving_models_in
from lmmpress.tracking.database import path_of
from lmmpress.tracking.runs import (
    PARENT,
    end_abandoned,
    ensure_registered_model,
    is_held_by,
    is_recorded,
    log,
    log_output,
    make_experiment,
    models_of,
    open_for_training,
    run_of,
    steps_of,
)

if TYPE_CHECKING:  # MLflow takes seconds to import, and most commands never need it
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run
    from mlflow.entities.model_registry import ModelVersion

ALIAS = "compressed"
RESUMED = "once that is mended the run can be resumed"


@dataclass
class Lineage:
    """A `Recorder` that writes to MLflow; its final model is registered as `model_name` with the alias `compressed`.

    `take_over` or `begin` opens the store, and creates it if it is a new sqlite file; nothing is written before.
    `take_over`, `begin`, `step` and `end` raise UserError if the store cannot be reached or refuses what is written.

    `within` is the MLflow run of this task, if Kubeflow has created one, below a run for the whole pipeline. The first
    pipeline that works on this run key records into its pipeline's MLflow run, in that experiment; pipelines that
    resume the run name that MLflow run. `holder` is who works on the run: this process, or the submission that this
    task belongs to. `about` are further tags of the run; `model` among
    them, the registered name of the original, is a tag of the version too.
    """

    tracking_uri: str
    model_name: str
    experiment: str = "lmmpress"
    within: str | None = None
    holder: str = field(default_factory=lambda: uuid.uuid4().hex)
    about: Mapping[str, str] = field(default_factory=dict)
    client: "MlflowClient" = field(init=False, default=None, repr=False)  # type: ignore[assignment]
    experiment_id: str = field(init=False, repr=False)
    run: "Run | None" = field(init=False, default=None, repr=False)
    data: list[DataInfo] = field(init=False, default_factory=list, repr=False)
    models: dict[str, str] = field(init=False, default_factory=dict, repr=False)
    steps: dict[str, "Run"] = field(init=False, default_factory=dict, repr=False)
    _pipeline: "Run | None" = field(init=False, default=None, repr=False)

    def take_over(self, run_key: str) -> None:
        """End the MLflow runs of that run key that dead processes left RUNNING, and note that this task works on the
        run. This process must hold the run's lease in the store."""
        with self._explained():
            self._open()
            own = {self.within, self._pipeline.info.run_id} if self.within and self._pipeline else set()
            end_abandoned(self.client, self.experiment_id, run_key, self.holder, {one for one in own if one})
            if self.within:
                log(self.client, self.within, tags=values.tags(kind="task", run_key=run_key))

    def begin(self, run: RunInfo) -> None:
        """Find the run of this key or start it, with the original as its input."""
        self.take_over(run.run_key)
        with self._explained():
            self.data = run.data
            self.run = self._parent_run(run)
            self.models = models_of(self.client, self.experiment_id, run.run_key)
            self.steps = steps_of(self.client, self.experiment_id, self.run.info.run_id)
            if not is_recorded(self.run):
                self._record_beginning(self.run, run)

    def step(self, step: StepResult) -> None:
        """Record a step as a nested run: its parent checkpoint as input and, unless rolled back, its own as output."""
        with self._explained():
            name = f"{step.stage}/{step.index}"
            known = self.steps.get(name)
            if known and is_recorded(known):
                return
            self.steps[name] = known or self._start_step(name, step)
            self._record_step(self.steps[name], step)
            self.steps[name] = self.client.get_run(self.steps[name].info.run_id)

    def end(self, result: Result, checkpoint: Path | None) -> None:
        """Register the compressed model, whose copy is at `checkpoint`, and finish the run."""
        with self._explained():
            run = self._begun()
            if is_recorded(run):
                if self._version_of(result) is None:  # the same model was compressed under another name
                    self._register(run.info.run_id, self.models[result.compressed.checkpoint], result, checkpoint)
                return
            original, model = self.models[result.original.checkpoint], self.models[result.compressed.checkpoint]
            if model != original:
                log_output(self.client, run.info.run_id, model)
            stamp, last = run.info.start_time + round(1000 * result.seconds), len(self.steps)
            metrics = [
                *values.metrics(values.closing_values(result), stamp, last),
                *self._accuracies(values.test_values(result, result.compressed), stamp, last, "test", model),
                *self._accuracies(values.test_values(result, result.original), stamp, 0, "test", original),
            ]
            tags = values.tags(environment=result.environment, metrics=values.metric_tag(result.metrics))
            log(self.client, run.info.run_id, metrics, tags=tags)
            version = self._register(run.info.run_id, model, result, checkpoint)
            self.client.set_terminated(run.info.run_id, "FINISHED")
            log(self.client, run.info.run_id, tags=values.tags(model_version=version, recorded="true"))
            self.run = self.client.get_run(run.info.run_id)

    def interrupted(self, error: BaseException | None = None) -> None:
        """Mark a run that has begun as KILLED, or as FAILED by `error`. Never raises: the first error counts."""
        if self.run is None or is_recorded(self.run):
            return
        failed = error is not None and not isinstance(error, KeyboardInterrupt)
        with suppress(Exception):
            self.client.set_terminated(self.run.info.run_id, "FAILED" if failed else "KILLED")

    def failed(self, run_key: str) -> None:
        """Mark the run of that key as FAILED, if it is this holder's and has not ended. Never raises, so that the first
        error is seen. Kubeflow itself marks its own run of this task's pipeline."""
        with suppress(Exception):
            self._open()
            run = run_of(self.client, self.experiment_id, run_key)
            if run is None or is_recorded(run) or not is_held_by(run, self.holder):
                return
            if self._pipeline is None or run.info.run_id != self._pipeline.info.run_id:
                self.client.set_terminated(run.info.run_id, "FAILED")

    def _explained(self) -> AbstractContextManager[None]:
        return explained(self.tracking_uri, RESUMED)

    def _begun(self) -> "Run":
        if self.run is None:
            raise RuntimeError("begin comes before step and end")
        return self.run

    def _open(self) -> None:
        """Open, once, the client, the experiment, and the run that Kubeflow has created for this task's pipeline."""
        if self.client is not None:
            return
        self.client = open_client(self.tracking_uri, create=True, advice=RESUMED)
        if self.within is None:
            path = path_of(self.tracking_uri)
            artifacts = path.parent / "artifacts" if path else None  # next to the database, and not in ./mlruns
            self.experiment_id = make_experiment(self.client, self.experiment, artifacts)
            return
        task = self.client.get_run(self.within)
        self._pipeline = self.client.get_run(task.data.tags.get(PARENT, self.within))
        self.experiment_id = self._pipeline.info.experiment_id
        open_for_training(self.client, self.client.get_experiment(self.experiment_id))

    def _parent_run(self, info: RunInfo) -> "Run":
        found = run_of(self.client, self.experiment_id, info.run_key)
        ours = values.tags(kind="run", run_key=info.run_key, original=info.teacher, holder=self.holder, **self.about)
        if self._pipeline:
            known = (found or self._pipeline).info.run_id
            for run_id in {str(self.within), self._pipeline.info.run_id} - {known}:
                log(self.client, run_id, tags=values.tags(run_key=info.run_key, run=known))
            if not found:
                log(self.client, known, tags=ours)
                return self.client.get_run(known)
        if not found:
            name = f"{self.model_name} {info.run_key[:12]}"
            return self.client.create_run(self.experiment_id, tags=ours, run_name=values.title(name))
        if not is_recorded(found):
            self.client.update_run(found.info.run_id, "RUNNING")
            log(self.client, found.info.run_id, tags=values.tags(holder=self.holder, **self.about))
        return self.client.get_run(found.info.run_id)

    def _record_beginning(self, run: "Run", info: RunInfo) -> None:
        from mlflow.entities import LoggedModelInput

        run_id, widths, begun = run.info.run_id, info.parameters_by_tower, run.info.start_time
        tags = {"address": info.teacher_address, "run_key": info.run_key}
        original = self._model(info.teacher, "original", run_id, tags, widths)
        self.client.log_inputs(run_id, values.dataset_inputs(info), [LoggedModelInput(original)])
        counts = {"parameters": float(sum(widths.values()))} | values.by("parameters", widths)
        metrics = values.metrics(counts, begun, 0)
        metrics += self._accuracies({"accuracy": info.gate_accuracy}, begun, 0, "gate", original)
        # a parameter is write-once, but a resumed run may have other paths: they are no part of its key
        settings = values.flat(info.plan.model_dump(mode="json"))
        settings = {key: value for key, value in settings.items() if key not in run.data.params}
        log(self.client, run_id, metrics, settings)

    def _start_step(self, name: str, step: StepResult) -> "Run":
        """Create the next nested run; its start is now minus the time that the step's parts took."""
        parent = self._begun()
        tags = values.tags(
            kind="step",
            step=name,
            position=len(self.steps) + 1,
            run_key=parent.data.tags["lmmpress.run_key"],
            stage=step.stage,
            index=step.index,
            tower=step.tower,
            removed=step.removed,
            jump=step.title if step.jump else None,
            metrics=values.metric_tag(step.metrics),
            decision=step.decision,
            reason=step.reason,
            parent=step.parent,
            **values.machine_tags(step),
        ) | {PARENT: parent.info.run_id}
        began = round(1000 * (time.time() - sum(step.seconds.values())))
        title = f"{step.stage} {step.index + 1} {step.tower}"
        return self.client.create_run(self.experiment_id, began, tags, values.title(title))

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
            name = f"{step.stage}-{step.index}"
            model = self._model(step.checkpoint, name, run_id, tags, step.parameters_by_tower, step.tower)
            log_output(self.client, run_id, model)
        measured = {"accuracy_pruned": step.accuracy_pruned, "drop": step.drop, "reference": step.reference}
        counts = {"parameters": float(step.parameters)} | values.by("parameters", step.parameters_by_tower)
        bounds = step.drop_interval and {"drop_low": step.drop_interval.low, "drop_high": step.drop_interval.high}
        shared = values.metrics(measured | counts | (bounds or {}), ended, position)
        shared += self._accuracies({"accuracy": step.accuracy}, ended, position, "gate", model)
        own = values.metrics(values.by("seconds", step.seconds), ended, position)
        own += values.metrics(values.machine_values(step), ended, position)
        own += values.metrics(values.drop_values(step.drop_by_task), ended, position)
        own += values.metrics({"score_reliability": step.score_reliability}, ended, position)
        own += self._accuracies(values.task_values(step.accuracy_by_task, step.metrics), ended, position, "gate", model)
        own += [one for update, loss in enumerate(step.loss) for one in values.metrics({"loss": loss}, ended, update)]
        log(self.client, parent.info.run_id, shared)
        log(self.client, run_id, shared + own)
        self.client.set_terminated(run_id, "FINISHED", ended)
        log(self.client, run_id, tags=values.tags(recorded="true"))

    def _accuracies(
        self, measured: values.Scalars, stamp: int, position: int, role: str, model: str | None
    ) -> "list[Metric]":
        """Log metrics, which MLflow shows at the model and at the data set that they were measured on."""
        used = next((split for split in self.data if split.role == role), None)
        where = {"dataset_name": values.title(used.split), "dataset_digest": values.short(used.digest)} if used else {}
        return values.metrics(measured, stamp, position, model_id=model, **where)

    def _model(
        self, digest: str, name: str, run_id: str, tags: Mapping[str, Any], widths: Mapping[str, int], tower: str = ""
    ) -> str:
        """The id of a checkpoint's LoggedModel, which is created if there is none."""
        if digest not in self.models:
            params = {"checkpoint": digest, "parameters": sum(widths.values())} | values.by("parameters", widths)
            made = self.client.create_logged_model(
                self.experiment_id,
                values.plain(f"{self.model_name}-{name}"),
                run_id,
                tags=values.tags(checkpoint=digest, tower=tower or None, **tags),
                params=values.texts(params),
                model_type="lmmpress",
            )
            self.models[digest] = made.model_id
        self.client.finalize_logged_model(self.models[digest], "READY")
        return self.models[digest]

    def _register(self, run_id: str, model: str, result: Result, checkpoint: Path | None) -> str:
        name = values.plain(self.model_name)
        ensure_registered_model(self.client, name)
        tags = values.tags(
            run_key=result.run_key,
            checkpoint=result.compressed.checkpoint,
            address=result.compressed.address,
            path=checkpoint,
            original=result.original.checkpoint,
            model=self.about.get("model"),
        )
        version = self._version_of(result)
        if version is None:
            with resolving_models_in(self.client):
                version = self.client.create_model_version(
                    name, f"models:/{model}", run_id, tags, await_creation_for=0, model_id=model
                )
        self.client.set_registered_model_alias(name, ALIAS, version.version)
        return str(version.version)

    def _version_of(self, result: Result) -> "ModelVersion | None":
        """The version under this recorder's name that a run has come to, if there is one."""
        versions = self.client.search_model_versions(f"name='{values.plain(self.model_name)}'")
        known = (version for version in versions if version.tags.get("lmmpress.run_key") == result.run_key)
        return next(known, None)
