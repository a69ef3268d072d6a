"""The command line: what it prints, and how it fails: one line, exit code 2, nothing half-written."""

import errno
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cli import fail, refused, run
from typer.testing import CliRunner

from lmmpress.cli.app import app, main
from lmmpress.errors import UserError
from lmmpress.printing.numbers import faster


@pytest.fixture
def plan_file(raw_plan: dict[str, Any], tmp_path: Path) -> Path:
    raw_plan["stages"] = {"block": {"step": 1, "max": 1}}
    (tmp_path / "plan.yaml").write_text(json.dumps(raw_plan), "utf-8")
    return tmp_path / "plan.yaml"


def test_plan_prints_sizes_as_json() -> None:
    sizes = json.loads(run("plan", "--preset", "paper", "--json", "--set", "stages={block: {step: 20, max: 40}}"))
    assert [size["widths"]["language.block"] for size in sizes] == [48, 28, 8]


def test_plan_prints_sizes_as_a_table() -> None:
    assert "5.436 B" in run("plan", "--preset", "paper", "--set", "stages={}")


def test_prune_inspect_and_evaluate(make_checkpoint: Callable[..., Path], data: Path, tmp_path: Path) -> None:
    pruned = tmp_path / "pruned"
    run("prune", make_checkpoint("llama"), "--axis", "ffn", "--remove", 16, "--data", data, "-o", pruned)
    facts = json.loads(run("inspect", pruned, "--json"))
    assert facts["widths"]["language"]["ffn"] == 48
    assert facts["history"][0]["axis"] == "ffn"
    assert "ffn of language -16" in run("inspect", pruned)
    assert json.loads(run("evaluate", pruned, "--data", data, "--no-speed", "--json"))["rows"] == 16


def test_run_writes_the_files_that_others_read(plan_file: Path, tmp_path: Path) -> None:
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


def test_a_misspelt_key_is_a_one_line_error_with_exit_code_2(plan_file: Path, tmp_path: Path) -> None:
    assert "did you mean 'alpha'" in fail("run", plan_file, "--out", tmp_path / "out", "--set", "tolerance.alpa=0.1")
    assert not (tmp_path / "out").exists()


def test_debug_shows_the_traceback(plan_file: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "lmmpress.cli",
        "run",
        str(plan_file),
        "--out",
        str(tmp_path),
        "--set",
        "x=1",
        "--debug",
    ]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda plan: plan["stages"].update(attention={"step": 3, "max": 3}), "nearest legal value is 8"),
        (lambda plan: plan["stages"].update(block={"step": 1, "max": 4}), "at most 3"),
        (lambda plan: plan["splits"].update(gate="nothing"), "'nothing' has no rows"),
        (lambda plan: plan.update(model="/nowhere"), "is no checkpoint"),
        (lambda plan: plan.update(store="ftp://host"), "a store is a directory or s3://"),
        (lambda plan: plan["splits"].update(gate="distill", score="score"), ""),
    ],
)
@pytest.mark.usefixtures("trusting")
def test_a_run_that_cannot_work_leaves_nothing_behind(
    raw_plan: dict[str, Any], tmp_path: Path, spoil: Callable[[dict[str, Any]], None], message: str
) -> None:
    from lmmpress.engine.compression import compress
    from lmmpress.errors import UserError
    from lmmpress.plan import parse_plan

    raw_plan["splits"] = {}
    spoil(raw_plan)
    if not message:
        # a plan may name one split for two roles
        compress(parse_plan(raw_plan | {"stages": {}}), tmp_path / "out")
        return
    with pytest.raises(UserError, match=message):
        compress(parse_plan(raw_plan), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x"), "x: no space left on the disk; free some and run the"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "x"), "x: no space left on the disk; free some and run the"),
        (
            RuntimeError("I/O error: No space left on device (os error 28)"),
            "no space left on the disk; free some and run",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "x: Permission denied"),
    ],
)
def test_an_error_of_the_system_is_one_line_that_fits_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, again: str
) -> None:
    """`prune` has no --resume, so the error must not advise it."""

    def fail() -> None:
        raise error

    monkeypatch.setattr("lmmpress.cli.app.app", fail)
    monkeypatch.setattr("sys.argv", ["lmmpress", "prune"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert again in told
    assert "resume" not in told


def test_a_full_disk_is_a_one_line_error(plan_file: Path, tmp_path: Path) -> None:
    """A limit on the size of written files acts as the full disk."""
    program = shlex.join([sys.executable, "-m", "lmmpress.cli", "run", str(plan_file), "--out", str(tmp_path / "out")])
    command = ["bash", "-c", f"ulimit -f 40; exec {program}"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_on_a_full_disk_says_how_to_resume(
    plan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "blob")

    monkeypatch.setattr("lmmpress.engine.compression.make_steps", full)
    done = CliRunner().invoke(app, ["run", str(plan_file), "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, UserError)
    assert "continue with the same command and --resume" in str(done.exception)
    monkeypatch.setattr("lmmpress.engine.run_folder.check", full)
    done = CliRunner().invoke(app, ["run", str(plan_file), "--out", str(tmp_path / "never")])
    assert not isinstance(done.exception, UserError), "there is no run yet that could be carried on"
    assert isinstance(done.exception, OSError)


def test_a_model_that_became_slower_is_not_called_faster() -> None:
    assert (faster(4.6), faster(1.0), faster(0.5)) == ("4.6x faster", "1.0x faster", "2.0x slower")


@pytest.mark.parametrize("address", ["s3://bucket/out", "s3://KEY:hush@bucket/out", "s3:/bucket/out"])
def test_an_address_is_no_folder_to_write_to(
    plan_file: Path, make_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.chdir(tmp_path)
    prune = ["prune", str(make_checkpoint("llama")), "--axis", "block", "--remove", "1", "-o", address]
    for command in (prune, ["run", str(plan_file), "--out", address]):
        with pytest.raises(UserError, match="writes to a folder of this machine") as caught:
            run(*command)
        assert "hush" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["plan.yaml"]


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e9"])
def test_a_time_for_speed_that_is_none_is_refused(seconds: str, taught: Path, data: Path) -> None:
    assert "evaluation: seconds: " in refused("evaluate", taught, "--data", data, "--seconds", seconds)
    assert "evaluation: seconds: " in refused("compare", taught, taught, "--data", data, "--seconds", seconds)
