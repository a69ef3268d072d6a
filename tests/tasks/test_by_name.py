"""Tasks by name: what pods run where no engine has components of ours."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.first_task import asked_by
from support.results import essence
from support.tasks import result_of
from typer.testing import CliRunner

from lmmpress.cli.app import app
from lmmpress.engine.compression import compress
from lmmpress.errors import UserError
from lmmpress.plan import parse_plan
from lmmpress.tasks.by_name import read_arguments, run_task, write_result
from lmmpress.tasks.cluster_profile import COMPONENTS

pytestmark = pytest.mark.usefixtures("trusting")


@pytest.fixture(autouse=True)
def no_lineage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def plan(raw_plan: dict[str, Any], taught: Path, tmp_path: Path) -> dict[str, Any]:
    little = {"epochs": 1, "learning_rate": 1e-9, "batch_size": 8}
    stages = {"block": {"step": 1, "max": 1}, "ffn": {"step": 16, "max": 16}}
    alike = {"tolerance": {"alpha": 0.99}, "distillation": little, "stages": stages}
    return raw_plan | alike | {"model": str(taught), "store": str(tmp_path / "store")}


def test_a_run_is_made_by_names_as_in_one_process(plan: dict[str, Any], tmp_path: Path) -> None:
    """As an engine does it: every argument is text, and each stage is asked which of its steps is due."""
    here = compress(parse_plan(plan | {"store": None}), tmp_path / "here")
    plan = plan | {"compare": True}
    run = run_task("prepare", asked_by(parse_plan(plan), "antgmm"))["outputs"]["run"]
    about = {"store": plan["store"], "run": run}
    run_task("evaluate", about | {"stage": "original"})
    for stage in plan["stages"]:
        while (due := run_task("due", about | {"stage": stage})["outputs"])["due"] == "open":
            step = about | {"stage": stage, "index": str(due["index"])}
            assert run_task("due", step)["outputs"]["due"] == "open"
            for part in ("importance", f"{stage}_prune", "distill", "evaluate", "gate"):
                if (stage, part) != ("block", "importance"):
                    made = run_task(part, step)
            assert made["facts"]["decision"] == "accepted"
        assert due == {"due": "closed", "index": -1}
    run_task("evaluate", about | {"stage": "result"})
    report = tmp_path / "report.html"
    published = run_task("publish", about | {"report": str(report)})
    assert published["address"].endswith(here.compressed.checkpoint)
    assert "</html>" in report.read_text("utf-8")
    page = tmp_path / "comparison.html"
    compared = run_task("compare", about | {"page": str(page)})
    assert compared["address"] == published["address"]
    assert compared["metrics"]["drop"] == published["metrics"]["drop"]
    assert "| color | 16 |" in compared["summary"]
    assert "</html>" in page.read_text("utf-8")
    assert essence(result_of(plan)) == essence(here), "the last task has given the lease back"


def test_the_tasks_are_the_components() -> None:
    with pytest.raises(UserError, match="there is no task 'components'"):
        run_task("components", {})
    for name in COMPONENTS:
        with pytest.raises(UserError, match=f"task {name}: the arguments lack"):
            run_task(name, {})


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"store": "s", "run": "r", "stage": "block"}, "task gate: the arguments lack index"),
        ({"store": "s", "run": "r", "stage": "block", "index": "one"}, "index 'one' is no whole number"),
        ({"store": "s", "run": "r", "stage": "block", "index": "1.5"}, "index '1.5' is no whole number"),
        ({"store": "s", "run": "r", "stage": "block", "index": 1, "indx": 2}, "has no argument 'indx'"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        run_task("gate", arguments)


@pytest.mark.parametrize("text", ["nowhere.json", "[1]", "{", "\x00"])
def test_arguments_are_an_object_of_json_or_its_file(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--arguments is n"):
        read_arguments(text)
    (tmp_path / "arguments.json").write_text('{"index": 3}', "utf-8")
    assert read_arguments(str(tmp_path / "arguments.json")) == read_arguments('{"index": 3}') == {"index": 3}


@pytest.mark.parametrize(
    ("compiled_by", "fault"), [("9.1.0", "compile the plan anew"), ("latest", "is no version"), ("0.1.7", None)]
)
def test_a_workflow_of_another_version_is_refused(
    compiled_by: str, fault: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.1.0")
    with pytest.raises(UserError, match=fault or "the arguments lack"):
        run_task("gate", {}, compiled_by)


def test_the_command_writes_the_result_whole_and_ends_with_2_for_faults_of_the_input(
    plan: dict[str, Any], tmp_path: Path
) -> None:
    asked = {key: value for key, value in asked_by(parse_plan(plan), "antgmm").items()}
    (tmp_path / "asked.json").write_text(json.dumps(asked), "utf-8")
    call: Callable[..., Any] = CliRunner().invoke
    result = tmp_path / "results" / "result.json"
    ended = call(app, ["task", "prepare", "--arguments", str(tmp_path / "asked.json"), "--result", str(result)])
    assert ended.exit_code == 0, ended.output
    run = json.loads(result.read_text("utf-8"))["outputs"]["run"]
    assert [path.name for path in result.parent.iterdir()] == ["result.json"]
    arguments = json.dumps({"store": plan["store"], "run": run, "stage": "block"})
    shown = call(app, ["task", "due", "--arguments", arguments])
    assert json.loads(shown.stdout) == {"outputs": {"due": "open", "index": 0}}
    elsewhere = json.dumps({"store": plan["store"], "run": "elsewhere", "stage": "block"})
    refused = call(app, ["task", "due", "--arguments", elsewhere])
    assert refused.exit_code == 2
    assert "there is no submission elsewhere" in refused.output


def test_results_replace_each_other_whole(tmp_path: Path) -> None:
    for number in range(2):
        write_result({"outputs": {"number": number}}, tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_text("utf-8")) == {"outputs": {"number": 1}}
