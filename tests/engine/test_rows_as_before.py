"""Runs that earlier versions have begun, and rows that are left out."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lmmpress.engine import run
from lmmpress.engine.compression import compress
from lmmpress.engine.run_splits import splits_as_before
from lmmpress.errors import UserError
from lmmpress.plan import Plan, parse_plan

pytestmark = pytest.mark.usefixtures("trusting")


@pytest.fixture
def plan(raw_plan: dict[str, Any], taught: Path) -> Plan:
    return parse_plan(raw_plan | {"model": str(taught), "stages": {"block": {"step": 1, "max": 1}}})


def begun_before(plan: Plan, out: Path) -> str:
    """A run as a version makes it that knows only the old digests of rows; its key."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "splits_of", splits_as_before)
        return compress(plan, out).run_key


def test_a_run_that_an_earlier_version_has_begun_is_resumed_by_the_old_digest(plan: Plan, tmp_path: Path) -> None:
    key = begun_before(plan, tmp_path / "out")
    before = sorted((tmp_path / "out/store/records").iterdir())
    assert compress(plan, tmp_path / "out", resume=True).run_key == key
    assert sorted((tmp_path / "out/store/records").iterdir()) == before, "nothing is computed again"
    assert compress(plan, tmp_path / "new").run_key != key, "a new run has the new digest"


def test_changed_rows_do_not_resume_a_run_of_before(plan: Plan, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    plan = plan.model_copy(update={"data": str(tmp_path / "data")})
    begun_before(plan, tmp_path / "out")
    lines = (tmp_path / "data/metadata.jsonl").read_text("utf-8").splitlines()
    first = json.loads(lines[0]) | {"question": "图片的背景颜色"}
    (tmp_path / "data/metadata.jsonl").write_text("\n".join([json.dumps(first), *lines[1:]]), "utf-8")
    with pytest.raises(UserError, match=r"holds a run of .*other data"):
        compress(plan, tmp_path / "out", resume=True)


def test_skipped_rows_are_listed_in_the_result(plan: Plan, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    with (tmp_path / "data/metadata.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"question": "q", "split": "test"}) + "\n")
    line = len((tmp_path / "data/metadata.jsonl").read_text("utf-8").splitlines())
    plan = plan.model_copy(update={"data": str(tmp_path / "data")})
    with pytest.raises(UserError, match=f"line {line}: answer is missing"):
        compress(plan, tmp_path / "failed")
    skipping = plan.model_copy(update={"data_errors": "skip", "skipped_at_most": 0.1})
    result = compress(skipping, tmp_path / "out")
    assert result.skipped_rows == 1
    assert [one.place for one in result.skipped] == [f"metadata.jsonl, line {line}"]
    assert "answer is missing" in result.skipped[0].why
    whole = compress(plan.model_copy(update={"data": str(data)}), tmp_path / "whole")
    assert result.run_key == whole.run_key, "the run is that of the rows that are left"
