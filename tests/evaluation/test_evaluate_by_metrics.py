"""`lmmpress evaluate` judges a checkpoint alone as a run judges it: by the metric of each task, on rows with columns of
other names."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cli import refused, run

import lmmpress
from lmmpress.engine.compression import compress
from lmmpress.plan import parse_plan

COLUMNS = {"question": "prompt", "answer": "label"}
OPTIONS = ("--column", "question=prompt", "--column", "answer=label")
METRICS = {"default": "exact", "caption": "rouge_l", "letters": {"anls": 0.8}}
BEFORE = {
    "rows",
    "accuracy",
    "accuracy_interval",
    "accuracy_by_task",
    "accuracy_interval_by_task",
    "samples_per_second",
    "batch_size",
    "latency_ms",
    "tokens",
    "natural_tokens",
    "timing",
    "parameters",
    "parameters_by_tower",
    "benchmarks",
}
"""The fields before there were metrics, and ways to measure speed."""


@pytest.fixture(scope="module")
def rows(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The colours as a stranger has them: in columns of other names, and as three tasks."""
    folder = tmp_path_factory.mktemp("stranger") / "data"
    folder.mkdir()
    shutil.copytree(data / "images", folder / "images")
    lines = []
    for number, line in enumerate((data / "metadata.jsonl").read_text("utf-8").splitlines()):
        row = json.loads(line)
        task = ("colour", "caption", "letters")[number % 3]
        told = {"prompt": row["question"], "label": row["answer"], "task": task}
        lines.append(json.dumps({name: row[name] for name in ("file_name", "split")} | told))
    (folder / "metadata.jsonl").write_text("\n".join(lines), "utf-8")
    return folder


@pytest.mark.usefixtures("trusting")
def test_it_measures_what_a_run_measures(taught: Path, rows: Path, raw_plan: dict[str, Any], tmp_path: Path) -> None:
    settings = {"model": str(taught), "data": str(rows), "columns": COLUMNS, "metrics": METRICS, "stages": {}}
    evaluation = {"batch_size": 4, "speed": False}
    result = compress(parse_plan(raw_plan | settings | {"evaluation": evaluation}), tmp_path / "out")
    found = lmmpress.evaluate(taught, rows, columns=COLUMNS, metrics=METRICS, batch_size=4, speed=False)
    assert found.metrics == result.metrics
    assert found.accuracy_by_task == result.original.accuracy_by_task
    assert found.accuracy == result.original.accuracy
    assert 0 < found.accuracy < 1


def test_means_have_the_interval_that_their_metric_asks_for(taught: Path, rows: Path) -> None:
    found = lmmpress.evaluate(taught, rows, columns=COLUMNS, metrics=METRICS, speed=False)
    alone = lmmpress.evaluate(taught, rows, columns=COLUMNS, speed=False)
    assert found.accuracy_interval_by_task["colour"] == alone.accuracy_interval_by_task["colour"]
    assert found.accuracy_interval_by_task["caption"] != alone.accuracy_interval_by_task["caption"]
    for task, value in found.accuracy_by_task.items():
        interval = found.accuracy_interval_by_task[task]
        assert 0 <= interval.low <= value <= interval.high <= 1
    assert found.accuracy_interval.low <= found.accuracy <= found.accuracy_interval.high


def test_the_fields_of_json_stay_and_later_ones_stand_beside_them(taught: Path, rows: Path) -> None:
    plain = json.loads(run("evaluate", taught, "--data", rows, *OPTIONS, "--no-speed", "--json"))
    assert plain.keys() == BEFORE | {"metrics", "way", "compiled"}
    assert {one["name"] for one in plain["metrics"].values()} == {"exact"}
    given = ("--metric", "rouge_l", "--metric", "letters={anls: 0.8}")
    found = json.loads(run("evaluate", taught, "--data", rows, *OPTIONS, *given, "--no-speed", "--json"))
    names = {task: (one["name"], one["parameters"]) for task, one in found["metrics"].items()}
    assert names == {
        "caption": ("rouge_l", {}),
        "colour": ("rouge_l", {}),
        "letters": ("anls", {"threshold": 0.8}),
    }


def test_a_metric_may_be_of_a_task_that_only_another_split_has(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    rows = [{"question": "标题", "answer": "红色", "task": task, "split": task} for task in ("test", "gate")]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    found = lmmpress.evaluate(make_checkpoint("text-glm"), tmp_path, metrics={"gate": "cider"}, speed=False)
    assert {task: one.name for task, one in found.metrics.items()} == {"test": "exact"}


def test_a_scale_without_an_end_is_json_too(taught: Path, rows: Path) -> None:
    printed = run("evaluate", taught, "--data", rows, *OPTIONS, "--metric", "cer", "--no-speed", "--json")
    found = json.loads(printed, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert found["metrics"]["colour"]["high"] == "Infinity"


def test_tables_name_the_metric(taught: Path, rows: Path) -> None:
    one = run("evaluate", taught, "--data", rows, *OPTIONS, "--metric", "rouge_l", "--no-speed")
    assert "rouge_l" in one
    assert "accuracy" not in one
    several = run("evaluate", taught, "--data", rows, *OPTIONS, "--metric", "caption=rouge_l", "--no-speed")
    assert "score" in several
    assert "caption, rouge_l" in several
    assert "colour, exact" in several


def test_answers_of_texts_are_cut_off_where_it_is_asked(taught: Path, rows: Path) -> None:
    """All right answers have two characters; of one alone, at best two thirds of ROUGE-L are left."""
    cut = lmmpress.evaluate(taught, rows, columns=COLUMNS, metrics="rouge_l", max_new_tokens=1, speed=False)
    whole = lmmpress.evaluate(taught, rows, columns=COLUMNS, metrics="rouge_l", speed=False)
    assert cut.accuracy <= 2 / 3 < whole.accuracy


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metric", "rouge"], "evaluate: metrics.default: there is no metric 'rouge'; did you mean 'rouge_l'?"),
        (["--metric", "captoin=rouge_l"], "metrics.captoin: the data has no task 'captoin'; did you mean 'caption'?"),
        (["--metric", "caption=rouge_l", "--metric", "caption=anls"], "--metric caption is given twice"),
        (["--metric", "caption={anls: high}"], "anls.threshold should be a number"),
        (["--metric", "caption={anls"], "--metric caption, line 1"),
        (
            ["--metric", "kl"],
            "'kl' compares a model with its teacher, and this measures one checkpoint alone; lmmpress",
        ),
        (["--metric", "caption=agreement"], "'agreement' compares a model with its teacher"),
        (["--metric", "caption=cer"], "larger numbers are better and for others smaller ones"),
        (["--metric", "colour=numeric"], "so metric 'numeric' cannot score the row"),
        (["--column", "qestion=prompt"], "unknown column; did you mean 'question'?"),
        (["--template", "sometimes"], "evaluate: template: input should be 'auto', 'never' or 'always'"),
        (["--template", "always"], "template is always, but the checkpoint has no chat template"),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    make_checkpoint: Callable[..., Path], rows: Path, options: list[str], message: str
) -> None:
    given = () if "qestion" in str(options) else OPTIONS
    told = refused("evaluate", make_checkpoint("llama"), "--data", rows, *given, *options, "--no-speed")
    assert message in told
