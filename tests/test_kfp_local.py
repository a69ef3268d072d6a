"""The compiled pipelines run for real, by Kubeflow's local runner: a process for every task."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_tasks import chain

from lmmpress.cluster.profile import COMPONENTS
from lmmpress.presets import preset
from lmmpress.result import Result

pytestmark = pytest.mark.long

# Dies as a pod does that is taken away: after its work, before it could say so. Once, and only in one component's task.
DYING = """
import importlib.abc, importlib.util, os, signal, sys

def dies():
    flag = os.environ["DIES_ONCE"]
    if not os.path.exists(flag):
        open(flag, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)

class Patching(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        if name not in ("lmmpress.outcome", "lmmpress.tasks") or self not in sys.meta_path:
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
        if module.__name__ == "lmmpress.outcome":
            module.Outcome.show = lambda *_: dies()
        else:
            module.due = lambda *_: dies()

arguments = sys.orig_argv
if "--function_to_execute" in arguments and not os.path.exists(os.environ.get("DIES_ONCE", "/")):
    if arguments[arguments.index("--function_to_execute") + 1] == os.environ["DIES_IN"]:
        sys.meta_path.insert(0, Patching())
"""


def lmmpress(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "lmmpress.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)


def essence(out: Path) -> dict[str, Any]:
    """What the same plan must give, however it is run."""
    result = Result.model_validate_json((out / "result.json").read_text("utf-8"))
    timeless = {"address", "seconds"}
    steps = [step.model_dump(exclude=timeless) for step in result.steps]
    models = [
        one.model_dump(include={"checkpoint", "accuracy", "accuracy_by_task", "parameters"})
        for one in (result.original, result.compressed)
    ]
    return {"steps": steps, "models": models, "drop": result.drop_interval, "run_key": result.run_key}


def test_the_sample_decides_the_same_in_one_process_in_tasks_and_in_stages(tmp_path: Path) -> None:
    """The sample cut short, so that the gate closes early: decisions, digests, lineage."""
    raw = preset("sample")
    raw["stages"] = {"block": {"step": 5, "max": 10}, "ffn": {"step": 160, "max": 160}}
    raw["tolerance"] |= {"alpha": 0.2}
    raw["distillation"] |= {"rows": 256}
    raw["importance"] |= {"rows": 64}
    raw["evaluation"] = {"batch_size": 32, "samples": 32, "latency_samples": 2}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), "utf-8")
    ways = {"one": (), "stage": ("--engine", "kfp-local", "--granularity", "stage"), "step": ("--engine", "kfp-local")}
    for way, options in ways.items():
        done = lmmpress("run", tmp_path / "plan.yaml", "--out", tmp_path / way, *options)
        assert done.returncode == 0, done.stderr
        for left in ("result.json", "report.html", "compressed/config.json", "mlflow.db", "store/runs"):
            assert (tmp_path / way / left).exists(), f"{way}: {left}"
    one = essence(tmp_path / "one")
    decisions = [(step["stage"], step["index"], step["decision"]) for step in one["steps"]]
    assert decisions == [("block", 0, "accepted"), ("block", 1, "rolled back"), ("ffn", 0, "accepted")], decisions
    name = Path(raw["model"]).name
    for way in ("stage", "step"):
        assert essence(tmp_path / way) == one
        assert chain(tmp_path / way, name) == chain(tmp_path / "one", name)
    # asked again, it does nothing again; and says what is there already
    again = lmmpress("run", tmp_path / "plan.yaml", "--out", tmp_path / "stage", *ways["stage"], "--resume", "--json")
    assert again.returncode == 0
    assert Result.model_validate_json(again.stdout).compressed.checkpoint == one["models"][1]["checkpoint"]
    refused = lmmpress("run", tmp_path / "plan.yaml", "--out", tmp_path / "step", *ways["step"])
    assert refused.returncode == 2
    assert refused.stderr.strip().endswith("add --resume to carry it on, or choose another --out")


def test_a_run_goes_on_after_a_task_of_any_component_was_killed(
    taught: Path, raw_plan: dict[str, Any], tmp_path: Path
) -> None:
    plan = raw_plan | {"model": str(taught)}
    plan["stages"] = {"block": {"step": 1, "max": 1}} | {
        axis: plan["stages"][axis] for axis in ("ffn", "attention", "io")
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False), "utf-8")
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch" / "sitecustomize.py").write_text(DYING, "utf-8")
    run = ("run", tmp_path / "plan.yaml", "--engine", "kfp-local", "--resume", "--out")
    steps = {}
    order = [
        "prepare",
        "evaluate",
        "due",
        "block_prune",
        "distill",
        "gate",
        "importance",
        "ffn_prune",
        "attention_prune",
        "io_prune",
        "publish",
    ]
    assert {*order, "stage"} == set(COMPONENTS)
    for dies_in in order:
        patched = {"PYTHONPATH": str(tmp_path / "patch"), "DIES_IN": dies_in, "DIES_ONCE": str(tmp_path / dies_in)}
        died = lmmpress(*run, tmp_path / "out", **patched)
        assert (tmp_path / dies_in).exists(), f"{dies_in} was not reached: {died.stderr}"
        assert died.returncode == 2
        assert f"task {dies_in.replace('_', '-')} failed" in died.stderr.splitlines()[-1]
        (state,) = (tmp_path / "out" / "store" / "runs").glob("*.json")
        history = json.loads(state.read_text("utf-8"))["history"]
        assert all(steps.get(number, step) == step for number, step in enumerate(history)), "nothing decided is lost"
        steps = dict(enumerate(history))
    done = lmmpress(*run, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    whole = lmmpress("run", tmp_path / "plan.yaml", "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    assert essence(tmp_path / "out") == essence(tmp_path / "whole")

    # the same for the one component that the other granularity has
    by_stage = (*run, tmp_path / "by stage", "--granularity", "stage")
    patched = {"PYTHONPATH": str(tmp_path / "patch"), "DIES_IN": "stage", "DIES_ONCE": str(tmp_path / "stage")}
    died = lmmpress(*by_stage, **patched)
    assert died.returncode == 2
    assert (tmp_path / "stage").exists()
    assert lmmpress(*by_stage).returncode == 0
    assert essence(tmp_path / "by stage") == essence(tmp_path / "whole")
