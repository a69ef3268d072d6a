"""Metrics are found by their names, ours and those of other packages; a plan names them by task."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT, TESTS
from support.without import without

from lmmpress.errors import UserError
from lmmpress.metrics import Metric, check_answers, metric_named, metric_names, metric_of, metrics_of, score_rows
from lmmpress.plan import digest_of, parse_plan

BASE = {"model": "m", "data": "d", "stages": {}}
LENGTH = TESTS / "metrics" / "length"
HEAD = "from lmmpress.metrics import Metric\n"
MADE = HEAD + "METRIC = Metric('length', 'text', 'higher', (0.0, 1.0), {}, 'lengths', {})\n"


def offer(folder: Path, name: str = "length", value: str = "length_metric:METRIC", package: str = "newcomer") -> None:
    """In a folder for Python's path a package offers a metric."""
    about = folder / f"{package}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", "utf-8")
    (about / "entry_points.txt").write_text(f"[lmmpress.metrics]\n{name} = {value}\n", "utf-8")


SCRIPT = """
import json, sys
from lmmpress.errors import UserError
from lmmpress.metrics import metric_named, metric_names, score_rows
try:
    found = score_rows(metric_named(sys.argv[1]), ["abc", ""], [["abcd", "a"], [""]])
except UserError as error:
    found = list(error.lines)
print(json.dumps([found, metric_names(), "length_metric" in sys.modules]))
"""


