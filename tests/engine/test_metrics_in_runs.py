"""Whole runs that are judged by other metrics than exact answers, on a tiny model that has learned its data."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.certain import certain
from support.plans import MOMENT
from support.tasks import result_of, walk

from lmmpress.engine.compression import compress
from lmmpress.engine.run import check
from lmmpress.errors import UserError
from lmmpress.plan import parse_plan
from lmmpress.reporting.page import report_of
from lmmpress.result import Result

pytestmark = pytest.mark.usefixtures("trusting")

SHORT = {"ffn": {"step": 16, "max": 16}, "io": {"step": 24, "max": 24}}
"""A step that costs little, and one that breaks the model."""


@pytest.fixture
def rewritten(data: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the data whose rows `change` has changed; it gets each row and its number."""

    def write(change: Callable[[dict[str, Any], int], None], name: str = "rows") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        shutil.copytree(data / "images", folder / "images")
        rows = [json.loads(line) for line in (data / "metadata.jsonl").read_text("utf-8").splitlines()]
        for number, row in enumerate(rows):
            change(row, number)
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
        return folder

    return write


def two_tasks(row: dict[str, Any], number: int) -> None:
    """Every other row is a caption; the rest has no answer where it is measured."""
    row["task"] = "caption" if number % 2 else "open"
    if row["task"] == "open" and row["split"] in ("gate", "test"):
        del row["answer"]


@pytest.fixture
def mixed(raw_plan: dict[str, Any], taught: Path, rewritten: Callable[..., Path]) -> dict[str, Any]:
    """A plan with a caption-like task judged by ROUGE-L, and one judged by agreement, whose rows have no answers."""
    return raw_plan | {
        "model": str(taught),
        "data": str(rewritten(two_tasks)),
        "metrics": {"default": "rouge_l", "open": "agreement"},
        "tolerance": {"alpha": 0.4},
        "stages": SHORT,
        "evaluation": {"batch_size": 4, "speed": False},
    }


def between(plan: dict[str, Any], widest: float, folder: Path) -> float:
    """A tolerance that keeps the step that costs little, and not the one that breaks the model; how much they cost
    depends on the kind of processor."""
    free = compress(parse_plan(plan | {"tolerance": {"alpha": widest}}), folder)
    little, much = (certain(step.drop) for step in free.steps)
    assert much > little + 0.02
    return (max(little, 0.0) + much) / 2


