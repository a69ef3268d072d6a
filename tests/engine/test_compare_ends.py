"""A run compares its result with its original at its end: what `lmmpress compare` finds, with less work, and once."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.certain import certain
from support.plans import MOMENT

import lmmpress
from lmmpress import UserError
from lmmpress.data import Split, read_split
from lmmpress.engine import compare_ends as module
from lmmpress.engine import kept
from lmmpress.engine.compare_ends import compare_ends
from lmmpress.engine.run import known_steps, open_run
from lmmpress.errors import AwayError
from lmmpress.evaluation import all_answers
from lmmpress.evaluation.comparison import Comparison
from lmmpress.evaluation.opened import Opened
from lmmpress.lmm.examples import Examples
from lmmpress.plan import parse_plan
from lmmpress.result import Result
from lmmpress.store import Store, open_store
from lmmpress.store.housekeeping.removal import remove_run
from lmmpress.store.housekeeping.verify import verify_store


@pytest.fixture(scope="module")
def raw(taught: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One step that takes three of four blocks and learns nothing back: the result still answers a few rows."""
    return {
        "model": str(taught),
        "data": str(data),
        "store": str(tmp_path_factory.mktemp("store") / "store"),
        "compare": True,
        "tolerance": {"alpha": 0.99},
        "stages": {"block": {"step": 3, "max": 3}},
        "distillation": {"epochs": 1, "learning_rate": 1e-9, "batch_size": 8},
        "evaluation": {"samples": 4, "batch_size": 5, "latency_samples": 2, "seconds": MOMENT},
    }


