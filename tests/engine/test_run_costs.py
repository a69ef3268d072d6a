"""A run keeps what its parts took, in time and energy, and the rows on which its ends disagree."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.certain import certain

import lmmpress
from lmmpress.data import read_split
from lmmpress.engine import disagreements as module
from lmmpress.engine.kept import kept_disagreements
from lmmpress.evaluation.disagreements import Disagreements
from lmmpress.plan import parse_plan
from lmmpress.result import Result
from lmmpress.store import open_store


@pytest.fixture(scope="module")
def raw(taught: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One step that takes three of four blocks and learns nothing back: the result still answers a few rows."""
    return {
        "model": str(taught),
        "data": str(data),
        "store": str(tmp_path_factory.mktemp("store") / "store"),
        "tolerance": {"alpha": 0.99},
        "stages": {"block": {"step": 3, "max": 3}},
        "distillation": {"epochs": 1, "learning_rate": 1e-9, "batch_size": 8},
        "evaluation": {"samples": 4, "batch_size": 5, "latency_samples": 2, "seconds": 2, "inferences_per_year": 1000},
    }


@pytest.fixture(scope="module")
def made(raw: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    out = tmp_path_factory.mktemp("out") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lmmpress.engine.parts.load.verify_for_users", lambda checkpoint: None)
        return lmmpress.compress(raw, out), out


def test_every_part_has_its_energy_and_they_add_up(made: tuple[Result, Path]) -> None:
    result, out = made
    used = certain(Result.model_validate_json((out / "result.json").read_text("utf-8")).energy)
    assert used.is_whole
    assert {"importance", "prune", "distill", "evaluate", "test", "speed"} >= set(used.by_part) >= {"distill", "speed"}
    assert certain(used.compression).kwh == pytest.approx(sum(one.kwh for one in used.by_part.values()))
    assert certain(used.compression).kwh > 0
    assert set(result.steps[0].energy) == {part for part, seconds in result.steps[0].seconds.items() if seconds}
    for one in (used.original, used.compressed, used.compression):
        assert certain(one).kind in ("measured", "estimated")
        assert certain(one).how
    assert used.inferences_per_year == 1000
    assert used.saved_per_year == pytest.approx(certain(used.saved))


def test_the_time_of_the_run_is_that_of_its_parts_and_its_own(made: tuple[Result, Path]) -> None:
    result, _ = made
    assert certain(result.own_seconds) > 0
    assert {"test", "speed"} <= set(result.seconds_by_part), "the run lasts until its ends are measured"
    assert sum(result.seconds_by_part.values()) + certain(result.own_seconds) == pytest.approx(result.seconds)


def test_rows_that_are_worth_more_to_one_of_them_are_kept(
    raw: dict[str, Any], made: tuple[Result, Path], data: Path
) -> None:
    result, out = made
    found = certain(kept_disagreements(open_store(raw["store"]), result.run_key))
    beside = Disagreements.model_validate_json((out / "disagreements.json").read_text("utf-8"))
    assert beside.drawn_anew() == found
    rows = read_split(data, "test").rows
    assert found.rows == len(rows)
    assert (found.lost - found.gained) / found.rows == pytest.approx(result.drop)
    assert found.lost > 0
    by_line = {row.line: row for row in rows}
    for one in found.shown:
        row = by_line[one.row.line]
        assert (one.row.question, one.row.wanted, one.row.task) == (row.question, row.answer, row.task)
        right, wrong = (one.row.a, one.row.b) if one.row.kind == "lost" else (one.row.b, one.row.a)
        assert (right.right, right.text, wrong.right) == (True, row.answer, False)
        assert wrong.text != row.answer
        assert certain(one.row.picture).startswith(b"\x89PNG")
    assert found.shown[0].row.b.text in (out / "report.html").read_text("utf-8")


def test_they_are_what_generate_answers(made: tuple[Result, Path], raw: dict[str, Any], data: Path) -> None:
    result, _ = made
    found = certain(kept_disagreements(open_store(raw["store"]), result.run_key))
    answers = lmmpress.predict(result.compressed.address, data, split="test", longest=64)
    told = {(one.file_name, one.question): one.text for one in answers}
    for one in found.shown:
        if one.row.kind == "lost" and one.row.b.ended:
            assert told[one.row.file_name, one.row.question] == one.row.b.text


def test_a_run_whose_rows_cannot_be_asked_has_its_result_all_the_same(
    raw: dict[str, Any], made: tuple[Result, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise MemoryError("no memory for two models")

    shutil.copytree(raw["store"], tmp_path / "store")
    for record in (tmp_path / "store" / "records").glob("disagreements-*"):
        record.unlink()
    monkeypatch.setattr(module, "_answers", fails)
    lines: list[str] = []
    out = tmp_path / "out"
    result = lmmpress.compress(
        raw | {"store": str(tmp_path / "store")}, out, progress=lambda event: lines.append(str(event))
    )
    assert result.compressed.checkpoint == made[0].compressed.checkpoint
    assert any("no memory for two models" in line for line in lines)
    assert "disagree are left out" in (out / "report.html").read_text("utf-8")


def test_parts_of_older_versions_make_the_energy_a_least(
    raw: dict[str, Any], made: tuple[Result, Path], tmp_path: Path
) -> None:
    shutil.copytree(raw["store"], tmp_path / "store")
    for record in (tmp_path / "store" / "records").glob("distill-*"):
        content = json.loads(record.read_text("utf-8"))
        del content["energy"]
        record.write_text(json.dumps(content), "utf-8")
    for state in (tmp_path / "store" / "runs").glob("*"):
        state.unlink()  # the steps are put together anew from their parts
    result = lmmpress.compress(raw | {"store": str(tmp_path / "store")}, tmp_path / "out")
    used, before = certain(result.energy), certain(made[0].energy)
    assert not used.is_whole
    assert "distill" not in used.by_part
    assert certain(used.compression).kwh == pytest.approx(
        certain(before.compression).kwh - before.by_part["distill"].kwh
    )
    assert used.original == before.original, "it is not measured again"


def test_energy_is_no_part_of_the_question(raw: dict[str, Any]) -> None:
    plain = parse_plan(raw)
    evaluation = raw["evaluation"] | {"watts_per_core": 7, "watts_per_gpu": 300, "inferences_per_year": 5}
    other = parse_plan(raw | {"evaluation": evaluation})
    assert other.key_settings() == plain.key_settings()
    assert other.evaluation.of_speed() == plain.evaluation.of_speed()
    assert set(plain.evaluation.of_speed()) == {
        *("batch_size", "samples", "latency_samples", "speed", "seconds", "max_new_tokens"),
    }, "so that speeds that earlier versions measured are found"
