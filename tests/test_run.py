"""Whole runs on a tiny model that has learned its data: gating, rolling back, resuming, several processes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lmmpress.compression import compress
from lmmpress.errors import UserError
from lmmpress.lmm.checkpoint import load_model
from lmmpress.lmm.digest import digest_checkpoint
from lmmpress.plan import parse_plan
from lmmpress.result import Result

pytestmark = pytest.mark.usefixtures("trusting")


@pytest.fixture
def plan(raw_plan: dict[str, Any], taught: Path) -> dict[str, Any]:
    return raw_plan | {"model": str(taught)}


def essence(result: Result) -> list[tuple[str, int, str, str | None]]:
    """What two runs of one plan must agree on."""
    return [(step.stage, step.index, step.decision, step.checkpoint) for step in result.steps]


def test_a_run_leaves_a_smaller_model_that_plain_transformers_loads(plan, tmp_path) -> None:
    result = compress(parse_plan(plan), tmp_path / "out")
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out" / "compressed")
    AutoProcessor.from_pretrained(tmp_path / "out" / "compressed")
    assert sum(parameter.numel() for parameter in model.parameters()) == result.compressed.parameters
    assert result.original.accuracy == 1.0
    assert result.compressed.parameters < result.original.parameters
    assert [step.stage for step in result.steps] == ["block", "block", "ffn", "attention", "io"]
    written = Result.model_validate_json((tmp_path / "out" / "result.json").read_text("utf-8"))
    assert written == result
    assert digest_checkpoint(tmp_path / "out" / "compressed") == result.compressed.checkpoint


def test_a_tight_alpha_rolls_back_to_the_last_accepted_checkpoint(plan, tmp_path) -> None:
    hopeless = {"epochs": 1, "learning_rate": 1e-9, "batch_size": 8}
    result = compress(parse_plan(plan | {"tolerance": {"alpha": 0.01}, "distillation": hopeless}), tmp_path / "out")
    broken = [step for step in result.steps if step.decision == "rolled back"]
    assert broken
    for step, following in zip(result.steps, result.steps[1:], strict=False):
        assert following.parent == (step.checkpoint if step.decision == "accepted" else step.parent)
        if step.decision == "rolled back":
            assert following.stage != step.stage
    assert all(step.drop < 0.01 for step in result.steps if step.decision == "accepted")
    assert all(step.drop >= 0.01 for step in broken)


def test_keep_goes_on_from_the_step_that_broke_alpha(plan, tmp_path) -> None:
    hopeless = {"epochs": 1, "learning_rate": 1e-9, "batch_size": 8}
    tolerance = {"alpha": 0.01, "on_violation": "keep"}
    result = compress(parse_plan(plan | {"tolerance": tolerance, "distillation": hopeless}), tmp_path / "out")
    assert "kept" in {step.decision for step in result.steps}
    for step, following in zip(result.steps, result.steps[1:], strict=False):
        assert following.parent == step.checkpoint


def test_a_loss_that_is_not_finite_is_rolled_back(plan, tmp_path) -> None:
    wild = {"epochs": 3, "learning_rate": 1e30, "batch_size": 8, "max_grad_norm": 1e30}
    result = compress(
        parse_plan(plan | {"distillation": wild, "stages": {"ffn": {"step": 16, "max": 32}}}), tmp_path / "out"
    )
    assert [(step.decision, step.checkpoint) for step in result.steps] == [("rolled back", None)]
    assert "not finite" in result.steps[0].reason
    assert result.compressed.checkpoint == result.original.checkpoint


def times(store: Path) -> dict[Path, int]:
    """When each file of a store was written, but for what its processes work on."""
    files = (path for path in store.rglob("*") if path.is_file() and "work" not in path.parts)
    return {path: path.stat().st_mtime_ns for path in files}


def test_a_finished_run_resumed_does_nothing_again(plan, tmp_path) -> None:
    first = compress(parse_plan(plan), tmp_path / "out")
    before = times(tmp_path / "out" / "store")
    again = compress(parse_plan(plan), tmp_path / "out", resume=True)
    after = times(tmp_path / "out" / "store")
    assert essence(again) == essence(first)
    changed = {path for path in after if after[path] != before.get(path)}
    assert {path.parent.name for path in changed} <= {"runs", "store"}, "only the lease, and the lock it was taken with"


def test_a_folder_that_holds_a_run_is_not_overwritten(plan, tmp_path) -> None:
    few = plan | {"stages": {}}
    compress(parse_plan(few), tmp_path / "out")
    with pytest.raises(UserError, match="--resume"):
        compress(parse_plan(few), tmp_path / "out")
    with pytest.raises(UserError, match="another plan"):
        compress(parse_plan(few | {"seed": 5}), tmp_path / "out", resume=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="not empty"):
        compress(parse_plan(few), tmp_path / "full")


def test_caches_do_not_change_the_outcome(plan, tmp_path) -> None:
    with_caches = compress(parse_plan(plan), tmp_path / "with")
    without = plan | {"distillation": plan["distillation"] | {"caches": False}}
    for one, other in zip(with_caches.steps, compress(parse_plan(without), tmp_path / "without").steps, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-4)


def test_two_processes_learn_what_one_learns(plan, tmp_path) -> None:
    one_stage = plan | {"stages": {"ffn": {"step": 16, "max": 16}}}
    alone = compress(parse_plan(one_stage), tmp_path / "alone")
    two = one_stage | {"distillation": plan["distillation"] | {"processes": 2}}
    together = compress(parse_plan(two), tmp_path / "together")
    assert together.steps[0].loss == pytest.approx(alone.steps[0].loss, rel=1e-3)
    models = [load_model(tmp_path / name / "compressed").state_dict() for name in ("alone", "together")]
    for name, value in models[0].items():
        assert torch.allclose(value, models[1][name], atol=2e-3), name


SCRIPT = (
    "import sys, torch\n"
    "torch.set_num_threads(1)\n"
    "from pathlib import Path\n"
    "from lmmpress.compression import compress\n"
    "from lmmpress.plan import read_plan\n"
    "compress(read_plan(Path(sys.argv[1])), Path(sys.argv[2]), resume=True)\n"
)


def start(plan_file: Path, out: Path) -> subprocess.Popen:
    environment = os.environ | {"TRANSFORMERS_VERBOSITY": "error"}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, plan_file, out], env=environment, stderr=subprocess.DEVNULL)


def test_killed_at_any_moment_a_run_resumes_to_the_same_checkpoints(plan, tmp_path, record_property) -> None:
    """kill -9 after each part of a step was seen to begin, and in the middle of writes, until the run is through."""
    expected = compress(parse_plan(plan), tmp_path / "whole")
    plan_file, out = tmp_path / "plan.yaml", tmp_path / "killed"
    plan_file.write_text(json.dumps(plan))
    records, work = out / "store" / "records", out / "store" / "work"
    chance = random.Random(0)
    kills = inside = 0
    while True:
        process = start(plan_file, out)
        done_before = len(list(records.glob("*"))) if records.is_dir() else 0
        wanted_write = kills % 2 == 1
        while process.poll() is None:
            writing = _being_written(work)
            begun = records.is_dir() and len(list(records.glob("*"))) >= done_before + 2
            if (wanted_write and writing and begun) or (not wanted_write and begun):
                if not wanted_write:
                    time.sleep(chance.random() * 0.15)
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                inside += _being_written(work)
                break
        else:
            assert process.returncode == 0
            break
    record_property("kills", kills)
    record_property("kills_inside_a_write", inside)
    print(f"{kills} kills, {inside} inside a write")
    found = Result.model_validate_json((out / "result.json").read_text("utf-8"))
    assert kills >= 4
    assert inside >= 1
    assert essence(found) == essence(expected)
    assert found.compressed.checkpoint == digest_checkpoint(out / "compressed")


def _being_written(work: Path) -> bool:
    """Whether any process has files in a scratch folder of the store."""
    owned = [folder for own in _listed(work) if own.name.startswith("own-") for folder in _listed(own)]
    return any(_listed(folder) for folder in owned if folder.name.startswith("new-"))


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
