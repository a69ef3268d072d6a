"""The command line: what it prints, and how it fails: one line, exit code 2, nothing half-written."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lmmpress.cli import app


def run(*arguments: object, code: int = 0) -> str:
    """Run a command in this process; errors of users reach the test as they are."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout


def fail(*arguments: object, cwd: Path | None = None) -> str:
    """Run the real program; its one line of error."""
    done = subprocess.run(
        [sys.executable, "-m", "lmmpress.cli", *map(str, arguments)], capture_output=True, text=True, cwd=cwd,
        env=os.environ | {"COLUMNS": "400"}, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.fixture
def plan_file(raw_plan, tmp_path: Path) -> Path:
    raw_plan["stages"] = {"block": {"step": 1, "max": 1}}
    (tmp_path / "plan.yaml").write_text(json.dumps(raw_plan))
    return tmp_path / "plan.yaml"


def test_plan_prints_sizes_as_json() -> None:
    sizes = json.loads(run("plan", "--preset", "paper", "--json", "--set", "stages={block: {step: 20, max: 40}}"))
    assert [size["widths"]["language.block"] for size in sizes] == [48, 28, 8]


def test_plan_prints_sizes_as_a_table() -> None:
    assert "5.436 B" in run("plan", "--preset", "paper", "--set", "stages={}")


def test_prune_inspect_and_evaluate(make_checkpoint, data, tmp_path) -> None:
    pruned = tmp_path / "pruned"
    run("prune", make_checkpoint("llama"), "--axis", "ffn", "--remove", 16, "--data", data, "-o", pruned)
    facts = json.loads(run("inspect", pruned, "--json"))
    assert facts["widths"]["language"]["ffn"] == 48
    assert facts["history"][0]["axis"] == "ffn"
    assert "ffn of language -16" in run("inspect", pruned)
    assert json.loads(run("evaluate", pruned, "--data", data, "--json"))["rows"] == 16


def test_run_leaves_what_others_read(plan_file, tmp_path) -> None:
    shown = run("run", plan_file, "--out", tmp_path / "out")
    assert "smaller" in shown
    assert {"result.json", "report.html", "compressed", "mlflow.db", "store"} <= {
        p.name for p in (tmp_path / "out").iterdir()
    }
    result = json.loads(run("run", plan_file, "--out", tmp_path / "out", "--resume", "--json"))
    assert {"original", "compressed", "reduction", "steps", "run_key", "seconds"} <= result.keys()
    (tmp_path / "out" / "report.html").unlink()
    run("report", tmp_path / "out")
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_misspelt_key_is_one_line_and_exit_code_2(plan_file, tmp_path) -> None:
    assert "did you mean 'alpha'" in fail("run", plan_file, "--out", tmp_path / "out", "--set", "tolerance.alpa=0.1")
    assert not (tmp_path / "out").exists()


def test_debug_shows_the_traceback(plan_file, tmp_path) -> None:
    command = [sys.executable, "-m", "lmmpress.cli", "run", plan_file, "--out", tmp_path, "--set", "x=1", "--debug"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda plan: plan["stages"].update(attention={"step": 3, "max": 3}), "nearest legal value is 8"),
        (lambda plan: plan["stages"].update(block={"step": 1, "max": 4}), "at most 3"),
        (lambda plan: plan["splits"].update(gate="nothing"), "'nothing' has no rows"),
        (lambda plan: plan.update(model="/nowhere"), "is no checkpoint"),
        (lambda plan: plan.update(store="s3://bucket"), "only directories"),
        (lambda plan: plan["splits"].update(gate="distill", score="score"), ""),
    ],
)
def test_a_run_that_cannot_work_leaves_nothing_behind(raw_plan, tmp_path, spoil, message) -> None:
    from lmmpress.compression import compress
    from lmmpress.errors import UserError
    from lmmpress.plan import parse_plan

    raw_plan["splits"] = {}
    spoil(raw_plan)
    if not message:
        # measuring where one learned is allowed if the plan says so itself
        compress(parse_plan(raw_plan | {"stages": {}}), tmp_path / "out")
        return
    with pytest.raises(UserError, match=message):
        compress(parse_plan(raw_plan), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def spoiled(source: Path, target: Path, **changes: object) -> Path:
    shutil.copytree(source, target)
    config = json.loads((target / "config.json").read_text())
    config["text_config"].update(changes)
    (target / "config.json").write_text(json.dumps(config))
    return target


def test_weights_that_contradict_the_config_are_named(make_checkpoint, tmp_path) -> None:
    wrong = spoiled(make_checkpoint("llama"), tmp_path / "wrong", intermediate_size=128)
    assert "weights contradict config.json" in fail("inspect", wrong)


def test_missing_and_unknown_tensors_are_listed(make_checkpoint, tmp_path) -> None:
    assert "lacks tensors" in fail("inspect", spoiled(make_checkpoint("llama"), tmp_path / "a", num_hidden_layers=5))
    assert "does not know" in fail("inspect", spoiled(make_checkpoint("llama"), tmp_path / "b", num_hidden_layers=3))


def test_an_unknown_family_lists_those_there_are(make_checkpoint, tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "lama"}')
    message = fail("inspect", tmp_path)
    assert "did you mean 'llama'" in message
    assert "blip-2" in message


def test_pickles_are_refused(make_checkpoint, tmp_path) -> None:
    shutil.copytree(make_checkpoint("llama"), tmp_path / "p")
    (tmp_path / "p" / "model.safetensors").rename(tmp_path / "p" / "pytorch_model.bin")
    assert "never opens" in fail("inspect", tmp_path / "p")


@pytest.mark.parametrize("damage", [b"", b"\xff" * 64, b"\x10" + b"\0" * 7 + b"{not json at all"])
def test_a_damaged_weight_file_is_one_line(make_checkpoint, tmp_path, damage) -> None:
    from lmmpress.errors import UserError

    shutil.copytree(make_checkpoint("llama"), tmp_path / "d")
    (tmp_path / "d" / "model.safetensors").write_bytes(damage)
    with pytest.raises(UserError, match="safetensors"):
        run("inspect", tmp_path / "d")


def test_a_full_disk_is_told_in_one_line(plan_file, tmp_path) -> None:
    """A limit on the size of written files stands in for the disk that is full."""
    command = f"ulimit -f 40; exec {sys.executable} -m lmmpress.cli run {plan_file} --out {tmp_path / 'out'}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
