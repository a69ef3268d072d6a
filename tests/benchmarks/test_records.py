"""The numbers of both ends of a run are kept by checkpoint, and stand side by side where they answer one question."""

from pathlib import Path

import pytest
from support.harness import LM_EVAL

from lmmpress.benchmarks import Benchmark, Benchmarks, keep, kept_benchmarks
from lmmpress.benchmarks.results import read_results
from lmmpress.errors import UserError


def numbers(**changes: object) -> list[Benchmark]:
    return [one.model_copy(update=changes) for one in read_results(LM_EVAL, "lm_eval", "1.0")]


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    assert kept_benchmarks(tmp_path) == Benchmarks()
    keep(tmp_path, "a", numbers())
    keep(tmp_path, "b", numbers(value=0.25))
    kept = kept_benchmarks(tmp_path)
    assert {name: list(found) for name, found in kept.by_checkpoint.items()} == {
        "a": numbers(),
        "b": numbers(value=0.25),
    }
    assert kept.pairs("a", "b") == list(zip(numbers(), numbers(value=0.25), strict=True))


def test_a_new_number_replaces_the_old_one_whatever_measured_it(tmp_path: Path) -> None:
    keep(tmp_path, "a", numbers())
    keep(tmp_path, "a", numbers(harness_version="2.0", task_version="9")[:1])
    assert list(kept_benchmarks(tmp_path).by_checkpoint["a"]) == [
        *numbers()[1:],
        *numbers(harness_version="2.0", task_version="9")[:1],
    ]


def test_another_number_of_few_shots_is_another_number(tmp_path: Path) -> None:
    keep(tmp_path, "a", numbers())
    keep(tmp_path, "a", numbers(few_shot=7))
    assert len(kept_benchmarks(tmp_path).by_checkpoint["a"]) == 2 * len(numbers())


@pytest.mark.parametrize("change", [{"harness_version": "2.0"}, {"task_version": "9"}, {"samples": 3}, {"few_shot": 7}])
def test_numbers_of_different_questions_do_not_stand_side_by_side(change: dict[str, object]) -> None:
    both = Benchmarks().with_numbers("a", numbers()[:1]).with_numbers("b", numbers(**change)[:1])
    assert both.pairs("a", "b") == [(numbers()[0], None), (None, numbers(**change)[0])]


@pytest.mark.parametrize("content", ["[]", '{"by_checkpoint": {"a": [{"task": 3}]}}', '{"by": {}}', "{"])
def test_a_damaged_file_is_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "benchmarks.json").write_text(content, "utf-8")
    with pytest.raises(UserError, match=r"benchmarks\.json") as caught:
        kept_benchmarks(tmp_path)
    assert str(caught.value).isprintable()
