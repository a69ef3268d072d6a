"""`lmmpress evaluate --tasks`: the harness' numbers are part of the result, and of the report of a run."""

import json
import re
import sys
from pathlib import Path

import pytest
from support import harness
from support.cli import refused, run
from support.parsed_page import Page
from support.results import fabricated
from support.tiny import write_checkpoint

import lmmpress
from lmmpress.errors import UserError
from lmmpress.files.digest import digest_checkpoint
from lmmpress.plan import parse_plan


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    row = {"question": "标题", "answer": "红色", "task": "color", "split": "test"}
    (folder / "metadata.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    return folder


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two checkpoints."""
    folder = tmp_path_factory.mktemp("models")
    return write_checkpoint(folder / "one", "text-glm"), write_checkpoint(
        folder / "other", "text-glm", num_hidden_layers=2
    )


@pytest.fixture
def finished(tmp_path: Path, ends: tuple[Path, Path]) -> Path:
    """The folder of a run with these ends."""
    result = fabricated()
    original, compressed = (
        headline.model_copy(update={"checkpoint": digest_checkpoint(end)})
        for headline, end in zip((result.original, result.compressed), ends, strict=True)
    )
    folder = tmp_path / "run"
    folder.mkdir()
    result = result.model_copy(update={"original": original, "compressed": compressed})
    (folder / "result.json").write_text(result.model_dump_json(), "utf-8")
    plan = parse_plan({"model": "/m", "data": "/d", "stages": {"block": {"step": 1, "max": 3}}})
    (folder / "plan.json").write_text(plan.model_dump_json(), "utf-8")
    return folder


def with_value(value: float) -> bytes:
    """The recorded results, with another accuracy."""
    results = json.loads(harness.LM_EVAL.read_text("utf-8"))
    results["results"]["colours"]["acc,none"] = value
    return json.dumps(results).encode()


def cells(page: str) -> list[list[str]]:
    (section,) = page.split('<h2 id="benchmarks">')[1:]
    rows = re.findall(r"<tr>(.*?)</tr>", section.split("</section>")[0], re.DOTALL)[1:]
    return [[text.strip() for text in Page(row).texts if text.strip()] for row in rows]


def test_the_result_has_the_numbers(
    ends: tuple[Path, Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.install(tmp_path, monkeypatch)
    options = ("--data", data, "--tasks", "colours,say", "--harness-python", sys.executable, "--no-speed")
    found = json.loads(run("evaluate", ends[0], *options, "--json"))
    assert found["rows"] == 1
    assert {(one["task"], one["metric"]) for one in found["benchmarks"]} >= {("colours", "acc"), ("say", "exact_match")}
    assert set(found["benchmarks"][0]) == {
        *("harness", "harness_version", "task", "task_version", "metric", "filter", "value", "stderr"),
        *("samples", "few_shot", "higher_is_better"),
    }
    monkeypatch.setenv("COLUMNS", "200")
    shown = run("evaluate", ends[0], *options)
    assert "0.5000 ± 0.1890" in shown
    assert "lm_eval 0.4.13" in shown


def test_without_tasks_nothing_changes(ends: tuple[Path, Path], data: Path) -> None:
    assert lmmpress.evaluate(ends[0], data, speed=False).benchmarks == ()


def test_the_report_shows_both_ends_side_by_side(
    finished: Path, ends: tuple[Path, Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, (end, value) in enumerate(zip(ends, (0.75, 0.5), strict=True)):
        with monkeypatch.context() as patch:
            harness.install(tmp_path / str(place), patch, with_value(value))
            lmmpress.evaluate(end, data, tasks=["colours"], harness_python=sys.executable, run=finished, speed=False)
        page = (finished / "report.html").read_text("utf-8")
        (row,) = [row for row in cells(page) if row[0] == "colours" and "acc" in row]
        assert ("–" in row) == (place == 0), "the other end was not measured yet"
    assert row == [
        "colours",
        "version 2.0",
        "acc",
        "0.7500 ± 0.1890",
        "0.5000 ± 0.1890",
        "−0.2500",
        "8",
        "1",
        "lm_eval 0.4.13",
    ]
    (finished / "report.html").unlink()
    run("report", finished)
    assert cells((finished / "report.html").read_text("utf-8")) == cells(page)


def test_only_the_ends_of_a_run_belong_to_it(
    finished: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = harness.install(tmp_path, monkeypatch)
    other = write_checkpoint(tmp_path / "third", "text-glm", num_hidden_layers=3)
    with pytest.raises(UserError, match="is neither the original nor the compressed model of the run in"):
        lmmpress.evaluate(other, data, tasks="colours", harness_python=sys.executable, run=finished)
    assert not (module / "told.json").exists(), "nothing was measured"
    assert not (finished / "benchmarks.json").exists()


@pytest.mark.parametrize(
    "option", [("--include-path", "x"), ("--few-shot", 1), ("--harness-python", "x"), ("--run", "x")]
)
def test_options_of_tasks_need_tasks(option: tuple[str, object], ends: tuple[Path, Path], data: Path) -> None:
    assert "need --tasks" in refused("evaluate", ends[0], "--data", data, *option)


def test_a_hostile_file_of_benchmarks_cannot_write_into_the_page(finished: Path, ends: tuple[Path, Path]) -> None:
    number = {
        **dict.fromkeys(("harness", "harness_version", "task", "task_version", "metric", "filter"), "<script>\x1b[2J"),
        **dict.fromkeys(("stderr", "samples", "few_shot", "higher_is_better")),
        "value": 1,
    }
    kept = {"by_checkpoint": {digest_checkpoint(ends[0]): [number]}}
    (finished / "benchmarks.json").write_text(json.dumps(kept), "utf-8")
    run("report", finished)
    page = (finished / "report.html").read_text("utf-8")
    assert "<script>" not in page
    assert "\x1b" not in page
