"""The compiled pipelines run for real, by Kubeflow's local runner: a process for every task."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cli import run
from support.tasks import chain

from lmmpress.pipelines.start import here
from lmmpress.presets import preset
from lmmpress.result import Result
from lmmpress.sample.dataset import build
from lmmpress.tasks.cluster_profile import COMPONENTS

pytestmark = pytest.mark.long

# A task's process is killed as a pod that is taken away: after its work, before it reports it. Once in each of the
# components that DIES_IN names; the folder DIES has a file for each that did.
DYING = """
import importlib.abc, importlib.util, os, signal, sys

class Patching(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, flag):
        self.flag = flag

    def dies(self, *_):
        open(self.flag, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)

    def find_spec(self, name, path, target=None):
        if name not in ("lmmpress.tasks.outcome", "lmmpress.tasks.due_steps") or self not in sys.meta_path:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        sys.meta_path.insert(0, self)
        self.inner, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        self.inner.exec_module(module)
        if module.__name__ == "lmmpress.tasks.outcome":
            module.Outcome.show = self.dies
        else:
            module.due = module.steps = self.dies

arguments = sys.orig_argv
if "--function_to_execute" in arguments:
    component = arguments[arguments.index("--function_to_execute") + 1]
    flag = os.path.join(os.environ["DIES"], component)
    if component in os.environ["DIES_IN"].split() and not os.path.exists(flag):
        sys.meta_path.insert(0, Patching(flag))
"""


def lmmpress(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lmmpress.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)


def essence(out: Path) -> dict[str, Any]:
    """What every engine must give for the same plan."""
    result = Result.model_validate_json((out / "result.json").read_text("utf-8"))
    timeless = {"address", "seconds", "machines", "energy"}
    steps = [step.model_dump(exclude=timeless) for step in result.steps]
    models = [
        one.model_dump(include={"checkpoint", "accuracy", "accuracy_by_task", "parameters"})
        for one in (result.original, result.compressed)
    ]
    return {"steps": steps, "models": models, "drop": result.drop_interval, "run_key": result.run_key}


def history(out: Path) -> list[Any]:
    """The steps that a run has decided, as its store has them."""
    (state,) = (out / "store" / "runs").glob("*.json")
    decided: list[Any] = json.loads(state.read_text("utf-8"))["history"]
    return decided


def assert_same(out: Path, one: Path, name: str) -> None:
    for left in ("result.json", "report.html", "comparison.html", "compressed/config.json", "mlflow.db", "store/runs"):
        assert (out / left).exists(), left
    assert essence(out) == essence(one)
    assert chain(out, name) == chain(one, name)


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample model on a few rows, with every axis.

    What is decided follows from how deep the cuts are and hardly from what is learned, so it is the same on every
    machine: half of the blocks do as well, two of twelve do not, and little of a width is missed.
    """
    raw, folder = preset("sample"), tmp_path_factory.mktemp("plan")
    raw["data"] = str(build(folder / "data", sizes={"score": 8, "distill": 16, "gate": 24, "test": 16}))
    raw["stages"] = {
        "block": {"step": 5, "max": 10},
        "ffn": {"step": 32, "max": 32},
        "attention": {"step": 24, "max": 24},
        "io": {"step": 12, "max": 12},
    }
    raw["tolerance"] |= {"alpha": 0.2}
    raw["distillation"] |= {"rows": None}
    raw["importance"] |= {"rows": None}
    raw["evaluation"] = {"batch_size": 32, "samples": 8, "latency_samples": 2, "seconds": 2}
    raw["compare"] = True
    target = folder / "plan.yaml"
    target.write_text(yaml.safe_dump(raw, sort_keys=False), "utf-8")
    return target


@pytest.fixture(scope="module")
def one(plan_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run in one process, which tests only read."""
    out = tmp_path_factory.mktemp("one") / "out"
    done = lmmpress("run", plan_file, "--out", out)
    assert done.returncode == 0, done.stderr
    decisions = [(step["stage"], step["index"], step["decision"]) for step in essence(out)["steps"]]
    assert decisions == [
        ("block", 0, "accepted"),
        ("block", 1, "rolled back"),
        ("ffn", 0, "accepted"),
        ("attention", 0, "accepted"),
        ("io", 0, "accepted"),
    ]
    return out


@pytest.fixture
def dies_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set the components whose process is killed once, for all processes that start from now on."""
    (tmp_path / "patch").mkdir()
    (tmp_path / "dead").mkdir()
    (tmp_path / "patch" / "sitecustomize.py").write_text(DYING, "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "patch"))
    monkeypatch.setenv("DIES", str(tmp_path / "dead"))

    def name(*components: str) -> None:
        monkeypatch.setenv("DIES_IN", " ".join(components))

    return name


def dead(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "dead").iterdir()}


def test_by_stage_a_run_resumed_after_a_killed_task_decides_as_one_process_does(
    plan_file: Path, one: Path, dies_in: Any, tmp_path: Path
) -> None:
    out, name = tmp_path / "by stage", Path(preset("sample")["model"]).name
    by_stage = ("run", plan_file, "--out", out, "--engine", "kfp-local", "--granularity", "stage")
    dies_in("stage")
    died = lmmpress(*by_stage)
    assert dead(tmp_path) == {"stage"}
    assert died.returncode == 2
    assert "task stage failed" in died.stderr.splitlines()[-1]
    assert len(history(out)) == 2, "the stage was through"
    refused = lmmpress(*by_stage)
    assert refused.returncode == 2
    assert refused.stderr.strip().endswith("add --resume to continue it, or choose another --out")
    done = lmmpress(*by_stage, "--resume")
    assert done.returncode == 0, done.stderr
    assert_same(out, one, name)
    # asked again, it does nothing again
    again = lmmpress(*by_stage, "--resume", "--json")
    assert again.returncode == 0
    told = Result.model_validate_json(again.stdout)
    assert told.compressed.checkpoint == essence(one)["models"][1]["checkpoint"]


def test_by_step_a_run_resumed_after_a_killed_task_of_each_component_decides_as_one_process_does(
    plan_file: Path, one: Path, dies_in: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first pipeline ends with its task, and a second one resumes the run. In the second, each task is retried
    once, as clusters do. test_tasks.py starts a new pipeline for each component."""
    out, name = tmp_path / "by step", Path(preset("sample")["model"]).name
    dies_in("distill")
    died = lmmpress("run", plan_file, "--out", out, "--engine", "kfp-local")
    assert dead(tmp_path) == {"distill"}
    assert died.returncode == 2
    assert "task distill failed" in died.stderr.splitlines()[-1]
    assert history(out) == [], "the loop goes on, and finds that the second step is not due"

    from lmmpress.kubeflow import local_runner as local

    once_more = partial(local.make_pipeline, put=lambda task: here(task).set_retry(1, backoff_duration="0s"))
    monkeypatch.setattr(local, "make_pipeline", once_more)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # which is set by what follows, and is put back afterwards
    dies_in(*COMPONENTS)
    run("run", plan_file, "--out", out, "--engine", "kfp-local", "--resume")  # in this process
    assert dead(tmp_path) == set(COMPONENTS) - {"stage", "approval"}
    assert_same(out, one, name)
