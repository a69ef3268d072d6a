"""Lineage is read back through MLflow's own client, from a sqlite file and from a real server."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.entities import Metric, Param
from support.mlflow_server import new_database, serving

from lmmpress.errors import UserError
from lmmpress.plan import Plan
from lmmpress.result import DataInfo, Headline, Interval, Latency, Result, RunInfo, StepResult
from lmmpress.tracking.client import local_store, open_client
from lmmpress.tracking.lineage import Lineage

SHA = {name: (name[0] * 64) for name in ("original", "a-first", "b-second", "d-final")}
TOWERS = {"vision": 300, "qformer": 200, "language": 500}


def run_info(run_key: str) -> RunInfo:
    return RunInfo(
        run_key=run_key,
        plan=Plan(model="/models/original", data="/data/adverts", stages={"block": {"step": 1, "max": 3}}),
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


def step(index: int, parent: str, checkpoint: str, decision: str = "accepted") -> StepResult:
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


@pytest.fixture(scope="module")
def sqlite_store(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A tracking URI, and the folder in which its database is."""
    folder = tmp_path_factory.mktemp("sqlite")
    return local_store(folder), folder


@pytest.fixture(scope="module")
def server_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("server")
    with serving(new_database(folder / "mlflow.db"), tmp_path_factory.mktemp("cwd")) as address:
        yield address, folder


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing may be written to the working directory, whatever is recorded."""
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def store(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """The sqlite file, or what `on_both` says."""
    return request.getfixturevalue(getattr(request, "param", "sqlite_store"))


on_both = pytest.mark.parametrize("store", ["sqlite_store", "server_store"], indirect=True)


@pytest.fixture
def lineage(store: tuple[str, Path], request: pytest.FixtureRequest) -> Lineage:
    name = request.node.originalname
    return Lineage(store[0], model_name=name, experiment=name)


def again(lineage: Lineage) -> Lineage:
    """What another process makes, or the same resumed: the same store, nothing remembered."""
    return Lineage(lineage.tracking_uri, lineage.model_name, lineage.experiment)


def nested_runs(lineage: Lineage) -> dict[int, object]:
    found = lineage.client.search_runs([lineage.experiment_id], "tags.`lmmpress.kind` = 'step'")
    return {int(run.data.tags["lmmpress.index"]): lineage.client.get_run(run.info.run_id) for run in found}


def parent_run(lineage: Lineage) -> object:
    (found,) = lineage.client.search_runs([lineage.experiment_id], "tags.`lmmpress.kind` = 'run'")
    return lineage.client.get_run(found.info.run_id)


def rows(folder: Path) -> dict[str, int]:
    """How many rows each table of the database has."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        return {name: database.execute(f'select count(*) from "{name}"').fetchone()[0] for name in tables}


