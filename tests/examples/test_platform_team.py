"""The example for platform teams: what it shows is what the compiled pipeline holds."""

import re
from pathlib import Path

import pytest
from support.examples import run_example
from support.paths import ROOT

pytest.importorskip("kfp")
FILES = [ROOT / "examples" / name for name in ("plan.yaml", "cluster.yaml")]


def test_pods_parameters_and_commands_are_shown(tmp_path: Path) -> None:
    target = tmp_path / "pipeline.yaml"
    said = run_example("platform_team.py", *FILES, target)
    assert f"{target}: {target.stat().st_size:,} bytes" in said
    pods = dict(re.findall(r"^([a-z-]+) {2,}(.*team|.*mlflow.*)$", said, re.MULTILINE))
    assert set(pods) >= {"prepare", "steps", "due", "importance", "block-prune", "distill", "evaluate", "gate"}
    assert re.split(" {2,}", pods["distill"]) == [
        "4 x nvidia.com/gpu",
        "4",
        "16Gi to 32Gi",
        "pool=gpu",
        "lmmpress-pipeline-store, lmmpress-mlflow",
        "86400 s",
    ]
    assert re.split(" {2,}", pods["gate"])[:3] == ["-", "1", "4Gi to 32Gi"]
    assert re.search(r"^model +s3://models/antgmm$", said, re.MULTILINE)
    assert f"  lmmpress submit {FILES[0]} --cluster {FILES[1]} --granularity step --wait" in said


def test_a_faulty_profile_is_refused_with_its_line(tmp_path: Path) -> None:
    profile = tmp_path / "cluster.yaml"
    profile.write_text(FILES[1].read_text("utf-8").replace("queue:", "qeue:"), "utf-8")
    said = run_example("platform_team.py", FILES[0], profile, tmp_path / "pipeline.yaml", code=2)
    assert "qeue" in said
    assert "Traceback" not in said
    assert not (tmp_path / "pipeline.yaml").exists()
