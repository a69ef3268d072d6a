"""Recording within a run of Kubeflow's own MLflow plugin."""

import json
from pathlib import Path

import pytest
from mlflow.entities import Metric, Param
from support.certain import certain
from support.lineage import STEPS, nested_runs, run_info, tell

from lmmpress.tracking.client import open_client
from lmmpress.tracking.lineage import Lineage

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


class Pipeline:
    """A pipeline as Kubeflow's MLflow plugin records it: one run for the pipeline, with a nested run for each task."""

    def __init__(self, address: str, experiment: str) -> None:
        self.client, self.address = open_client(address), address
        known = self.client.get_experiment_by_name(experiment)
        self.experiment = known.experiment_id if known else self.client.create_experiment(experiment)
        self.run = self.client.create_run(self.experiment, tags={"kfp.pipeline_run_id": "a-run"}).info.run_id

    def begin_task(self, name: str) -> Lineage:
        tags = {"mlflow.parentRunId": self.run, "kfp.task": name}
        self.task = self.client.create_run(self.experiment, tags=tags, run_name=name).info.run_id
        return Lineage(self.address, "plugged", "not this one", within=self.task, holder=self.run)

    def end_task(self, **inputs: object) -> None:
        """What the launcher logs when a task has ended: its inputs as JSON, and its metrics, in one batch."""
        metrics = [Metric("accuracy", 0.9, 1, 0)]
        params = [Param(key, json.dumps(value)) for key, value in inputs.items()]
        self.client.log_batch(self.task, metrics=metrics, params=params)
        self.client.set_terminated(self.task, "FINISHED")

    def end(self, status: str = "FINISHED") -> None:
        self.client.set_terminated(self.run, status)


def test_within_a_kubeflow_pipeline_its_mlflow_run_is_used_and_its_tasks_are_unchanged(
    server_store: tuple[str, Path],
) -> None:
    """No parent run is made besides Kubeflow's, and nothing that we log conflicts with what its launcher logs."""
    inputs = {"store": "s3://b/s", "run": "k-1", "stage": "block", "index": 0, "alpha": 0.15, "seed": 3}
    first = Pipeline(server_store[0], "with the plugin")
    tasks = []
    for known in ([], STEPS[:1]):
        lineage = first.begin_task("gate")
        lineage.begin(run_info("plugged"))
        for one in known:
            lineage.step(one)
        first.end_task(**inputs)
        tasks.append(first.task)
    assert certain(lineage.run).info.run_id == first.run
    assert certain(lineage.run).data.tags["lmmpress.run_key"] == "plugged"
    assert certain(lineage.run).data.tags["kfp.pipeline_run_id"] == "a-run"
    first.end("FAILED")

    # another pipeline carries it on: what it adds belongs to the same run, and its own says where that is
    second = Pipeline(server_store[0], "with the plugin")
    lineage = second.begin_task("publish")
    tell(lineage, "plugged")
    second.end_task(**inputs)
    second.end()
    assert certain(lineage.run).info.run_id == first.run
    assert {lineage.client.get_run(run_id).info.status for run_id in tasks} == {"FINISHED"}
    for run_id in (*tasks, second.run, second.task):
        task = lineage.client.get_run(run_id)
        assert task.data.tags["lmmpress.run"] == first.run
        if run_id != second.run:
            assert task.data.metrics == {"accuracy": 0.9}
            assert task.data.params["stage"] == '"block"'
    (parent,) = [
        run
        for run in lineage.client.search_runs([lineage.experiment_id])
        if run.data.tags.get("lmmpress.kind") == "run"
    ]
    assert parent.info.run_id == first.run
    assert parent.info.status == "FINISHED"
    assert len(nested_runs(lineage)) == len(STEPS)
    assert {run.data.tags["mlflow.parentRunId"] for run in nested_runs(lineage).values()} == {first.run}
    assert not set(parent.data.params) & inputs.keys()


def test_a_task_that_was_killed_within_kubeflow_is_ended_by_the_next_attempt(server_store: tuple[str, Path]) -> None:
    """Its pod is gone, and with it the launcher that would have ended the task's run."""
    pipeline = Pipeline(server_store[0], "killed within")
    first = pipeline.begin_task("distill")
    first.take_over("k")
    lost, other = pipeline.task, pipeline.client.create_run(pipeline.experiment).info.run_id
    again = pipeline.begin_task("distill")
    again.take_over("k")
    statuses = [pipeline.client.get_run(run).info.status for run in (lost, pipeline.task, pipeline.run, other)]
    assert statuses == ["KILLED", "RUNNING", "RUNNING", "RUNNING"]
    assert pipeline.client.get_run(lost).data.tags["lmmpress.run_key"] == "k"


def test_the_run_of_an_earlier_pipeline_is_ended_when_the_one_that_resumes_it_fails(
    server_store: tuple[str, Path],
) -> None:
    first = Pipeline(server_store[0], "carried on")
    first.begin_task("gate").begin(run_info("carried"))
    first.end("FAILED")
    second = Pipeline(server_store[0], "carried on")
    lineage = second.begin_task("gate")
    lineage.begin(run_info("carried"))
    assert lineage.client.get_run(first.run).info.status == "RUNNING"
    lineage.failed("carried")
    assert lineage.client.get_run(first.run).info.status == "FAILED"
    assert lineage.client.get_run(second.run).info.status == "RUNNING", "Kubeflow ends it"
