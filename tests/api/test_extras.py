"""Without its extras the library does what needs none; what needs one says in a line which, before any work."""

import json
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.paths import ROOT
from support.without import BROUGHT, EXTRAS, without

from lmmpress.host.extras import EXTRA_OF

ALL = (*EXTRAS, *BROUGHT)
INSTALL = "pip install 'lmmpress[{}]'"


@pytest.fixture
def plan(raw_plan: dict[str, Any]) -> dict[str, Any]:
    return raw_plan | {"stages": {"block": {"step": 1, "max": 1}}}


@pytest.fixture
def plan_file(plan: dict[str, Any], tmp_path: Path) -> str:
    (tmp_path / "plan.yaml").write_text(json.dumps(plan), "utf-8")
    return str(tmp_path / "plan.yaml")


def lines_of(told: dict[str, Any]) -> str:
    """The one line that a command is refused with."""
    assert told["code"] == 1, told
    (line,) = told["lines"]
    return str(line)


def test_the_library_works_without_extras(plan_file: str, plan: dict[str, Any], tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    doors = {
        "help": ["--help"],
        "plan": ["plan", plan_file],
        "run": ["run", plan_file, "--out", out, "--set", "stages={}"],
        "report": ["report", out],
        "prune": ["prune", plan["model"], "--axis", "block", "--remove", "1", "-o", str(tmp_path / "pruned")],
        "inspect": ["inspect", str(tmp_path / "pruned")],
        "store ls": ["store", "ls", f"{out}/store"],
        "store policy": ["store", "policy", "s3://bucket/prefix"],
    }
    found = without(ALL, "support.doors", "commands", tmp_path, doors=doors)
    assert {name: told["lines"] for name, told in found.items() if told["code"]} == {}
    said = f"mlflow is not installed, so no lineage is recorded: {INSTALL.format('mlflow')}"
    assert found["run"]["stderr"].splitlines().count(said) == 1
    assert not (tmp_path / "out" / "mlflow.db").exists()
    assert (tmp_path / "out" / "report.html").is_file()


def test_every_command_that_needs_an_extra_names_it(plan_file: str, plan: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text("image: lmmpress", "utf-8")
    cluster = ["--cluster", str(tmp_path / "cluster.yaml")]
    out, s3 = str(tmp_path / "out"), "s3://bucket/prefix"
    doors = {
        "kubeflow compile": ["compile", plan_file, "-o", str(tmp_path / "pipeline.yaml")],
        "kubeflow submit": ["submit", plan_file, *cluster],
        "kubeflow doctor": ["doctor", *cluster],
        "kubeflow engine": ["run", plan_file, "--out", out, "--engine", "kfp-local"],
        "s3 model": ["run", plan_file, "--out", out, "--set", f"model={s3}"],
        "s3 data": ["run", plan_file, "--out", out, "--set", f"data={s3}"],
        "s3 store": ["run", plan_file, "--out", out, "--set", f"store={s3}"],
        "s3 plan": ["plan", plan_file, "--set", f"model={s3}"],
        "s3 inspect": ["inspect", s3],
        "s3 evaluate": ["evaluate", plan["model"], "--data", s3],
        "s3 ls": ["store", "ls", s3],
        "s3 cp": ["store", "cp", plan["model"], s3],
        "trigger serve": ["trigger", "serve"],
        "trigger check": ["trigger", "check"],
        "mlflow inspect": ["inspect", "models:/ads/1"],
        "mlflow model": ["run", plan_file, "--out", out, "--set", "model=models:/ads@champion"],
    }
    found = without(ALL, "support.doors", "commands", tmp_path, doors=doors)
    asked = {"mlflow run": ["run", plan_file, "--out", out], "mlflow tasks": [*doors["kubeflow engine"]]}
    named = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    found |= without(("mlflow",), "support.doors", "commands", tmp_path, doors=asked, environment=named)
    for name, told in found.items():
        assert lines_of(told).endswith(INSTALL.format(name.partition(" ")[0])), name
    assert not (tmp_path / "out").exists(), "before any work"
    assert "MLFLOW_TRACKING_URI is set" in lines_of(found["mlflow run"])


def test_every_function_that_needs_an_extra_names_it(plan: dict[str, Any], tmp_path: Path) -> None:
    found = without(ALL, "support.doors", "functions", tmp_path, plan=plan, out=str(tmp_path / "out"))
    extras = {"kfp-local": "kubeflow", "bucket": "s3"}
    for name, lines in found.items():
        assert [line.endswith(INSTALL.format(extras.get(name, "mlflow"))) for line in lines] == [True], (name, lines)
    assert not (tmp_path / "out").exists()


def test_a_pod_without_mlflow_says_so_in_its_first_task(plan: dict[str, Any], tmp_path: Path) -> None:
    raw = plan | {"store": str(tmp_path / "store")}
    told = without(ALL, "support.doors", "first_task", tmp_path, plan=raw, tracking_uri="http://mlflow:5000")
    part, line = told.splitlines()
    assert part == "prepare"
    assert line.endswith(INSTALL.format("mlflow"))


def test_only_the_rooms_of_extras_need_them(tmp_path: Path) -> None:
    rooms = tuple(
        f"lmmpress.{room}."
        for room in ("components", "pipelines", "kubeflow", "argo", "following", "pods", "doctor", "trigger")
    )
    bucket = {"bucket", "cache", "connection", "download", "rights_probe", "retries", "s3_calls", "upload"}
    found = without(ALL, "support.doors", "modules_that_cannot_be_imported", tmp_path)
    assert "lmmpress.store.s3_calls" in found
    arrow = {"arrow_checks", "arrow_stream", "arrow_values", "parquet_file", "saved_rows"}
    others = {name for name in found if not name.startswith(rooms)}
    assert others <= {f"lmmpress.store.{name}" for name in bucket} | {
        f"lmmpress.data.containers.{name}" for name in arrow
    } | {"lmmpress.tasks.training", "lmmpress.benchmarks.lmms_model"}, (
        "the last is read by lmms-eval in its own environment"
    )


def test_the_extras_install_what_they_are_named_for() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for package, extra in EXTRA_OF.items():
        assert canonicalize_name(package) in {Requirement(one).name for one in extras[extra]}
    assert {
        Requirement(one).extras
        == {*("argo", "kubeflow", "memory", "metrics", "mlflow", "nodes", "parquet", "s3", "trigger")}
        for one in extras["all"]
    } == {True}
    assert Requirement(extras["cluster"][0]).extras == {"all"}
    everything = [Requirement(one) for one in extras["dev"] if one.startswith("lmmpress[")]
    assert [one.extras for one in everything] == [{"all", "benchmarks"}], (
        "the two commands of the README install everything"
    )


@pytest.mark.long
def test_an_environment_with_only_what_lmmpress_requires(plan: dict[str, Any], plan_file: str, tmp_path: Path) -> None:
    """Its packages are links to those that are installed here, so that nothing is fetched."""
    venv.create(tmp_path / "env", symlinks=True)
    (packages,) = (tmp_path / "env").glob("lib/python*/site-packages")
    python = tmp_path / "env" / "bin" / "python"
    done = subprocess.run(
        [sys.executable, "-m", "support.core_packages", str(packages)],
        cwd=ROOT / "tests",
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in EXTRAS:
        missing = subprocess.run([str(python), "-c", f"import {name}"], capture_output=True, check=False)
        assert missing.returncode == 1, name
    command = [str(python), "-m", "lmmpress.cli", "run", plan_file, "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert INSTALL.format("mlflow") in done.stderr
    command[-1] = str(tmp_path / "other")
    done = subprocess.run(
        [*command, "--set", "store=s3://b/p"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert INSTALL.format("s3") in done.stderr
