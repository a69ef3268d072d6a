"""lmmpress advise: what it prints, and how it ends early."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.cli import refused, run

from lmmpress import api


@pytest.fixture
def plan_file(raw_plan: dict[str, Any], tmp_path: Path) -> Path:
    raw_plan["stages"] = {"block": {"step": 1, "max": 1}}
    (tmp_path / "plan.yaml").write_text(json.dumps(raw_plan), "utf-8")
    return tmp_path / "plan.yaml"


def test_it_prints_tables_and_json_and_writes_a_plan(plan_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "suggested.yaml"
    shown = run("advise", plan_file, "-o", out)
    assert f"plan: {out}" in shown.replace("\n", "")
    assert "estimated" in shown
    sizes = json.loads(run("plan", out, "--json"))
    out.unlink()
    found = json.loads(run("advise", plan_file, "-o", out, "--json"))
    assert [cut["removed"] for cut in found["cuts"]] == [1, 2]
    assert len(sizes) == 1 + found["estimated"]["steps"]
    assert "exists and is not changed" in refused("advise", plan_file, "-o", out)


def test_one_plan_is_needed(plan_file: Path) -> None:
    for given in ([], [plan_file, "--sample"], ["--sample", "--preset", "sample"]):
        assert "give one plan" in refused("advise", *given)


def test_a_plan_without_stages_is_refused(plan_file: Path) -> None:
    assert "has no stages" in refused("advise", plan_file, "--set", "stages={}")


@pytest.mark.parametrize(("more", "words"), [(["-o", "new.yaml"], "same command"), ([], "nothing is kept")])
def test_a_stop_is_one_line_that_says_how_to_go_on(
    plan_file: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], words: str
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "advise", stopped)
    assert words in refused("advise", plan_file, *more)
