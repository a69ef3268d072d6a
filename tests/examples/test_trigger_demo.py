"""`make trigger-demo` with a tiny model: MLflow, the trigger and a run, from the release to the end of the claim."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.examples import run_example


@pytest.mark.long
def test_a_release_is_compressed_by_itself(raw_plan: dict[str, Any], tmp_path: Path) -> None:
    plan = raw_plan | {"stages": {"block": {"step": 1, "max": 1}}}
    (tmp_path / "own.yaml").write_text(json.dumps(plan), "utf-8")
    said = run_example("trigger_demo.py", tmp_path / "out", "--plan", tmp_path / "own.yaml")
    assert "MLflow delivers to the trigger: yes" in said
    states = re.findall(r"claim lmmpress-antgmm-2-[0-9a-f]{12}-1: (\w+)", said)
    assert states[-1] == "succeeded"
    assert "newest version: 2; last claim: succeeded" in said
    assert Path(re.findall(r"the report: (.*)", said)[0]).is_file()
    tokens = [(tmp_path / "out" / f"{name}.token").read_text("utf-8").strip() for name in ("viewer", "operator")]
    assert not any(token in said + (tmp_path / "out" / "trigger.log").read_text("utf-8") for token in tokens)
