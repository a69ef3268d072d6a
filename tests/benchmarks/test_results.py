"""What harnesses write becomes numbers with all that belongs to them; what strangers write becomes one line."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.harness import LM_EVAL, LMMS_EVAL

from lmmpress.benchmarks import Benchmark
from lmmpress.benchmarks.results import read_results
from lmmpress.errors import UserError
from lmmpress.progress import Event, Said, listening


def by_name(file: Path, harness: str) -> dict[tuple[str, str], Benchmark]:
    return {(one.task, one.metric): one for one in read_results(file, harness, "1.0")}


def written(tmp_path: Path, **changes: Any) -> Path:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(json.loads(LM_EVAL.read_text("utf-8")) | changes), "utf-8")
    return file


def test_what_lm_eval_wrote() -> None:
    found = by_name(LM_EVAL, "lm_eval")
    results = json.loads(LM_EVAL.read_text("utf-8"))["results"]
    assert set(found) == {("colours", "acc"), ("colours", "acc_norm"), ("say", "exact_match"), ("advert", "acc")}
    assert found["colours", "acc"] == Benchmark(
        harness="lm_eval",
        harness_version="1.0",
        task="colours",
        task_version="2.0",
        metric="acc",
        filter="none",
        value=results["colours"]["acc,none"],
        stderr=results["colours"]["acc_stderr,none"],
        samples=8,
        few_shot=1,
        higher_is_better=True,
    )
    assert found["say", "exact_match"].few_shot == 0
    group = found["advert", "acc"]
    assert (group.task_version, group.few_shot) == ("3", None)
    assert group.samples == 8, "only one of its tasks has the metric"


def test_what_lmms_eval_wrote() -> None:
    (number,) = by_name(LMMS_EVAL, "lmms_eval").values()
    assert (number.task, number.metric, number.value, number.stderr) == ("pictures", "exact_match", 0.0, 0.0)
    assert (number.task_version, number.samples, number.few_shot) == ("1.5", 8, 0)


def test_what_is_no_number_is_left_out_and_said(tmp_path: Path) -> None:
    values = {
        "alias": "t",
        "acc,none": float("nan"),
        "f1,none": "N/A",
        "mcc,none": True,
        "em,none": 1,
        "em_stderr,none": "N/A",
    }
    heard: list[Event] = []
    with listening(heard.append):
        (number,) = read_results(written(tmp_path, results={"t": values}), "lm_eval", "1.0")
    assert (number.metric, number.value, number.stderr, number.samples) == ("em", 1.0, None, None)
    said = [event.words for event in heard if isinstance(event, Said)]
    assert said == [f"lm_eval: the {metric} of t is no number, and left out" for metric in ("acc", "f1", "mcc")]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"\xff",
        b"{",
        b'{"results": ' + b"[" * 5000,
        b'{"results": []}',
        b'{"results": {"a": 3}}',
        b'{"results": {}}',
        b'{"results": {"a": {"acc,none": null}}}',
        b'{"results": {"a": {"acc,none": 1' + b"0" * 400 + b"}}}",
        b'{"results": {"a": {"acc,none": 1}}, "n-samples": {"a": {"effective": 1' + b"0" * 30 + b"}}}",
    ],
)
def test_what_no_harness_writes_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_results(tmp_path / "results.json", "lm_eval", "1.0")
    assert str(caught.value).isprintable()
    assert "the results of lm_eval 1.0" in str(caught.value)


def test_names_cannot_forge_lines(tmp_path: Path) -> None:
    (number,) = read_results(written(tmp_path, results={"a\x1b[2J\nerror: b": {"x\n,y\u202e": 1}}), "lm_eval", "1.0")
    assert (number.task + number.metric + number.filter).isprintable()
