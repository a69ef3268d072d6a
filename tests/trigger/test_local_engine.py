"""Engine local: a run is a process of its own, which outlives the trigger and is found again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.mlflow_server import new_database
from support.plans import SHORT

from lmmpress.errors import UserError
from lmmpress.host.processes import environment
from lmmpress.plan import parse_plan
from lmmpress.result import Result
from lmmpress.tasks.cluster_profile import Profile
from lmmpress.tasks.granularity import Choice
from lmmpress.tracking.client import local_store
from lmmpress.trigger.claims import Sent
from lmmpress.trigger.engines.interface import Order, Seen
from lmmpress.trigger.engines.local import LocalEngine
from lmmpress.trigger.local_files import Begun, RunFiles
from lmmpress.trigger.notice_settings import NoticeAddress, NoticeSettings
from lmmpress.trigger.server_settings import Page, Secret, ServerSettings, Token
from lmmpress.trigger.settings import AllowedPlan, EngineName, TriggerSettings, WatchedModel
from lmmpress.trigger.trigger import open_trigger

MakeOrder = Callable[..., Order]


@pytest.fixture
def make_order(raw_plan: dict[str, Any], tmp_path: Path) -> MakeOrder:
    new_database(tmp_path / "mlflow.db")

    def make(attempt: int = 1, **changes: Any) -> Order:
        return Order(
            run=f"lmmpress-x-1-{attempt}",
            key="k",
            attempt=attempt,
            plan=parse_plan(raw_plan | {"stages": SHORT, "store": str(tmp_path / "store")} | changes),
            compressed="x-compressed",
            profile=Profile(),
            granularity=Choice.auto,
            tracking=local_store(tmp_path),
        )

    return make


def until(engine: LocalEngine, order: Order, sent: Sent, *phases: str) -> Seen:
    """What the engine sees once the run has come to one of these phases."""
    for _ in range(1200):
        if (seen := engine.look(order, sent)).phase in phases:
            return seen
        time.sleep(0.1)
    raise TimeoutError(f"{seen}: {files_of(order, engine).log.read_text('utf-8')}")


def files_of(order: Order, engine: LocalEngine) -> RunFiles:
    return engine._files(order)


def kill(files: RunFiles) -> None:
    os.killpg(Begun.model_validate_json(files.begun.read_text("utf-8")).pid, signal.SIGKILL)


def test_a_run_is_made_once_and_does_what_lmmpress_run_does(make_order: MakeOrder, tmp_path: Path) -> None:
    engine, order = LocalEngine(tmp_path / "runs"), make_order()
    assert engine.find(order) == []
    made = engine.create(order)
    assert engine.create(order) == made, "as where the answer to the first request was lost"
    assert LocalEngine(tmp_path / "runs").find(order) == [made], "a trigger that starts later finds it"
    seen = until(engine, order, made, "succeeded", "failed")
    assert seen.phase == "succeeded", seen
    assert seen.said.startswith("accuracy ")
    out = files_of(order, engine).out
    assert not (out / "comparison.html").exists(), "this plan asks for none"
    result = Result.model_validate_json((out / "result.json").read_text("utf-8"))
    assert [step.stage for step in result.steps] == ["block", "ffn"]
    assert Path(made.link) == out / "report.html"
    assert engine.create(order) == made, "and a run that has ended is not made again"
    assert until(engine, order, made, "succeeded", "failed") == seen


def test_a_run_outlives_the_process_that_made_it_and_is_cancelled_by_another(
    make_order: MakeOrder, tmp_path: Path
) -> None:
    order = make_order(distillation={"epochs": 100_000, "batch_size": 8})
    (tmp_path / "plan.json").write_text(order.plan.model_dump_json(), "utf-8")
    made_elsewhere = (
        "import sys, dataclasses\n"
        "from pathlib import Path\n"
        "from lmmpress.plan import Plan\n"
        "from lmmpress.tasks.cluster_profile import Profile\n"
        "from lmmpress.tasks.granularity import Choice\n"
        "from lmmpress.trigger.engines.interface import Order\n"
        "from lmmpress.trigger.engines.local import LocalEngine\n"
        "folder, run, tracking = sys.argv[1:]\n"
        "plan = Plan.model_validate_json(Path(folder, 'plan.json').read_text('utf-8'))\n"
        "order = Order(run, 'k', 1, plan, 'x-compressed', Profile(), Choice.auto, tracking)\n"
        "LocalEngine(Path(folder, 'runs')).create(order)\n"
    )
    command = [sys.executable, "-c", made_elsewhere, str(tmp_path), order.run, order.tracking]
    subprocess.run(command, check=True, env=environment())
    engine = LocalEngine(tmp_path / "runs")
    [found] = engine.find(order)
    assert engine.look(order, found).phase == "running"
    engine.cancel(order, found)
    assert until(engine, order, found, "cancelled", "failed", "dead").phase == "cancelled"


def test_a_run_that_was_killed_is_dead_and_the_next_attempt_begins(make_order: MakeOrder, tmp_path: Path) -> None:
    engine, order = LocalEngine(tmp_path / "runs"), make_order(distillation={"epochs": 100_000, "batch_size": 8})
    made = engine.create(order)
    kill(files_of(order, engine))
    seen = until(engine, order, made, "dead")
    assert "was killed" in seen.said
    again = make_order(attempt=2)
    assert engine.find(again) == []
    assert engine.look(again, engine.create(again)).phase == "running"
    kill(files_of(again, engine))


def test_a_run_that_cannot_be_says_why_in_one_line(make_order: MakeOrder, tmp_path: Path) -> None:
    engine, order = LocalEngine(tmp_path / "runs"), make_order(data=str(tmp_path / "nowhere"))
    seen = until(engine, order, engine.create(order), "failed")
    assert "nowhere" in seen.said
    assert "\n" not in seen.said


def test_a_run_on_another_machine_lives_as_long_as_it_shows_that(make_order: MakeOrder, tmp_path: Path) -> None:
    engine, order = LocalEngine(tmp_path / "runs"), make_order()
    files = files_of(order, engine)
    files.folder.mkdir(parents=True)
    files.begun.write_text(Begun(machine="another", pid=1, started="1").model_dump_json(), "utf-8")
    assert engine.look(order, Sent(order.run)).phase == "running"
    os.utime(files.begun, (0, time.time() - 400))
    assert engine.look(order, Sent(order.run)).phase == "dead"


def test_a_run_does_not_get_the_secrets_of_the_server(
    make_order: MakeOrder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: dict[str, str] = {}

    def popen(command: list[str], env: dict[str, str], **more: Any) -> None:
        started.update(env)
        raise OSError(0, "enough")

    monkeypatch.setattr("lmmpress.trigger.engines.local.subprocess.Popen", popen)
    secrets = {"GRAFANA_TOKEN", "HOOK", "SESSION", "DINGTALK"}
    for name in (*secrets, "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x" * 32)
    settings = TriggerSettings(
        store=str(tmp_path / "store"),
        tracking="http://mlflow:5000",
        models={"AntGMM": WatchedModel(plans={"usual": AllowedPlan(plan="plan.yaml", engine=EngineName.local)})},
        runs=str(tmp_path / "runs"),
        server=ServerSettings(
            tokens=(Token(name="grafana", role="viewer", env="GRAFANA_TOKEN"),),
            webhook_secrets=(Secret(env="HOOK"),),
            page=Page(session_secret=Secret(env="SESSION")),
        ),
        notices=NoticeSettings(addresses=(NoticeAddress(name="team", env="DINGTALK"),)),
    )
    with pytest.raises(UserError, match="enough"):
        open_trigger(settings).engines[EngineName.local].create(make_order())
    assert "AWS_SECRET_ACCESS_KEY" in started
    assert not secrets & started.keys()


def test_a_check_of_a_folder_that_is_not_there_does_not_make_it(make_order: MakeOrder, tmp_path: Path) -> None:
    runs = tmp_path / "there" / "runs"
    runs.parent.mkdir()
    for folder in (runs, runs / "deeper"):
        assert LocalEngine(folder).reach(make_order()) == f"runs are processes of this machine, in {folder}"
    assert list(runs.parent.iterdir()) == []
    runs.parent.chmod(0o500)
    if os.access(runs.parent, os.W_OK):
        return  # root may write everywhere
    with pytest.raises(UserError, match="cannot be written: Permission denied"):
        LocalEngine(runs).reach(make_order())


def test_a_folder_that_cannot_be_written_is_one_line(make_order: MakeOrder, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("", "utf-8")
    for act in (LocalEngine(tmp_path / "runs").create, LocalEngine(tmp_path / "runs").reach):
        with pytest.raises(UserError, match="runs"):
            act(make_order())
