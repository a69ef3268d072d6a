"""A pipeline that was compiled before still runs with the library of today, and comes to the same result."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.compiled import Compiled
from support.paths import ROOT
from support.results import essence
from support.tasks import result_of

import lmmpress.tasks
from lmmpress.engine.compression import compress
from lmmpress.plan import parse_plan

RECORDED = ROOT / "tests" / "kubeflow" / "recorded"
STAGES = ("block", "ffn", "attention", "io")

pytestmark = pytest.mark.usefixtures("trusting")


def test_the_door_has_exactly_the_names_that_recorded_pipelines_import() -> None:
    """The names stay the same after the modules behind them were imported."""
    asked: set[str] = set()
    for file in RECORDED.glob("*.yaml"):
        for line in file.read_text("utf-8").replace("\\n", "\n").splitlines():
            if "from lmmpress" in line:
                place, _, name = line.strip().removeprefix("from ").partition(" import ")
                assert place == "lmmpress.tasks"
                asked.add(name)
    offered = {
        name for name, value in vars(lmmpress.tasks).items() if getattr(value, "__module__", "") == "lmmpress.tasks"
    }
    assert asked == offered
    assert len(asked) == 9


@pytest.mark.parametrize("granularity", ["step", "stage"])
def test_a_recorded_pipeline_decides_as_one_process_does(
    granularity: str, raw_plan: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    raw = raw_plan | {"store": str(tmp_path / "store")}
    given = {key: raw[key] for key in ("model", "data", "store")} | {
        "alpha": 0.9,
        "epochs": 1.0,
        "learning_rate": 1e-3,
        "batch_size": 8.0,
        "settings": {
            "tolerance": {"allow_zero": True},
            "importance": raw["importance"] | {"batch_size": 4.0},
            "evaluation": raw["evaluation"],
        },
    }
    pipeline = Compiled(RECORDED / f"by_{granularity}.yaml", tmp_path / "tasks")
    pipeline.run(given)
    ran = [name.split()[0] for name in pipeline.ran]
    if granularity == "stage":
        assert ran == ["prepare", *["stage"] * 4, "publish"]
    else:
        assert ran[:2] + ran[-2:] == ["prepare", "evaluate", "evaluate", "publish"]
        assert [name for name in ran if name.endswith("_prune")] == ["block_prune", *(f"{one}_prune" for one in STAGES)]
    one = compress(parse_plan(raw | {"store": None}), tmp_path / "one")
    found = result_of(raw)
    assert essence(found) == essence(one)
    assert found.compressed.checkpoint == one.compressed.checkpoint
    assert found.run_key == one.run_key


def test_the_recorded_files_are_unchanged() -> None:
    """They hold the version of the compiler that made them, so that recompiling them by mistake is noticed."""
    for name in ("by_step", "by_stage"):
        spec = next(yaml.safe_load_all((RECORDED / f"{name}.yaml").read_text("utf-8")))
        outputs = spec["components"]["comp-prepare"]["outputDefinitions"]["parameters"]
        assert list(outputs) == sorted(["run", *STAGES])