@pytest.fixture(scope="module")
def made(raw: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """The run, and its folder."""
    out = tmp_path_factory.mktemp("out") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lmmpress.engine.parts.load.verify_for_users", lambda checkpoint: None)
        return lmmpress.compress(raw, out), out


@pytest.fixture
def found(raw: dict[str, Any], made: tuple[Result, Path]) -> Comparison:
    kept_one = kept.kept_comparison(open_store(raw["store"]), made[0].run_key)
    assert kept_one is not None
    return kept_one


def reopened(raw: dict[str, Any], result: Result, store: Store | None = None) -> Comparison | None:
    """What the task of a pipeline does, whose process makes no part of a step."""
    store = store or open_store(raw["store"])
    run = open_run(parse_plan(raw), store, result.run_key, result.original.checkpoint, frozenset())
    with store.run_state(result.run_key) as state:
        return compare_ends(run, known_steps(run, state))


def without_comparison(raw: dict[str, Any], folder: Path) -> Store:
    """A copy of the store whose run is not compared yet."""
    shutil.copytree(raw["store"], folder)
    for record in (folder / "records").glob("compared-*"):
        record.unlink()
    return open_store(str(folder))


def test_it_is_the_comparison_of_the_command(found: Comparison, made: tuple[Result, Path], data: Path) -> None:
    result, _ = made
    by_hand = lmmpress.compare(result.original.address, result.compressed.address, data, batch_size=5, seconds=MOMENT)
    assert 0 < found.b.accuracy < found.a.accuracy
    for mine, theirs in ((found.a, by_hand.a), (found.b, by_hand.b)):
        same = {"checkpoint", "parameters", "parameters_by_tower", "bytes", "accuracy", "accuracy_by_task"}
        assert mine.model_dump(include=same) == theirs.model_dump(include=same)
    assert (found.all, found.by_task) == (by_hand.all, by_hand.by_task)
    assert found.data == by_hand.data
    told = [(row.kind, row.line, row.wanted, row.a.text, row.b.text, row.picture) for row in found.differing]
    assert told == [(row.kind, row.line, row.wanted, row.a.text, row.b.text, row.picture) for row in by_hand.differing]
    for mine_row, their_row in zip(found.differing, by_hand.differing, strict=True):
        assert mine_row.b.log_probability == pytest.approx(their_row.b.log_probability, abs=1e-4)
    assert found.turns is not None
    assert found.b.speed is not None
    assert found.turns.samples_per_second.count == certain(found.b.speed.timing).passes >= 3
    assert found.environment["dtype"] == "float32"


def test_it_says_of_the_accuracy_what_the_result_says(found: Comparison, made: tuple[Result, Path]) -> None:
    result, _ = made
    assert (found.a.accuracy, found.b.accuracy) == (result.original.accuracy, result.compressed.accuracy)
    assert (found.all.drop, found.all.drop_interval) == (result.drop, result.drop_interval)
    assert (found.a.checkpoint, found.b.checkpoint) == (result.original.checkpoint, result.compressed.checkpoint)


def test_the_folder_has_the_page_and_the_json(found: Comparison, made: tuple[Result, Path]) -> None:
    _, out = made
    assert Comparison.model_validate(json.loads((out / "comparison.json").read_text("utf-8"))).all == found.all
    assert "Rows with different answers" in (out / "comparison.html").read_text("utf-8")


def test_only_rows_that_one_of_them_answers_wrong_are_asked_again(
    raw: dict[str, Any], made: tuple[Result, Path], found: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    really = all_answers.all_answers

    def counted(opened: Opened, examples: Examples, batch_size: int) -> Any:
        asked.append(len(examples.rows))
        return really(opened, examples, batch_size)

    monkeypatch.setattr(all_answers, "all_answers", counted)
    again = reopened(raw, made[0], without_comparison(raw, tmp_path / "store"))
    assert again is not None
    assert again.all == found.all
    assert asked == [found.all.rows - found.all.both] * 2
    assert 0 < asked[0] < found.all.rows


def test_it_is_made_once(raw: dict[str, Any], made: tuple[Result, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_compared", None)  # a call of it would be a fault
    before = kept.kept_comparison(open_store(raw["store"]), made[0].run_key)
    assert reopened(raw, made[0]) == before
    assert lmmpress.compress(raw, made[1], resume=True).run_key == made[0].run_key


def test_a_plan_is_the_same_question_with_and_without_it(raw: dict[str, Any]) -> None:
    plan = parse_plan(raw)
    assert plan.key_settings() == plan.model_copy(update={"compare": False}).key_settings()
    assert not parse_plan({key: value for key, value in raw.items() if key != "compare"}).compare


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (UserError("there is no memory left"), "there is no memory left"),
        (RuntimeError("CUDA\nout of memory"), "RuntimeError: CUDA out of memory"),
    ],
)
def test_a_run_whose_comparison_fails_has_its_result_all_the_same(
    raw: dict[str, Any],
    made: tuple[Result, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Any,
    why: str,
) -> None:
    store = without_comparison(raw, tmp_path / "store")

    def fails(*arguments: Any) -> Any:
        raise fault

    with monkeypatch.context() as patched:
        patched.setattr(module, "compare_measured", fails)
        result = lmmpress.compress(raw | {"store": str(tmp_path / "store")}, tmp_path / "out")
    assert result.compressed == made[0].compressed.model_copy(update={"address": result.compressed.address})
    assert (tmp_path / "out" / "report.html").is_file()
    assert not (tmp_path / "out" / "comparison.html").exists()
    assert kept.why_uncompared(store, result.run_key) == why
    lmmpress.compress(raw | {"store": str(tmp_path / "store")}, tmp_path / "out", resume=True)
    assert (tmp_path / "out" / "comparison.html").is_file(), "another try makes it"


def test_rows_that_have_changed_since_are_not_compared(
    raw: dict[str, Any], made: tuple[Result, Path], data: Path, tmp_path: Path
) -> None:
    shutil.copytree(data, tmp_path / "rows")
    rows = tmp_path / "rows" / "metadata.jsonl"
    test = next(line for line in rows.read_text("utf-8").splitlines() if '"test"' in line)
    rows.write_text(rows.read_text("utf-8").replace(test, test.replace('"answer": "', '"answer": "x')), "utf-8")
    store = without_comparison(raw, tmp_path / "store")
    assert reopened(raw | {"data": str(tmp_path / "rows")}, made[0], store) is None
    assert "have changed since this run began" in kept.why_uncompared(store, made[0].run_key)


def test_a_store_that_is_away_is_worth_another_try(
    raw: dict[str, Any], made: tuple[Result, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*arguments: Any) -> Any:
        raise AwayError("the store gives no answer")

    store = without_comparison(raw, tmp_path / "store")
    monkeypatch.setattr(module, "compare_measured", away)
    with pytest.raises(AwayError):
        reopened(raw, made[0], store)
    assert kept.why_uncompared(store, made[0].run_key) == ""


def test_of_very_many_rows_the_worst_are_kept(
    found: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = found.model_copy(
        update={"differing": [row.model_copy(update={"question": 1000 * "哪"}) for row in found.differing]}
    )
    store = open_store(str(tmp_path / "store"))
    sizes = [len(json.dumps(row.model_dump(mode="json"), indent=1)) for row in found.differing]
    assert min(sizes) > 6000, "as many bytes as its characters have in the record"
    monkeypatch.setattr(kept, "MOST", sum(sizes[:2]))
    kept.keep_comparison(store, "a" * 64, found)
    again = kept.kept_comparison(store, "a" * 64)
    assert again is not None
    assert again.differing == found.differing[:2]
    assert again.all.differing == len(found.differing) > 2


@pytest.mark.parametrize("change", [{"comparison": {}}, {"pictures": ["?"]}, {"pictures": ["é"]}, {"pictures": 1}])
def test_the_record_of_a_stranger_is_refused(found: Comparison, tmp_path: Path, change: dict[str, Any]) -> None:
    store = open_store(str(tmp_path / "store"))
    kept.keep_comparison(store, "a" * 64, found)
    (path,) = (tmp_path / "store" / "records").glob("compared-*")
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | change), "utf-8")
    with pytest.raises(UserError, match="compared-aaaa"):
        kept.kept_comparison(store, "a" * 64)


def test_a_reason_of_a_stranger_is_shown_as_one_short_line(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    kept.note_uncompared(store, "a" * 64, "no\nmemory" + 10_000 * "!")
    said = kept.why_uncompared(store, "a" * 64)
    assert len(said) <= 500
    assert said.isprintable()


def test_the_records_are_removed_with_their_run(raw: dict[str, Any], made: tuple[Result, Path], tmp_path: Path) -> None:
    shutil.copytree(raw["store"], tmp_path / "store")
    store = open_store(str(tmp_path / "store"))
    kept.keep_result(store, made[0].run_key, made[0])
    kept.note_uncompared(store, made[0].run_key, "why")
    assert kept.kept_result(store, made[0].run_key) == made[0]
    assert verify_store(store) == []
    names = remove_run(store, made[0].run_key, dry_run=False).names
    for kind in ("compared", "uncompared", "result"):
        assert f"records/{kind}-{made[0].run_key}.json" in names


def test_rows_are_those_of_the_test_split(found: Comparison, data: Path) -> None:
    split: Split = read_split(data, "test")
    assert (found.data.split, found.data.rows, found.data.digest) == ("test", len(split.rows), split.digest)
