"""The example for MLOps, on a store of MLflow that holds two runs of the same model."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.examples import run_example
from support.lineage import SHA, STEPS, tell

from lmmpress.tracking.lineage import Lineage


@pytest.fixture(scope="module")
def registry(lineage_in: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two versions: of the first step alone, and of all steps, one of them rolled back."""
    uri = lineage_in(tmp_path_factory.mktemp("registry"))
    tell(Lineage(uri, "antgmm"), "1" * 64, STEPS[:1], "a-first")
    tell(Lineage(uri, "antgmm"), "2" * 64)
    return uri


def test_the_way_back_leads_to_the_teacher(registry: str) -> None:
    said = run_example(
        "lineage.py", "models:/antgmm@compressed", "models:/antgmm/1", environment={"MLFLOW_TRACKING_URI": registry}
    )
    first, second = said.split("models:/antgmm/1: ", 1)
    lines = [line.strip() for line in first.splitlines() if line.startswith("  ")]
    d, b, a, original = (SHA[name][:12] for name in ("d-final", "b-second", "a-first", "original"))
    assert lines == [
        f"checkpoint {d} at file:///store/d-final",
        "test accuracy 0.7800, lost 0.0200",
        "data: score as score, digest 111111111111",
        "data: distill as distill, digest 222222222222",
        "data: gate as gate, digest 333333333333",
        "data: test as test, digest 444444444444",
        f"{d} <- {b}  block of language -1: accepted, accuracy 0.7300, drop 0.02 is below alpha 0.15",
        f"{b} <- {a}  block of language -1: kept, accuracy 0.7300, drop 0.02 is below alpha 0.15",
        f"{a} <- {original}  block of language -1: accepted, accuracy 0.7300, drop 0.02 is below alpha 0.15",
        "rolled back: block/3, drop 0.30 is not below alpha 0.15",
        f"teacher {original}: /models/original",
    ]
    assert f"checkpoint {a} at file:///store/a-first" in second
    assert "rolled back" not in second
    assert "models:/antgmm@compressed and models:/antgmm/1, of the same teacher:" in second
    assert "  test.accuracy: 0.78, 0.78" in second


def test_what_is_not_there_is_one_line(registry: str) -> None:
    said = run_example("lineage.py", "models:/nobody@compressed", code=1, environment={"MLFLOW_TRACKING_URI": registry})
    assert said.splitlines()[-1].startswith("error: ")
    assert "nobody" in said
    assert "Traceback" not in said
    said = run_example("lineage.py", "models:/antgmm@compressed", code=1)
    assert said.startswith("error: say in MLFLOW_TRACKING_URI where the registry is")
