"""The tasks of a pipeline, called one after the other as Kubeflow does, give the same as the run in one process."""

import importlib
import json
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from support import task_functions as tasks
from support.files import contents
from support.forks import Forks, loaded
from support.results import essence
from support.tasks import chain, name_of, prepared, result_of, status_of_run, steps_in, walk
from support.work import WORK

from lmmpress.engine.compression import compress
from lmmpress.engine.parts import launch, training
from lmmpress.lmm.checkpoint import load_model, read_checkpoint, save_trained
from lmmpress.plan import parse_plan
from lmmpress.store import open_store
from lmmpress.store.run_state import hold
from lmmpress.tasks.cluster_profile import COMPONENTS
from lmmpress.tasks.submission import read_submission
from lmmpress.tracking.client import local_store
from lmmpress.tracking.lineage import Lineage

pytestmark = pytest.mark.usefixtures("trusting")


@pytest.fixture(scope="module")
def idle(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that has learned its data, with a last block that adds nothing: without it, it answers the same."""
    model = load_model(taught)
    last = model.get_submodule("language_model.model.layers.3")
    for name in ("self_attn.o_proj.weight", "mlp.down_proj.weight"):
        last.get_parameter(name).data.zero_()
    target = tmp_path_factory.mktemp("idle") / "model"
    save_trained(model, taught, read_checkpoint(taught), target, {"format": 1, "history": []})
    (target / "COMPRESSION.json").unlink()
    return target


@pytest.fixture
def plan(raw_plan: dict[str, Any], idle: Path, tmp_path: Path) -> dict[str, Any]:
    """Two stages in which the gate closes before the end, in a store of the test's.

    On every machine: a block that adds nothing is no loss, and half of the width is too much to lose where nothing is
    learned afterwards.
    """
    hopeless = {"epochs": 1, "learning_rate": 1e-9, "batch_size": 8}
    stages = {"block": {"step": 1, "max": 2}, "io": {"step": 24, "max": 40}}
    return raw_plan | {
        "model": str(idle),
        "tolerance": {"alpha": 0.01},
        "distillation": hopeless,
        "stages": stages,
        "store": str(tmp_path / "store"),
    }


@pytest.fixture(autouse=True)
def no_lineage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_tasks_and_stages_and_one_process_decide_the_same(
    plan: dict[str, Any], lineage_in: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lineage = Lineage(lineage_in(tmp_path / "one"), "antgmm")
    one = compress(parse_plan(plan | {"store": None}), tmp_path / "one", lineage)
    decisions = [(step.stage, step.index, step.decision) for step in one.steps]
    assert decisions[0] == ("block", 0, "accepted")
    assert decisions[2:] == [("io", 0, "rolled back")], "the gate closed before the stage was through"

    by_step = plan | {"store": str(tmp_path / "by step" / "store")}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", lineage_in(tmp_path / "by step"))
    names = []
    for name, task in walk(by_step):
        names.append(name)
        outcome = task()
        assert outcome.summary
        assert outcome.metrics
        assert outcome.address.startswith(by_step["store"])
    assert len([name for name in names if name.startswith("gate")]) == len(one.steps)

    by_stage = plan | {"store": str(tmp_path / "by stage" / "store")}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", lineage_in(tmp_path / "by stage"))
    store, run, _ = prepared(by_stage)
    for stage in plan["stages"]:
        tasks.compress_stage(store, run, stage)
    tasks.publish(store, run, str(tmp_path / "by stage" / "page.html"))

    for raw in (by_step, by_stage):
        found = result_of(raw)
        assert essence(found) == essence(one)
        assert found.compressed.checkpoint == one.compressed.checkpoint
        assert found.compressed.accuracy_by_task == one.compressed.accuracy_by_task
        assert found.run_key == one.run_key
        assert found.drop_interval == one.drop_interval
    assert chain(tmp_path / "by step") == chain(tmp_path / "by stage") == chain(tmp_path / "one")


def test_a_pipeline_submitted_again_carries_on_and_a_finished_one_does_nothing_again(
    plan: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmmpress.store.run_state._ended_here", lambda lease: True)  # as each task's process has
    for name, task in walk(plan):
        if name == "distill block 1":
            break
        task()
    counted: list[str] = []
    for place in (*WORK, "lmmpress.engine.parts.speed.in_all_ways"):
        module, _, function = place.rpartition(".")
        original = getattr(importlib.import_module(module), function)

        def counting(*args: Any, original: Any = original, name: str = function, **kwargs: Any) -> Any:
            counted.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(place, counting)
    names = []
    for name, task in walk(plan):
        names.append(name)
        task()
        if name == "prune block 1":
            assert counted == [], "everything up to here was done by the first"
    assert "gate block 0" not in names
    counted.clear()
    again = [name for name, task in walk(plan) if task()]
    assert again == ["evaluate original", "evaluate result", "publish"]
    assert counted == []


@pytest.mark.parametrize("order", [["block", "attention"], ["io", "ffn", "block"]])
def test_stages_are_taken_in_the_order_of_the_plan(
    plan: dict[str, Any], raw_plan: dict[str, Any], order: list[str]
) -> None:
    raw = plan | {"stages": {stage: raw_plan["stages"][stage] for stage in order}}
    store, run, steps = prepared(raw)
    assert [stage for stage in order if tasks.due(store, run, stage, 0) == "open"] == order[:1]
    assert {stage for stage in steps if steps[stage]} == set(order)


@contextmanager
def ends_with(capsys: pytest.CaptureFixture[str], message: str) -> Iterator[None]:
    """The task ends with an error for its user: one line, exit code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        yield
    assert ended.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert re.search(message, lines[0])


def test_a_task_makes_its_own_part_and_no_other(plan: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    store, run, _ = prepared(plan)
    tasks.evaluate(store, run, "original")
    for task, missing in ((tasks.distill, "prune"), (tasks.evaluate, "prune"), (tasks.gate, "evaluate")):
        with ends_with(capsys, f"{missing} is not done yet"):
            task(store, run, "block", 0)
    with ends_with(capsys, "step 1 of stage io is not due: 0 steps of this run are decided"):
        tasks.importance(store, run, "io", 0)
    with ends_with(capsys, "stage io cannot begin"):
        tasks.compress_stage(store, run, "io")
    with ends_with(capsys, "has not ended"):
        tasks.publish(store, run, "nowhere.html")
    with ends_with(capsys, "there is no submission elsewhere"):
        tasks.due(store, "elsewhere", "block", 0)
    assert tasks.due(store, run, "io", 0) == tasks.due(store, run, "block", 1) == "closed"
    assert tasks.due(store, run, "block", 0) == "open"


def test_a_cut_along_an_axis_with_scores_waits_for_them(
    plan: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    raw = plan | {"stages": {"ffn": {"step": 16, "max": 16}}}
    store, run, _ = prepared(raw)
    tasks.evaluate(store, run, "original")
    with ends_with(capsys, "importance is not done yet"):
        tasks.prune(store, run, "ffn", 0)


def test_the_dtype_that_auto_means_is_fixed_by_the_first_task_that_computes(
    plan: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part made on a GPU in bfloat16 is found by a task on a machine that has none."""
    raw = plan | {"stages": {"ffn": {"step": 16, "max": 16}}}
    dtypes = iter([torch.bfloat16])
    monkeypatch.setattr("lmmpress.engine.run.automatic_dtype", lambda: next(dtypes, torch.float32))
    seen = [outcome for name, task in walk(raw) if (outcome := task()) and name]
    assert len(seen) == 8
    assert result_of(raw).environment["dtype"] == "bfloat16"


def test_distillation_starts_a_process_for_each_gpu(plan: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    raw = plan | {"stages": {"block": {"step": 1, "max": 1}}}
    asked = []
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    original = launch.train_in_processes

    def counting(materials: Any, *args: Any) -> Any:
        asked.append(materials.plan.distillation.processes)
        return original(materials, *args)

    monkeypatch.setattr("lmmpress.engine.parts.distill.train_in_processes", counting)
    for _, task in walk(raw):
        task()
    assert asked == [2]


def test_a_try_after_one_that_ran_out_of_memory_takes_a_smaller_micro_batch(
    plan: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = plan | {"stages": {"block": {"step": 1, "max": 1}}}
    sizes = []
    original = training.train

    def seeing(materials: Any, *args: Any) -> Any:
        sizes.append(materials.plan.distillation.micro_batch_size)
        return original(materials, *args)

    monkeypatch.setattr("lmmpress.engine.parts.distill.train", seeing)
    monkeypatch.setenv("LMMPRESS_SMALLER", "2")
    for _, task in walk(raw):
        task()
    monkeypatch.delenv("LMMPRESS_SMALLER")
    for name, task in walk(raw):
        if name.startswith("distill"):
            task()
            assert sizes == [16], "its result has the name that it has at any size"
    assert sizes == [16]


def test_another_submission_is_waited_for_and_then_named(
    plan: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store, run, _ = prepared(plan)
    told = read_submission(open_store(store), run)
    monkeypatch.setattr("lmmpress.store.run_state._host", lambda: "another-pod 1")
    holding, done = threading.Event(), threading.Event()

    def work() -> None:
        with hold(open_store(store).objects, f"runs/{told.key}.json", seconds=5, holder="another"):
            holding.set()
            done.wait()

    # the process of the first task's lease still lives here, so the lease is removed instead of running out
    monkeypatch.setattr("lmmpress.store.run_state._runs_here", lambda lease: False)
    state = f"{store}/runs/{told.key}.json"
    entry = json.loads(Path(state).read_text("utf-8"))
    assert entry["lease"]["holder"] == run, "kept between two tasks, so that nobody comes between them"
    Path(state).write_text(json.dumps(entry | {"lease": None}), "utf-8")
    thread = threading.Thread(target=work)
    thread.start()
    assert holding.wait(60)
    try:
        with ends_with(capsys, r"another process works on this run \(another-pod, process \d+\)"):
            tasks.evaluate(store, run, "original")
    finally:
        done.set()
        thread.join()
    tasks.evaluate(store, run, "original")  # the other has ended; its lease runs out first


def test_a_decision_is_recorded_by_the_next_task_that_computes(
    plan: dict[str, Any], lineage_in: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", lineage_in(tmp_path / "lineage"))
    for name, task in walk(plan):
        task()
        match name:
            case "gate block 0":
                assert tasks.due(plan["store"], name_of(plan), "block", 0) == "closed", "it was decided"
                assert steps_in(tmp_path / "lineage") == [], "the gate needs no MLflow"
            case "distill block 1":
                assert steps_in(tmp_path / "lineage") == ["block/0"]
            case "prune io 0":
                assert status_of_run(tmp_path / "lineage") == "RUNNING"
                with pytest.raises(SystemExit):
                    tasks.distill(plan["store"], name_of(plan), "io", 7)
                assert status_of_run(tmp_path / "lineage") == "FAILED"
    assert status_of_run(tmp_path / "lineage") == "FINISHED"
    (first, *_), _ = chain(tmp_path / "lineage")
    assert dict(first.tags)["step"] == "block/0"


@pytest.mark.long
def test_a_pipeline_goes_on_after_a_task_of_any_component_was_killed(
    raw_plan: dict[str, Any], taught: Path, tmp_path: Path
) -> None:
    """kill -9 after a task's work and before it reports its result, and then a new pipeline; for each component. The
    tasks are called as their components call them; test_kfp_local.py does the same to processes of Kubeflow."""
    stages = {axis: raw_plan["stages"][axis] for axis in ("ffn", "attention", "io")}
    raw = raw_plan | {"model": str(taught), "stages": {"block": {"step": 1, "max": 1}} | stages}
    one = compress(parse_plan(raw), tmp_path / "one")
    raw |= {"store": str(tmp_path / "store"), "compare": True}
    order = ["prepare", "steps", "evaluate", "due", "block_prune", "distill", "gate", "importance"]
    order += ["ffn_prune", "attention_prune", "io_prune", "publish", "compare"]
    assert {*order, "stage", "approval"} == set(COMPONENTS)
    decided: list[Any] = []
    with Forks("support.killed", *loaded("transformers", "accelerate")) as forks:
        for component in (*order, None):
            ended = forks.call("support.killed", "make_tasks", raw, component)
            assert ended == (-signal.SIGKILL if component else 0), component
            (state,) = (tmp_path / "store" / "runs").glob("*.json")
            history = json.loads(state.read_text("utf-8"))["history"]
            assert history[: len(decided)] == decided, "nothing decided is lost"
            assert component != "gate" or len(history) == 1, "nor what was decided just before"
            decided = history
    found = result_of(raw)
    assert essence(found) == essence(one)
    assert found.compressed.checkpoint == one.compressed.checkpoint


def test_a_task_killed_under_kubeflows_plugin_is_ended_by_the_next_one(
    plan: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubeflow makes an MLflow run for each task, and ends it when the task's pod ends; a killed pod ends nothing."""
    from support.mlflow_server import new_database

    from lmmpress.tracking.client import open_client

    (tmp_path / "lineage").mkdir()
    new_database(tmp_path / "lineage" / "mlflow.db")
    client = open_client(local_store(tmp_path / "lineage"))
    pipeline = client.create_run("0").info.run_id
    store, run, _ = prepared(plan)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", local_store(tmp_path / "lineage"))

    def work(name: str) -> str:
        task = client.create_run("0", tags={"mlflow.parentRunId": pipeline}).info.run_id
        monkeypatch.setenv("MLFLOW_RUN_ID", task)
        if name == "evaluate":
            tasks.evaluate(store, run, "original")
        else:
            tasks.prune(store, run, "block", 0)
        return str(task)

    def statuses(*runs: str) -> list[str]:
        return [client.get_run(one).info.status for one in runs]

    evaluated = work("evaluate")
    client.set_terminated(evaluated, "FINISHED")  # as its launcher does
    killed = work("prune")  # which leaves its run as a killed one does, since no launcher is here to end it
    retried = work("prune")
    assert statuses(evaluated, killed, retried, pipeline) == ["FINISHED", "KILLED", "RUNNING", "RUNNING"]


def test_model_data_and_store_may_all_be_in_buckets(
    plan: dict[str, Any], new_bucket: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    from lmmpress.store.connection import connect

    address = new_bucket()
    bucket = address.removeprefix("s3://").partition("/")[0]
    for place, folder in (("teacher", plan["model"]), ("ads", plan["data"])):
        for name, data in contents(Path(folder)).items():
            connect()._put_object(bucket, f"{place}/{name}", data)
    raw = plan | {"stages": {"block": {"step": 1, "max": 1}}, "store": address}
    there = raw | {"model": f"s3://{bucket}/teacher", "data": f"s3://{bucket}/ads"}
    here = compress(parse_plan(raw | {"store": None}), tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    for _, task in walk(there):
        task()
    assert essence(result_of(there)) == essence(here)
    assert result_of(there).run_key == here.run_key, "where things lie is no part of the question"
