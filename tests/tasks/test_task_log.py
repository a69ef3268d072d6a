"""What a task prints on stderr where nobody watches: where it is, as lines or as JSON."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import task_functions as tasks
from support.first_task import asked_by
from support.tasks import prepared

from lmmpress.plan import parse_plan
from lmmpress.progress.log import LOG
from lmmpress.progress.relay import RELAY

pytestmark = pytest.mark.usefixtures("trusting")


@pytest.fixture(autouse=True)
def no_lineage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def plan(raw_plan: dict[str, Any], taught: Path, tmp_path: Path) -> dict[str, Any]:
    stages = {"block": {"step": 1, "max": 2}}
    return raw_plan | {"model": str(taught), "store": str(tmp_path / "store"), "stages": stages}


def test_a_pod_with_log_json_prints_an_object_a_line(plan: dict[str, Any], tmp_path: Path) -> None:
    """As Argo starts it: a process, whose errors are objects too."""
    (tmp_path / "asked.json").write_text(json.dumps(asked_by(parse_plan(plan), "antgmm")), "utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"} | {LOG: "json"}

    def pod(name: str, arguments: str) -> tuple[int, list[dict[str, Any]]]:
        command = [sys.executable, "-m", "lmmpress.cli", "task", name, "--arguments", arguments]
        command += ["--result", str(tmp_path / f"{name}.json")]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, check=False)
        return done.returncode, [json.loads(line) for line in done.stderr.splitlines()]

    code, lines = pod("prepare", str(tmp_path / "asked.json"))
    assert code == 0
    assert all(line["time"] and line["level"] == "info" and line["message"] for line in lines)
    assert [line["part"] for line in lines if line.get("kind") == "progress"][:1] == ["prepare"]
    run = json.loads((tmp_path / "prepare.json").read_text("utf-8"))["outputs"]["run"]
    early = json.dumps({"store": plan["store"], "run": run, "stage": "block", "index": 0})
    code, lines = pod("gate", early)
    assert (code, lines[-1]["level"]) == (2, "error")
    assert "evaluate is not done yet" in lines[-1]["message"]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    return lambda: capsys.readouterr().err.splitlines()


def test_a_component_names_its_part_and_its_step(plan: dict[str, Any], printed: Callable[[], list[str]]) -> None:
    """As Kubeflow starts it: a call of the function."""
    store, run, _ = prepared(plan)
    tasks.evaluate(store, run, "original")
    tasks.prune(store, run, "block", 0)
    printed()
    tasks.distill(store, run, "block", 0)
    assert printed()[0] == "distill"


def test_the_process_that_started_a_task_is_told_of_its_step(
    plan: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, run, _ = prepared(plan)
    tasks.evaluate(store, run, "original")
    tasks.prune(store, run, "block", 0)
    monkeypatch.setenv(RELAY, str(tmp_path / "events.jsonl"))
    tasks.distill(store, run, "block", 0)
    told = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text("utf-8").splitlines()]
    steps = {one["label"]: one["part"]["step"] for one in told if one["total"] is not None}
    assert steps["distil"] == "block, step 1 of 2"
    assert [one["label"] for one in told if one["over"]][-1] == "distill"


def test_a_fault_of_ours_is_one_object_with_its_traceback(
    plan: dict[str, Any], printed: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, run, _ = prepared(plan)
    monkeypatch.setenv(LOG, "json")
    monkeypatch.setattr("lmmpress.tasks.gating.position", lambda *_: 1 / 0)
    printed()
    with pytest.raises(SystemExit) as ended:
        tasks.gate(store, run, "block", 0)
    assert ended.value.code == 1
    lines = [json.loads(line) for line in printed()]
    assert (lines[-1]["level"], lines[-1]["message"]) == ("error", "ZeroDivisionError: division by zero")
    assert "gating.py" in lines[-1]["traceback"]


def test_another_form_is_a_fault_of_the_environment(
    plan: dict[str, Any], printed: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, run, _ = prepared(plan)
    monkeypatch.setenv(LOG, "xml")
    printed()
    with pytest.raises(SystemExit) as ended:
        tasks.due(store, run, "block", 0)
    assert (ended.value.code, printed()) == (2, ["error: LMMPRESS_LOG is 'xml': it is text or json"])
