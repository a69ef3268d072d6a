"""Checks of the original before the first step: it answers some rows of the gate's split right, and its answers depend
on the picture. Where the original is right on no row, the gate would accept everything."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.data import write_data
from support.tiny import save_model

from lmmpress.data import read_split
from lmmpress.engine.compression import compress
from lmmpress.errors import UserError
from lmmpress.evaluation.picture_use import rows_of_different_images, sees
from lmmpress.lmm.checkpoint import load_model, read_checkpoint
from lmmpress.lmm.processor import load_processor
from lmmpress.plan import Plan, parse_plan

pytestmark = pytest.mark.usefixtures("trusting")


def strict(raw_plan: dict[str, Any], **changes: Any) -> Plan:
    return parse_plan(raw_plan | {"tolerance": {"alpha": 0.9}} | changes)


def test_an_original_that_answers_nothing_right_is_refused_with_three_of_its_answers(
    raw_plan: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="answers none of the 16 rows of split 'gate' right") as caught:
        compress(strict(raw_plan), tmp_path / "out")
    (line,) = caught.value.lines
    assert line.count(" it answers ") == line.count(", the right answer is ") == 3
    assert 'to "图片的背景颜色是什么?" it answers ' in line
    assert ', the right answer is "红色"' in line
    assert "tolerance.allow_zero: true" in line
    assert not list((tmp_path / "out" / "store" / "records").glob("prune-*")), "no step was begun"
    with pytest.raises(UserError, match="answers none"):
        compress(strict(raw_plan), tmp_path / "out", resume=True)


def test_the_answers_it_gave_are_shown_shortened_on_one_line(
    raw_plan: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copytree(data / "images", folder / "images")
    rows = [json.loads(line) for line in (data / "metadata.jsonl").read_text("utf-8").splitlines()]
    for row in rows:
        row["question"] = "标题\x1b[31m\nerror: forged"
        row["answer"] = "红" * 30 + "绿" * 40
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    plan = strict(raw_plan, data=str(folder), evaluation={"max_new_tokens": 3})
    with pytest.raises(UserError, match="answers none") as caught:
        compress(plan, tmp_path / "out")
    (line,) = caught.value.lines
    assert r"标题\x1b[31m\nerror: forged" in line
    assert "红" * 30 + " ... " + "绿" * 20 + '"' in line
    assert "without an end token, the right answer is" in line


def test_a_plan_may_allow_an_original_without_a_right_answer(raw_plan: dict[str, Any], tmp_path: Path) -> None:
    tolerance = {"alpha": 0.9, "allow_zero": True}
    result = compress(parse_plan(raw_plan | {"tolerance": tolerance, "stages": {}}), tmp_path / "out")
    assert result.steps == []


def test_the_measures_of_the_original_are_not_taken_again(
    raw_plan: dict[str, Any], taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = strict(raw_plan, model=str(taught), stages={})
    compress(plan, tmp_path / "out")
    for name in (
        "engine.parts.original.sees",
        "evaluation.scores.answered_right",
        "engine.parts.original.write_answers",
    ):
        monkeypatch.setattr(f"lmmpress.{name}", lambda *_, **__: pytest.fail("this was done already"))
    compress(plan, tmp_path / "out", resume=True)


def blind(source: Path, target: Path) -> Path:
    """A copy of a BLIP-2 that makes the same features of every picture."""
    shutil.copytree(source, target)
    model = load_model(source)
    torch.nn.init.zeros_(model.get_parameter("language_projection.weight"))
    save_model(model, target)
    return target


def test_a_model_that_no_picture_reaches_is_refused(raw_plan: dict[str, Any], taught: Path, tmp_path: Path) -> None:
    plan = strict(raw_plan, model=str(blind(taught, tmp_path / "blind")))
    with pytest.raises(UserError, match="no picture reaches the model: rows of split 'gate'") as caught:
        compress(plan, tmp_path / "out")
    assert len(caught.value.lines) == 1
    with pytest.raises(UserError, match="no picture reaches"):
        compress(plan, tmp_path / "out", resume=True)


@pytest.mark.parametrize("kind", ["llama", "opt", "flan-t5", "llava-clip-llama"])
def test_tiny_models_see_also_where_all_pictures_are_alike(
    make_checkpoint: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    folder = write_data(tmp_path / "data", {"gate": 3})
    if kind.startswith("llava"):
        path = folder / "metadata.jsonl"
        path.write_text(path.read_text("utf-8").replace('"question": "', '"question": "<image>'), "utf-8")
    checkpoint = make_checkpoint(kind)
    model, processor, anatomy = load_model(checkpoint), load_processor(checkpoint), read_checkpoint(checkpoint)
    assert sees(model, rows_of_different_images(read_split(folder, "gate")), processor, anatomy)
    alike = shutil.copytree(folder, tmp_path / "alike")
    for path in sorted((alike / "images").iterdir())[1:]:
        path.write_bytes((alike / "images" / "0000.png").read_bytes())
    assert sees(model, rows_of_different_images(read_split(alike, "gate")), processor, anatomy)
    assert sees(model, rows_of_different_images(read_split(alike, "gate", 1)), processor, anatomy)


def test_a_processor_that_makes_no_place_for_pictures_is_noticed(
    make_checkpoint: Callable[..., Path], data: Path
) -> None:
    checkpoint = make_checkpoint("llama")
    processor = load_processor(checkpoint)
    rows = rows_of_different_images(read_split(data, "gate"))
    assert len(rows.rows) == len(rows.images.names) == 4

    class WordsAlone:
        tokenizer, image_processor = processor.tokenizer, processor.image_processor

        def __call__(self, images: Any, text: Any, return_tensors: Any) -> dict[str, Any]:
            return {"input_ids": self.tokenizer(text)["input_ids"]} | dict(self.image_processor(images))

    assert not sees(load_model(checkpoint), rows, WordsAlone(), read_checkpoint(checkpoint))


def test_a_test_split_of_one_row_is_measured(
    raw_plan: dict[str, Any], taught: Path, data: Path, tmp_path: Path
) -> None:
    """From one image nothing follows for others: the interval of the drop is as wide as it can be."""
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copytree(data / "images", folder / "images")
    lines = (data / "metadata.jsonl").read_text("utf-8").splitlines()
    kept = [line for line in lines if '"split": "test"' not in line]
    kept += [line for line in lines if '"split": "test"' in line][:1]
    (folder / "metadata.jsonl").write_text("\n".join(kept), "utf-8")
    plan = strict(raw_plan, model=str(taught), data=str(folder), stages={"ffn": {"step": 16, "max": 16}})
    result = compress(plan, tmp_path / "out")
    assert (result.drop_interval.low, result.drop_interval.high) == (-1, 1)
    assert result.original.accuracy in (0.0, 1.0)
    assert result.compressed.speed
