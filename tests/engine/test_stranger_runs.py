"""Whole runs on a checkpoint with foreign code, in a directory with foreign code: none of it runs or is passed on."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file
from support.cuts import cut_of
from support.files import names_in
from support.strangers import FOREIGN, add_foreign, point_at_code

from lmmpress.engine.compression import compress
from lmmpress.errors import UserError
from lmmpress.evaluation.gate import Verdict
from lmmpress.files.digest import digest_checkpoint
from lmmpress.files.own_types import MODELING, modeling_code
from lmmpress.lmm.checkpoint import apply_cuts, read_checkpoint
from lmmpress.plan import Plan

KEPT = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "processor_config.json"}


@pytest.fixture
def hostile(make_checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    """A BLIP-2 with foreign code in its folder; where the code runs, it makes the file `ran`."""
    copy = shutil.copytree(make_checkpoint("llama"), tmp_path / "copy")
    add_foreign(copy)
    return copy


def on_vision(raw_plan: dict[str, Any], model: Path) -> dict[str, Any]:
    """A plan of one step, whose result needs our modelling file."""
    stages = {"attention": {"step": 8, "max": 8}}
    distillation = raw_plan["distillation"] | {"epochs": 0}
    tolerance = raw_plan["tolerance"] | {"alpha": 0.9}
    changes = {"model": str(model), "towers": ["vision"], "stages": stages, "distillation": distillation}
    return raw_plan | changes | {"tolerance": tolerance, "store": None}


def test_code_next_to_the_teacher_never_runs_and_is_never_delivered(
    hostile: Path, raw_plan: dict[str, Any], tmp_path: Path
) -> None:
    result = compress(Plan.model_validate(on_vision(raw_plan, hostile)), tmp_path / "out")
    delivered = tmp_path / "out" / "compressed"
    assert names_in(delivered) <= KEPT | {"model.safetensors", "COMPRESSION.json", MODELING}
    assert (delivered / MODELING).read_bytes() == modeling_code()
    assert digest_checkpoint(delivered) == result.compressed.checkpoint
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("stages", [{}, {"block": {"step": 1, "max": 1}}])
def test_our_file_is_delivered_with_a_teacher_that_points_elsewhere(
    hostile: Path,
    raw_plan: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trusting: None,
    stages: dict[str, Any],
) -> None:
    """Where the result is the teacher itself: no stages, or every step rolled back. test_stranger_files.py shows that a
    new process loads it and runs nothing else."""
    apart = tmp_path / "apart"
    apply_cuts(hostile, read_checkpoint(hostile), [cut_of(read_checkpoint(hostile), "vision", "attention")], apart)
    add_foreign(apart)
    point_at_code(apart)
    monkeypatch.setattr(
        "lmmpress.engine.measured.decide", lambda *_: Verdict("rolled back", "for this test", 0.0, None)
    )
    plan = on_vision(raw_plan, apart) | {"towers": ["language"], "stages": stages}
    result = compress(Plan.model_validate(plan), tmp_path / "out")
    delivered = tmp_path / "out" / "compressed"
    assert [step.decision for step in result.steps] == ["rolled back"] * len(stages)
    assert result.compressed.checkpoint == result.original.checkpoint == digest_checkpoint(delivered)
    assert not (set(FOREIGN) - {MODELING}) & names_in(delivered)
    assert (delivered / MODELING).read_bytes() == modeling_code()
    assert "evil" not in "".join(path.read_text("utf-8") for path in delivered.glob("*.json"))
    assert not (tmp_path / "ran").exists()


def test_a_weight_that_is_nan_or_infinite_ends_a_run_before_it_begins(
    hostile: Path, raw_plan: dict[str, Any], tmp_path: Path
) -> None:
    values = load_file(hostile / "model.safetensors")
    values["query_tokens"][0, 0, 0] = float("nan")
    save_file(values, hostile / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"model\.safetensors: query_tokens holds NaN or infinity"):
        compress(Plan.model_validate(on_vision(raw_plan, hostile)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.long
@pytest.mark.parametrize("options", [[], ["--engine", "kfp-local", "--granularity", "stage"]])
def test_no_process_of_a_run_imports_from_the_current_directory(
    hostile: Path, raw_plan: dict[str, Any], tmp_path: Path, options: list[str]
) -> None:
    """A model repository that brings its own plan, and modules named as those that every process imports."""
    plan = on_vision(raw_plan, hostile)
    plan["distillation"] = raw_plan["distillation"] | {"processes": 2}
    for name in ("torch", "kfp", "transformers", "accelerate", "lmmpress_worker", "sitecustomize", "pydantic"):
        (hostile / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n", "utf-8")
    (hostile / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False), "utf-8")
    command = [sys.executable, "-m", "lmmpress.cli", "run", "plan.yaml", "--out", str(tmp_path / "out"), *options]
    others = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        command, cwd=hostile, env=others, capture_output=True, text=True, check=False, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "result.json").read_text("utf-8"))["steps"][0]["loss"]
    assert names_in(tmp_path / "out" / "compressed") <= KEPT | {"model.safetensors", "COMPRESSION.json", MODELING}
    assert not (tmp_path / "ran").exists()
