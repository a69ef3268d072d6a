"""A run of four steps as it is recorded in MLflow, without a model: the calls, and the records found afterwards."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.entities import Run

from lmmpress.plan import parse_plan
from lmmpress.result import DataInfo, Headline, Interval, Latency, Result, RunInfo, StepResult
from lmmpress.tracking.lineage import Lineage
from support.results import Decision

PLAN = {"model": "/models/original", "data": "/data/adverts", "stages": {"block": {"step": 1, "max": 3}}}
SHA = {name: (name[0] * 64) for name in ("original", "a-first", "b-second", "d-final")}
TOWERS = {"vision": 300, "qformer": 200, "language": 500}


def run_info(run_key: str) -> RunInfo:
    return RunInfo(
        run_key=run_key,
        plan=parse_plan(PLAN),
        teacher=SHA["original"],
        teacher_address="file:///models/original",
        parameters_by_tower=TOWERS,
        data=[
            DataInfo(split="score", role="score", rows=64, digest="1" * 64),
            DataInfo(split="distill", role="distill", rows=640, digest="2" * 64),
            DataInfo(split="gate", role="gate", rows=128, digest="3" * 64),
            DataInfo(split="test", role="test", rows=256, digest="4" * 64),
        ],
        gate_accuracy=0.75,
    )


def step(index: int, parent: str, checkpoint: str, decision: Decision = "accepted") -> StepResult:
    rolled_back = decision == "rolled back"
    return StepResult(
        stage="block",
        index=index,
        tower="language",
        removed=1,
        decision=decision,
        reason="drop 0.30 is not below alpha 0.15" if rolled_back else "drop 0.02 is below alpha 0.15",
        parent=SHA[parent],
        checkpoint=None if rolled_back else SHA[checkpoint],
        address=None if rolled_back else f"file:///store/{checkpoint}",
        parameters=1000 - 100 * index,
        parameters_by_tower=TOWERS | {"language": 500 - 100 * index},
        accuracy_pruned=0.25,
        accuracy=0.45 if rolled_back else 0.73,
        accuracy_by_task={"mask: shape": 0.5},
        reference=0.75,
        drop=0.30 if rolled_back else 0.02,
        drop_interval=Interval(low=-0.01, high=0.05, confidence=0.9),
        score_reliability=None,
        loss=[2.0, 1.5, 1.25],
        seconds={"importance": 1.0, "prune": 0.5, "distill": 4.0, "evaluate": 2.0},
    )


STEPS = [
    step(1, "original", "a-first"),
    step(2, "a-first", "b-second", "kept"),
    step(3, "b-second", "none", "rolled back"),
    step(4, "b-second", "d-final"),
]


def headline(checkpoint: str, parameters: int, accuracy: float) -> Headline:
    return Headline(
        checkpoint=SHA[checkpoint],
        address=f"file:///store/{checkpoint}",
        parameters=parameters,
        parameters_by_tower=TOWERS,
        accuracy=accuracy,
        accuracy_by_task={"mask: shape": accuracy},
        batch_size=32,
        samples_per_second=100.0,
        latency_ms=Latency(p50=8.0, p95=9.0),
    )


def result(run_key: str, steps: list[StepResult], final: str = "d-final") -> Result:
    return Result(
        original=headline("original", 1000, 0.80),
        compressed=headline(final, 600, 0.78),
        drop=0.02,
        drop_interval=Interval(low=-0.01, high=0.05, confidence=0.95),
        reduction={"all": 1000 / 600},
        steps=steps,
        run_key=run_key,
        seconds=40.0,
        seconds_by_part={"distill": 16.0},
        alpha=0.15,
        environment={"torch": "2.6"},
    )


def tell(lineage: Lineage, run_key: str, steps: list[StepResult] = STEPS, final: str = "d-final") -> None:
    lineage.begin(run_info(run_key))
    for one in steps:
        lineage.step(one)
    lineage.end(result(run_key, steps, final), Path("/runs/final"))


def again(lineage: Lineage) -> Lineage:
    """The lineage as another or a resumed process opens it: the same store, an empty memory."""
    return Lineage(lineage.tracking_uri, lineage.model_name, lineage.experiment)


def nested_runs(lineage: Lineage) -> dict[int, "Run"]:
    found = lineage.client.search_runs([lineage.experiment_id], "tags.`lmmpress.kind` = 'step'")
    return {int(run.data.tags["lmmpress.index"]): lineage.client.get_run(run.info.run_id) for run in found}


def parent_run(lineage: Lineage) -> "Run":
    (found,) = lineage.client.search_runs([lineage.experiment_id], "tags.`lmmpress.kind` = 'run'")
    return lineage.client.get_run(found.info.run_id)


def rows(folder: Path) -> dict[str, int]:
    """The number of rows of each table in the database."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        return {name: database.execute(f'select count(*) from "{name}"').fetchone()[0] for name in tables}


def content(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        return sorted(database.iterdump())


on_both = pytest.mark.parametrize("store", ["sqlite_store", "server_store"], indirect=True)
