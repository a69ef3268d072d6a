"""The registry of axes: each is said once, in one file, and found by its name."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lmmpress.axes import axes, axis_named, register, registry
from lmmpress.errors import UserError

OFFERED = "[lmmpress.axes]\nnewcomer = {}\n"


@pytest.fixture(autouse=True)
def put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove after each test what it registered."""
    monkeypatch.setattr(registry, "_axes", {axis.name: axis for axis in axes()})


def offer(folder: Path, value: str) -> Path:
    """A folder for Python's path in which a package offers an axis."""
    about = folder / "newcomer-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: newcomer\nVersion: 1.0\n", "utf-8")
    (about / "entry_points.txt").write_text(OFFERED.format(value), "utf-8")
    return folder


def known_to_a_process(folder: Path) -> subprocess.CompletedProcess[str]:
    script = f"import sys; sys.path.insert(0, {str(folder)!r}); import lmmpress.axes as found\n"
    script += (
        "try: print(*(axis.name for axis in found.axes()))\nexcept found.registry.UserError as error: print(error)"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, encoding="utf-8")


def test_the_papers_axes_come_first_and_in_its_order() -> None:
    assert [axis.name for axis in axes()][:4] == ["block", "ffn", "attention", "io"]
    assert [axis.name for axis in axes() if not axis.needs_scores] == ["block"]
    register(replace(axis_named("io"), name="later", rank=100))
    register(replace(axis_named("io"), name="between", rank=2))
    assert [axis.name for axis in axes()] == ["block", "between", "ffn", "attention", "io", "later"]


def test_a_name_that_is_not_known_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UserError, match=r"^there is no axis 'fnn'; did you mean 'ffn'\?$"):
        axis_named("fnn")
    with pytest.raises(UserError, match="known are block, ffn, attention, io"):
        axis_named("experts")


@pytest.mark.parametrize("name", ["ffn", "original", "result", "block-2", "Two", "2nd", "", "a" * 41])
def test_a_name_that_is_taken_or_invalid_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"registered twice|no name of an axis"):
        register(replace(axis_named("io"), name=name))


def test_another_package_offers_an_axis_by_an_entry_point(tmp_path: Path) -> None:
    folder = offer(tmp_path, "newcomer:AXIS")
    source = "from dataclasses import replace\nfrom lmmpress.axes.io import AXIS as io\n"
    source += "AXIS = replace(io, name='newcomer', rank=5)\n"
    (folder / "newcomer.py").write_text(source, "utf-8")
    assert known_to_a_process(folder).stdout.strip() == "block ffn attention io newcomer"


@pytest.mark.parametrize("source", ["import missing_module", "AXIS = 3", "raise SystemError('no')"])
def test_a_package_whose_axis_cannot_be_used_is_named(tmp_path: Path, source: str) -> None:
    folder = offer(tmp_path, "newcomer:AXIS")
    (folder / "newcomer.py").write_text(source, "utf-8")
    assert known_to_a_process(folder).stdout.strip() == "block ffn attention io", "others are not disturbed"
    plan = tmp_path / "plan.yaml"
    for stages in ("{newcomer: {step: 1, max: 1}}", "[{axis: newcomer, step: 1, max: 1}]"):
        plan.write_text(f"{{model: m, data: d, stages: {stages}}}", "utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "lmmpress.cli", "plan", str(plan)],
            env=os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "400"},
            capture_output=True,
            text=True,
            check=False,
            encoding="utf-8",
        )
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert "axis 'newcomer' of package newcomer cannot be used: " in line


def test_the_axes_need_no_torch() -> None:
    script = "import sys, lmmpress.axes, lmmpress.plan; lmmpress.axes.axes(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