def scored(folder: Path, name: str) -> tuple[list[Any], list[str], bool]:
    """In a process with a folder on its path: the numbers of two rows or the line of refusal, the names of all metrics,
    and whether the other package was imported."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, name],
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(folder)))},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found, names, imported = json.loads(done.stdout)
    return found, names, imported


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UserError, match=r"^there is no metric 'rougel'; did you mean 'rouge_l'\?$"):
        metric_named("rougel")
    with pytest.raises(UserError, match="known are exact, token_accuracy"):
        metric_named("?")
    with pytest.raises(UserError, match=r"^metric 'numeric' has no parameter 'relativ'; did you mean 'relative'\?$"):
        metric_named("numeric", {"relativ": 1})
    with pytest.raises(UserError, match=r"^metric 'exact' takes no parameters$"):
        metric_named("exact", {"threshold": 1})
    with pytest.raises(UserError, match=r"^metric 'anls': threshold is 2; it is from 0 to 1$"):
        metric_named("anls", {"threshold": 2})


def test_only_metrics_from_text_have_a_function() -> None:
    for name in metric_names():
        metric = metric_named(name)
        assert metric.name == name
        assert (metric.score is not None) == (metric.needs == "text") == metric.is_generated


# another package's


def test_a_metric_of_another_package_scores(tmp_path: Path) -> None:
    offer(tmp_path)
    (tmp_path / "length_metric.py").write_text((LENGTH / "length_metric.py").read_text("utf-8"), "utf-8")
    values, names, imported = scored(tmp_path, "length")
    assert values == [0.75, 0.0]
    assert names == [*metric_names(), "length"]
    assert imported


def test_a_metric_that_nobody_names_is_not_imported(tmp_path: Path) -> None:
    offer(tmp_path)
    (tmp_path / "length_metric.py").write_text("raise SystemExit(3)", "utf-8")
    values, names, imported = scored(tmp_path, "normalised")
    assert (values, "length" in names, imported) == ([0.0, 1.0], True, False)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import missing_module", "ModuleNotFoundError: No module named 'missing_module'"),
        ("raise SystemExit('goodbye')", "SystemExit: goodbye"),
        ("raise ValueError('one\\ntwo')", "ValueError: one; "),
        ("METRIC = 3", "is no Metric"),
        (MADE.format("False", "None"), "is not the metric 'length' with a function that scores texts"),
        (MADE.replace("'length'", "'other'").format("False", "len"), "is not the metric 'length'"),
        (MADE.replace("'text'", "'tokens'").format("False", "len"), "is not the metric 'length'"),
        (MADE.replace("(0.0, 1.0)", "(1.0, 0.0)").format("False", "len"), "has no bounds from low to high"),
    ],
)
def test_a_broken_metric_is_refused_in_one_line(tmp_path: Path, source: str, reason: str) -> None:
    offer(tmp_path)
    (tmp_path / "length_metric.py").write_text(source, "utf-8")
    (line,), _, _ = scored(tmp_path, "length")
    assert line.startswith("metric 'length' of package newcomer cannot be used: ")
    assert reason in line
    assert line.endswith("mend the package or name another metric")


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("lambda said, answers: [1.0]", "fewer than one number for each of 2 rows"),
        ("lambda said, answers: __import__('itertools').repeat(1.0)", "more than one number for each of 2 rows"),
        ("lambda said, answers: [0.5, float('nan')]", "nan for the text ''; it is a finite number from 0 to 1"),
        ("lambda said, answers: [2, 0]", "2 for the text 'abc'; it is a finite number from 0 to 1"),
        ("lambda said, answers: 1 / 0", "fails: ZeroDivisionError: division by zero"),
        ("lambda said, answers: ['a', 'b']", "fails: ValueError"),
        ("lambda said, answers: None", "fails: TypeError"),
    ],
)
def test_what_a_metric_gives_is_checked(tmp_path: Path, function: str, reason: str) -> None:
    offer(tmp_path)
    (tmp_path / "length_metric.py").write_text(MADE.format("False", function), "utf-8")
    (line,), _, _ = scored(tmp_path, "length")
    assert line.startswith("metric 'length' ")
    assert reason in line


def test_a_check_of_answers_that_fails_names_its_metric() -> None:
    metric = Metric(
        "broken", "text", "higher", (0.0, 1.0), True, "", lambda said, answers: [], fault=lambda row: row[9]
    )
    with pytest.raises(UserError, match=r"^metric 'broken' fails: IndexError: "):
        check_answers(metric, ["a"], "line 1")


def test_a_share_is_0_or_1() -> None:
    half = Metric("half", "text", "higher", (0.0, 1.0), True, "halves", lambda said, answers: [0.5])
    with pytest.raises(UserError, match=r"^metric 'half' gives 0.5 for the text 'a'; it is 0 or 1$"):
        score_rows(half, ["a"], [["b"]])


def test_a_name_that_is_taken_is_refused_where_it_is_used(tmp_path: Path) -> None:
    offer(tmp_path, name="vqa")
    (line,), names, _ = scored(tmp_path, "vqa")
    assert line == ("metric 'vqa' is lmmpress's own, and another one is offered by newcomer; remove what is not meant")
    assert names == metric_names()
    assert scored(tmp_path, "normalised")[0] == [0.0, 1.0]
    for package in ("first", "second"):
        offer(tmp_path / "two", package=package)
    (line,), _, _ = scored(tmp_path / "two", "length")
    assert line == "metric 'length' is offered by first, second; remove what is not meant"


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path) -> None:
    names = ["rouge_l", "anls", "wer", "cer"]
    lines = without(("rapidfuzz", "jiwer"), "support.doors", "metrics_refused", tmp_path, names=names)
    for name, line in zip(names, lines, strict=True):
        assert line.startswith(f"metric {name!r} needs the package ")
        assert line.endswith("pip install 'lmmpress[metrics]'")


# the plan


def test_a_plan_names_metrics_by_task() -> None:
    setting = parse_plan(BASE | {"metrics": {"caption": "rouge_l", "price": {"numeric": 0.1}}}).metrics
    assert metric_of(setting, "caption") == metrics_of(setting, ["caption", "price", "x"])["caption"]
    assert [metric_of(setting, task).name for task in ("caption", "price", "x")] == ["rouge_l", "numeric", "exact"]
    assert "10 %" in metric_of(setting, "price").about
    with pytest.raises(
        UserError, match=r"^metrics.caption: the data has no task 'caption'; did you mean 'captions'\?$"
    ):
        metrics_of(setting, ["captions", "price"])


@pytest.mark.parametrize(
    ("metrics", "line"),
    [
        ("rougel", "metrics.default: there is no metric 'rougel'; did you mean 'rouge_l'?"),
        ({"a": "rougel"}, "metrics.a: there is no metric 'rougel'; did you mean 'rouge_l'?"),
        ({"a": 3}, "metrics.a: should be the name of a metric, or one name with its parameters, as in {numeric: 0.05}"),
        (
            {"a": {"numeric": {"relativ": 1}}},
            "metrics.a: metric 'numeric' has no parameter 'relativ'; did you mean 'relative'?",
        ),
        ({"a": {"exact": 1}}, "metrics.a: metric 'exact' takes no parameters"),
        ({"a": {"numeric": "x"}}, "metrics.a: numeric.relative should be a number"),
        ({"a": {"anls": True}}, "metrics.a: anls.threshold should be a number"),
        ({"a": {"anls": 2}}, "metrics.a: metric 'anls': threshold is 2; it is from 0 to 1"),
        ({"a": {"exact": {}, "vqa": {}}}, "metrics.a: names 2 metrics; a task has one, as in {numeric: 0.05}"),
        ([], "metrics: input should be a section of settings, got a list of 0"),
    ],
)
def test_a_faulty_choice_is_refused_in_one_line(metrics: object, line: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_plan(BASE | {"metrics": metrics})
    assert caught.value.lines == (f"plan: {line}",)


def test_a_plan_keeps_its_metrics_and_its_run_key() -> None:
    plain = parse_plan(BASE)
    assert "metrics" not in plain.key_settings(), "the key of a plan from before there was a choice"
    assert digest_of(plain.key_settings()) == digest_of(parse_plan(BASE | {"metrics": "exact"}).key_settings())
    chosen = parse_plan(BASE, ("metrics.caption=cider", "metrics.price={numeric: 1}"))
    assert parse_plan(chosen.model_dump(mode="json")) == chosen
    assert chosen.key_settings()["metrics"] == {
        "default": "exact",
        "caption": "cider",
        "price": {"numeric": {"relative": 1.0}},
    }
