"""A run that went on while MLflow did not answer, and is recorded afterwards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.tasks import chain, name_of, prepared, status_of_run, steps_in, walk
from typer.testing import CliRunner

from lmmpress.cli.app import app
from lmmpress.errors import UserError
from lmmpress.store import open_store
from lmmpress.tasks.late_lineage import record_run

pytestmark = pytest.mark.usefixtures("trusting")
AWAY = "http://127.0.0.1:9"


@pytest.fixture
def plan(raw_plan: dict[str, Any], taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("lmmpress.tracking.client._PAUSES", ())
    monkeypatch.setattr("lmmpress.tasks.lineage._SHORTLY", 0.1)
    little = {"epochs": 1, "learning_rate": 1e-9, "batch_size": 8}
    alike = {"tolerance": {"alpha": 0.99}, "distillation": little, "stages": {"block": {"step": 1, "max": 1}}}
    return raw_plan | alike | {"model": str(taught), "store": str(tmp_path / "store")}


def test_mlflow_that_is_away_fails_no_task_and_the_run_is_recorded_afterwards(
    plan: dict[str, Any],
    lineage_in: Callable[[Path], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("lmmpress.tracking.background.patience", lambda: 0.5)
    for _, task in walk(plan):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)  # from the second task on: the first would have told
        task()
    words = capsys.readouterr().err
    assert f"`lmmpress store record {plan['store']} {name_of(plan)}` records this run afterwards" in words
    monkeypatch.setenv("MLFLOW_TRACKING_URI", lineage_in(tmp_path / "lineage"))
    told = CliRunner().invoke(app, ["store", "record", plan["store"], name_of(plan)[:12]])
    assert told.exit_code == 0, told.output
    assert "recorded: 1 steps, and the result" in told.output
    assert status_of_run(tmp_path / "lineage") == "FINISHED"
    steps, version = chain(tmp_path / "lineage")
    assert len(steps) == 1
    assert record_run(plan["store"], name_of(plan)) == (1, True), "twice is once"
    assert chain(tmp_path / "lineage") == (steps, version)


def test_a_run_that_has_not_ended_is_recorded_as_far_as_it_is(
    plan: dict[str, Any], lineage_in: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, task in walk(plan | {"stages": {"block": {"step": 1, "max": 2}}}):
        task()
        if name == "gate block 0":
            break
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI is not set"):
        record_run(plan["store"], name_of(plan))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", lineage_in(tmp_path / "lineage"))
    assert record_run(plan["store"], name_of(plan)) == (1, False)
    assert steps_in(tmp_path / "lineage") == ["block/0"]
    with pytest.raises(UserError, match="no pipeline has made a run nothing"):
        record_run(plan["store"], "nothing")


def test_a_wrong_address_of_mlflow_is_told_by_the_first_task(
    plan: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    with pytest.raises(SystemExit) as ended:
        prepared(plan)
    assert ended.value.code == 2
    assert f"MLflow at {AWAY}: no answer" in capsys.readouterr().err


def test_mlflow_knows_the_pipeline_and_the_pods_and_tasks_link_to_it(
    plan: dict[str, Any], lineage_in: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmmpress.tracking.client import open_client

    pod = {
        "POD": "lmm-abc-distill-1",
        "NODE": "node-7",
        "WORKFLOW": "lmm-abc",
        "PIPELINE_RUN": "1f",
        "SUBMITTER": "ann",
    }
    pages = {"SUBMITTER": "ann", "PAGES": "https://kubeflow/pipeline/", "MLFLOW_PAGES": "https://mlflow/"}
    for name, text in (pod | pages | {"COMMIT": "c0ffee", "IMAGE": "lmmpress@sha256:ab"}).items():
        monkeypatch.setenv(f"LMMPRESS_{name}", text)
    monkeypatch.setattr("lmmpress.tasks.lineage._SHORTLY", 20)
    uri = lineage_in(tmp_path / "lineage")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    links = {}
    for name, task in walk(plan):
        links[name] = task().summary.rpartition("\n")[2]
    client = open_client(uri)
    (experiment,) = client.search_experiments(filter_string="name = 'lmmpress'")
    by_kind = {
        run.data.tags["lmmpress.kind"]: run for run in client.search_runs([experiment.experiment_id]) if run.data.tags
    }
    tags = by_kind["run"].data.tags
    assert tags["lmmpress.pipeline"] == "https://kubeflow/pipeline/#/runs/details/1f"
    assert (tags["lmmpress.workflow"], tags["lmmpress.submitter"]) == ("lmm-abc", "ann")
    assert (tags["lmmpress.image"], tags["lmmpress.commit"]) == ("lmmpress@sha256:ab", "c0ffee")
    step = by_kind["step"].data
    assert (step.tags["lmmpress.pod.distill"], step.tags["lmmpress.node"]) == ("lmm-abc-distill-1", "node-7")
    assert step.metrics["peak_memory.distill"] > 50e6
    link = f"[the run in MLflow](https://mlflow/#/experiments/{experiment.experiment_id}/runs/{by_kind['run'].info.run_id})"
    assert links["gate block 0"] == links["publish"] == link


def test_an_address_for_people_is_no_secret_and_a_store_keeps_no_other_link(plan: dict[str, Any]) -> None:
    """A stranger's store may name any page; only numbers and letters get into a link."""
    from lmmpress.store.objects import UnreadableError

    store = open_store(plan["store"])
    key = "a" * 64
    store.write_record(f"lineage-{key}", {"experiment": "1", "run": "x)](https://evil"})
    with pytest.raises(UnreadableError):
        store.read_record(f"lineage-{key}")