def test_tasks_with_metrics_of_their_own_go_through_a_run_and_a_pipeline_with_the_same_decisions(
    mixed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed |= {"tolerance": {"alpha": between(mixed, 0.999, tmp_path / "free")}}
    result = compress(parse_plan(mixed), tmp_path / "out")
    assert {task: metric.name for task, metric in result.metrics.items()} == {"caption": "rouge_l", "open": "agreement"}
    assert result.original.accuracy_by_task["open"] == 1, "the original agrees with itself"
    assert result.original.accuracy_by_task["caption"] > 0.9
    assert [step.decision for step in result.steps] == ["accepted", "rolled back"]
    for step in result.steps:
        assert set(step.drop_by_task) == {"caption", "open"}
        assert step.drop == pytest.approx(np.mean([drop.value for drop in step.drop_by_task.values()]))
    broken = result.steps[-1]
    assert certain(broken.drop_interval).low <= certain(broken.drop) <= certain(broken.drop_interval).high
    table = str(result.shown()[0])
    assert "test score" in table
    assert "caption, rouge_l" in table
    page = report_of(tmp_path / "out").read_text("utf-8")
    assert "rouge_l" in page
    assert "agreement" in page

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    raw = mixed | {"store": str(tmp_path / "store")}
    for _, task in walk(raw):
        task()
    again = result_of(raw)
    assert again.run_key == result.run_key
    assert [(step.decision, step.reason, step.checkpoint, step.drop_by_task) for step in again.steps] == [
        (step.decision, step.reason, step.checkpoint, step.drop_by_task) for step in result.steps
    ]
    assert again.drop_interval == result.drop_interval


def without_answers(row: dict[str, Any], _: int) -> None:
    del row["answer"]


def test_rows_without_answers_are_learned_from_the_teacher_and_judged_by_divergence(
    raw_plan: dict[str, Any], taught: Path, rewritten: Callable[..., Path], tmp_path: Path
) -> None:
    plan = raw_plan | {
        "model": str(taught),
        "data": str(rewritten(without_answers)),
        "metrics": "kl",
        "labels": "teacher",
        "evaluation": {"batch_size": 4, "samples": 2, "seconds": MOMENT, "max_new_tokens": 3},
        "stages": SHORT,
    }
    plan |= {"tolerance": {"alpha": between(plan, 100.0, tmp_path / "free")}}
    result = compress(parse_plan(plan), tmp_path / "out")
    assert result.original.accuracy == 0, "the original does not diverge from itself"
    assert [step.decision for step in result.steps] == ["accepted", "rolled back"]
    for step in result.steps:
        assert certain(step.accuracy) > 0
        assert step.drop == pytest.approx(certain(step.accuracy) - step.reference), "more is worse"
    written = list((tmp_path / "out" / "store" / "tensors").glob("answers-*"))
    assert len(written) == 4, "the teacher writes its answers to each split once"
    again = Result.model_validate_json((tmp_path / "out" / "result.json").read_text("utf-8"))
    assert again.metrics == result.metrics


def test_a_task_that_loses_much_is_guarded_by_itself(mixed: dict[str, Any], tmp_path: Path) -> None:
    free = compress(parse_plan(mixed | {"tolerance": {"alpha": 0.999}}), tmp_path / "free")
    step = free.steps[-1]
    assert step.decision == "accepted"
    worst = max(step.drop_by_task, key=lambda task: step.drop_by_task[task].value)
    alpha = step.drop_by_task[worst].value / 2
    guarded = compress(
        parse_plan(mixed | {"tolerance": {"alpha": 0.999, "per_task": {worst: alpha}}}), tmp_path / "own"
    )
    assert [one.decision for one in guarded.steps] == ["accepted", "rolled back"]
    assert guarded.steps[-1].reason.startswith(f"drop of task {worst!r}")
    assert guarded.run_key != free.run_key


def refused(plan: dict[str, Any], match: str) -> str:
    with pytest.raises(UserError, match=match) as caught:
        check(parse_plan(plan))
    (line,) = caught.value.lines
    return line


def test_a_plan_whose_metrics_do_not_go_with_its_rows_is_refused_in_one_line(mixed: dict[str, Any]) -> None:
    line = refused(
        mixed | {"metrics": {"default": "rouge_l", "caption": "agreement"}}, "metric 'rouge_l' of task 'open'"
    )
    assert "metadata.jsonl, line " in line
    refused(mixed | {"metrics": {"default": "agreement", "caption": "kl"}}, "metrics of one direction")
    refused(mixed | {"metrics": {"default": "agreement", "captoin": "rouge_l"}}, "metrics.captoin: .* mean 'caption'")
    refused(mixed | {"metrics": "agreement", "tolerance": {"per_task": {"opne": 0.1}}}, "did you mean 'open'")


def test_rows_to_learn_from_need_an_answer_unless_the_teacher_gives_it(
    raw_plan: dict[str, Any], taught: Path, rewritten: Callable[..., Path]
) -> None:
    plan = raw_plan | {"model": str(taught), "data": str(rewritten(without_answers)), "metrics": "agreement"}
    assert "labels: teacher" in refused(plan, "the row has no answer to learn")
    check(parse_plan(plan | {"labels": "teacher"}))
    refused(plan | {"labels": "teacher", "metrics": "exact"}, "metric 'exact'")


def test_an_original_that_a_metric_finds_worthless_is_refused(
    raw_plan: dict[str, Any], taught: Path, rewritten: Callable[..., Path], tmp_path: Path
) -> None:
    def other_words(row: dict[str, Any], _: int) -> None:
        row["answer"] = "新品包邮"

    plan = raw_plan | {"model": str(taught), "data": str(rewritten(other_words)), "metrics": "rouge_l"}
    with pytest.raises(UserError, match="has the worst rouge_l on all 16 rows of split 'gate'") as caught:
        compress(parse_plan(plan | {"tolerance": {"alpha": 0.1}}), tmp_path / "out")
    assert caught.value.lines[0].count(" it answers ") == 3