def content(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        return sorted(database.iterdump())


@on_both
def test_the_registered_model_leads_back_to_the_original(lineage: Lineage) -> None:
    tell(lineage, "chain")
    client = lineage.client
    version = client.get_model_version_by_alias(lineage.model_name, "compressed")
    assert version.source.startswith("models:/m-")
    assert version.tags["lmmpress.checkpoint"] == SHA["d-final"]
    assert version.tags["lmmpress.address"] == "file:///store/d-final"
    assert version.run_id == parent_run(lineage).info.run_id

    model_id, chain = version.source.removeprefix("models:/"), []
    while True:
        model = client.get_logged_model(model_id)
        chain.append(model.tags["lmmpress.checkpoint"])
        made_by = client.get_run(model.source_run_id)
        if made_by.data.tags["lmmpress.kind"] == "run":
            break
        assert [output.model_id for output in made_by.outputs.model_outputs] == [model_id]
        (before,) = made_by.inputs.model_inputs
        assert client.get_logged_model(before.model_id).tags["lmmpress.checkpoint"] == model.tags["lmmpress.parent"]
        model_id = before.model_id
    assert chain == [SHA["d-final"], SHA["b-second"], SHA["a-first"], SHA["original"]]


@on_both
def test_a_rolled_back_step_is_a_run_without_a_model(lineage: Lineage) -> None:
    tell(lineage, "rolled-back")
    runs = nested_runs(lineage)
    assert sorted(runs) == [1, 2, 3, 4]
    assert runs[3].outputs.model_outputs == []
    assert runs[3].data.tags["lmmpress.decision"] == "rolled back"
    assert runs[3].data.tags["lmmpress.reason"] == "drop 0.30 is not below alpha 0.15"
    assert len(lineage.client.search_logged_models([lineage.experiment_id])) == len(SHA)


def test_a_run_says_what_was_measured_on_which_data(lineage: Lineage) -> None:
    tell(lineage, "measured")
    client, parent = lineage.client, parent_run(lineage)
    assert parent.info.status == "FINISHED"
    assert parent.data.params["plan.tolerance.alpha"] == "0.15"
    history = {metric.step: metric.value for metric in client.get_metric_history(parent.info.run_id, "accuracy")}
    assert history == {0: 0.75, 1: 0.73, 2: 0.73, 3: 0.45, 4: 0.73}
    assert parent.data.metrics["test.drop"] == 0.02
    first = nested_runs(lineage)[1]
    assert first.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert first.data.metrics["seconds.distill"] == 4.0
    assert first.data.metrics["accuracy.mask_ shape"] == 0.5
    assert [metric.value for metric in client.get_metric_history(first.info.run_id, "loss")] == [2.0, 1.5, 1.25]
    assert first.info.end_time - first.info.start_time == 7500
    inputs = {tag.value: entry.dataset for entry in parent.inputs.dataset_inputs for tag in entry.tags}
    assert inputs["gate"].name == "gate"
    assert inputs["gate"].digest == "3" * 36, "MLflow takes no more of a digest"
    assert inputs["3" * 64] == inputs["gate"], "the whole digest is a tag"
    model = client.get_logged_model(first.outputs.model_outputs[0].model_id)
    assert model.status == "READY"
    assert model.params["parameters.language"] == "400"
    measured = {(metric.key, metric.dataset_digest): metric.value for metric in model.metrics}
    assert measured["accuracy", "3" * 36] == 0.73


@on_both
def test_telling_everything_twice_changes_nothing(lineage: Lineage, store: tuple[str, Path]) -> None:
    tell(lineage, "twice")
    before = content(store[1])
    tell(lineage, "twice")
    tell(again(lineage), "twice")
    assert content(store[1]) == before


def test_what_was_cut_off_half_way_is_completed_and_not_doubled(lineage: Lineage, store: tuple[str, Path]) -> None:
    tell(lineage, "cut-off")
    before = rows(store[1])
    for run in [parent_run(lineage), *nested_runs(lineage).values()]:
        lineage.client.delete_tag(run.info.run_id, "lmmpress.recorded")
    tell(again(lineage), "cut-off")
    assert rows(store[1]) == before


def test_an_interrupted_run_is_marked_and_goes_on_when_resumed(lineage: Lineage) -> None:
    lineage.begin(run_info("interrupted"))
    lineage.step(STEPS[0])
    lineage.interrupted(KeyboardInterrupt())
    assert parent_run(lineage).info.status == "KILLED"
    lineage.interrupted(ValueError("no space left"))
    assert parent_run(lineage).info.status == "FAILED"
    resumed = again(lineage)
    resumed.begin(run_info("interrupted"))
    assert parent_run(resumed).info.status == "RUNNING"
    tell(resumed, "interrupted")
    assert parent_run(resumed).info.status == "FINISHED"
    assert sorted(nested_runs(resumed)) == [1, 2, 3, 4]
    resumed.interrupted(ValueError("too late"))
    assert parent_run(resumed).info.status == "FINISHED"


def killed(lineage: Lineage) -> None:
    """Leave a run as a process does that is killed while it records its second step."""
    lineage.begin(run_info("killed"))
    lineage.step(STEPS[0])
    lineage._start_step("block/2", STEPS[1])


@on_both
def test_what_a_killed_process_left_running_is_ended_by_who_takes_over(lineage: Lineage) -> None:
    killed(lineage)
    resumed = again(lineage)
    resumed.take_over("another run")
    assert parent_run(lineage).info.status == "RUNNING", "it may be somebody's work"
    resumed.take_over("killed")
    assert parent_run(resumed).info.status == "KILLED"
    assert [nested_runs(resumed)[index].info.status for index in (1, 2)] == ["FINISHED", "KILLED"]
    tell(resumed, "killed")
    assert parent_run(resumed).info.status == "FINISHED"
    assert {run.info.status for run in nested_runs(resumed).values()} == {"FINISHED"}
    assert sorted(nested_runs(resumed)) == [1, 2, 3, 4]


def test_a_run_stays_running_between_two_tasks_of_one_submission(lineage: Lineage) -> None:
    first, second, other = (
        Lineage(lineage.tracking_uri, lineage.model_name, lineage.experiment, holder=holder)
        for holder in ("submission-1", "submission-1", "submission-2")
    )
    first.begin(run_info("shared"))
    second.take_over("shared")
    assert parent_run(second).info.status == "RUNNING"
    other.failed("shared")
    assert parent_run(second).info.status == "RUNNING", "the run is not its own"
    second.failed("shared")
    assert parent_run(second).info.status == "FAILED"
    other.begin(run_info("shared"))
    assert parent_run(other).info.status == "RUNNING"
    first.take_over("shared")
    assert parent_run(other).info.status == "KILLED", "the first submission has the lease again"


def test_an_experiment_opens_in_the_view_for_model_training(lineage: Lineage) -> None:
    kind = "mlflow.experimentKind"
    lineage.begin(run_info("viewed"))
    client = lineage.client
    assert client.get_experiment(lineage.experiment_id).tags[kind] == "custom_model_development"

    client.create_experiment("without")
    again(Lineage(lineage.tracking_uri, "m", "without")).begin(run_info("viewed"))
    assert client.get_experiment_by_name("without").tags[kind] == "custom_model_development"

    client.create_experiment("chosen", tags={kind: "genai_development"})
    again(Lineage(lineage.tracking_uri, "m", "chosen")).begin(run_info("viewed"))
    assert client.get_experiment_by_name("chosen").tags[kind] == "genai_development", "what somebody chose stays"


HOSTILE = "\x1b[31mred\nerror: forged \ud800 \u202e"
SHOWN = r"\x1b[31mred\nerror: forged \ud800 \u202e"


def test_texts_of_strangers_are_shown_and_break_nothing(lineage: Lineage) -> None:
    """Names of tasks and splits, a reason and a path as a hostile data set would have them."""
    info = run_info("hostile")
    splits = [info.data[2].model_copy(update={"split": HOSTILE}), *info.data[3:]]
    plan = info.plan.model_copy(update={"data": HOSTILE})
    hostile = STEPS[0].model_copy(update={"reason": HOSTILE, "tower": HOSTILE, "accuracy_by_task": {HOSTILE: 0.5}})
    lineage.begin(info.model_copy(update={"data": splits, "plan": plan}))
    lineage.step(hostile)
    final = result("hostile", [hostile], "a-first")
    told = final.compressed.model_copy(update={"accuracy_by_task": {HOSTILE: 0.5}})
    lineage.end(final.model_copy(update={"compressed": told}), Path("/runs/\udcff"))

    parent, run = parent_run(lineage), nested_runs(lineage)[1]
    assert parent.data.params["plan.data"] == SHOWN
    assert parent.inputs.dataset_inputs[0].dataset.name == SHOWN
    assert run.data.tags["lmmpress.reason"] == SHOWN
    assert run.info.run_name == f"block 1 {SHOWN}"
    (metric,) = [name for name in run.data.metrics if name.startswith("accuracy.")]
    assert metric.isprintable()
    (version,) = lineage.client.search_model_versions(f"name='{lineage.model_name}'")
    assert version.tags["lmmpress.path"] == r"/runs/\udcff"


def test_a_second_run_registers_a_second_version(lineage: Lineage) -> None:
    tell(lineage, "one")
    tell(again(lineage), "two")
    assert lineage.client.get_model_version_by_alias(lineage.model_name, "compressed").tags["lmmpress.run_key"] == "two"
    tell(again(lineage), "one")
    assert lineage.client.get_model_version_by_alias(lineage.model_name, "compressed").tags["lmmpress.run_key"] == "two"


def test_where_every_step_is_rolled_back_the_original_is_registered(lineage: Lineage) -> None:
    tell(lineage, "nothing", steps=[step(1, "original", "none", "rolled back")], final="original")
    version = lineage.client.get_model_version_by_alias(lineage.model_name, "compressed")
    assert version.tags["lmmpress.checkpoint"] == SHA["original"]
    assert parent_run(lineage).outputs.model_outputs == []


def test_a_text_longer_than_mlflow_takes_is_cut(lineage: Lineage) -> None:
    long = STEPS[0].model_copy(update={"reason": "x" * 100_000, "stage": "s" * 1000})
    tell(lineage, "long", steps=[long], final="a-first")
    assert nested_runs(lineage)[1].data.tags["lmmpress.reason"] == "x" * 5000


def test_only_the_database_is_written(store: tuple[str, Path], lineage: Lineage) -> None:
    tell(lineage, "files")
    assert {path.name for path in store[1].rglob("*")} - {"mlflow.db-journal"} == {"mlflow.db"}


def test_a_new_store_is_made_with_its_folder_and_quietly(
    tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path_factory.mktemp("new") / "a" / "b"
    made = Lineage(local_store(folder), "quiet")
    tell(made, "quiet")
    assert capfd.readouterr() == ("", "")
    location = made.client.get_experiment(made.experiment_id).artifact_location
    assert location == (folder / "artifacts").as_uri()


def test_a_store_that_cannot_be_used_is_named_without_its_password(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(UserError, match=r"MLflow at http://127\.0\.0\.1:9: .*resumed") as caught:
        tell(Lineage("http://user:secret@127.0.0.1:9", "m"), "m")
    assert "secret" not in str(caught.value)
    blocking = tmp_path_factory.mktemp("blocked") / "file"
    blocking.write_text("", "utf-8")
    with pytest.raises(UserError, match="cannot hold the lineage store"):
        tell(Lineage(local_store(blocking / "folder"), "m"), "m")


class Pipeline:
    """A pipeline of Kubeflow's as its MLflow plugin records it: a run for all of it, and one below for each task."""

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


def test_within_a_pipeline_of_kubeflow_its_run_is_ours_and_its_tasks_stay_as_they_are(
    server_store: tuple[str, Path],
) -> None:
    """No parent run is made beside Kubeflow's, and nothing we log is in the way of what its launcher logs."""
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
    assert lineage.run.info.run_id == first.run
    assert lineage.run.data.tags["lmmpress.run_key"] == "plugged"
    assert lineage.run.data.tags["kfp.pipeline_run_id"] == "a-run"
    first.end("FAILED")

    # another pipeline carries it on: what it adds belongs to the same run, and its own says where that is
    second = Pipeline(server_store[0], "with the plugin")
    lineage = second.begin_task("publish")
    tell(lineage, "plugged")
    second.end_task(**inputs)
    second.end()
    assert lineage.run.info.run_id == first.run
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


def test_the_run_of_a_pipeline_before_is_ended_where_the_one_that_carries_it_on_fails(
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
