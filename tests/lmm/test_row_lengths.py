"""Rows are counted in a checkpoint's own tokens, as encoding them for a run counts them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lmmpress import inspect_data
from lmmpress.data import read_split
from lmmpress.lmm.examples import encode
from lmmpress.lmm.processor import load_processor
from lmmpress.lmm.read_anatomy import complete, read_config


@pytest.mark.parametrize("kind", ["llama", "llava-clip-llama", "text-glm"])
def test_lengths_are_those_of_the_encoded_rows(
    make_checkpoint: Callable[..., Path], data: Path, tmp_path: Path, kind: str
) -> None:
    checkpoint, folder = make_checkpoint(kind), data
    if kind == "text-glm":
        lines = [json.loads(line) for line in (data / "metadata.jsonl").read_text("utf-8").splitlines()]
        folder = tmp_path
        text = "".join(json.dumps({k: v for k, v in line.items() if k != "file_name"}) + "\n" for line in lines)
        (folder / "rows.jsonl").write_text(text, "utf-8")
    found = inspect_data(folder, splits=["test"], checkpoint=checkpoint)
    encoded = encode(read_split(folder, "test"), load_processor(checkpoint), complete(read_config(checkpoint))).rows
    assert found.tokens is not None
    assert found.tokens.answers is not None
    assert found.tokens.prompts.longest == max(len(row.prompt) for row in encoded)
    assert found.tokens.answers.longest == max(len(row.answer) for row in encoded)
    assert found.tokens.prompts.median == sorted(len(row.prompt) for row in encoded)[(len(encoded) - 1) // 2]
    assert (found.tokens.too_long, found.faults) == (0, ())


def test_rows_that_do_not_fit_the_model_are_faults(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint = make_checkpoint("text-glm", max_position_embeddings=64)
    rows = [
        {"question": "颜色", "answer": "红色", "split": "test"},
        {"question": "颜色" * 31, "answer": "红色", "split": "test"},
        {"question": "标题", "answer": "红色", "split": "test"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    found = inspect_data(tmp_path, checkpoint=checkpoint, fix=tmp_path / ".." / "clean")
    assert found.tokens is not None
    assert found.tokens.too_long == 1
    assert found.tokens.prompts.longest == 62
    (fault,) = found.faults
    assert fault.place == "rows.jsonl, line 2"
    assert "prompt and answer are 65 tokens, the model takes 64" in fault.why
    assert len(read_split(tmp_path / ".." / "clean", "test").rows) == 2


def test_a_picture_for_a_model_of_texts_is_a_fault_of_every_row(
    make_checkpoint: Callable[..., Path], data: Path
) -> None:
    found = inspect_data(data, splits=["test"], checkpoint=make_checkpoint("text-glm"))
    assert found.tokens is None
    assert found.count == 0
    assert {"the model takes text alone" in fault.why for fault in found.faults} == {True}


def test_rows_without_an_answer_are_counted_too(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "颜色", "split": "test"}\n', "utf-8")
    found = inspect_data(tmp_path, unlabelled=True, checkpoint=make_checkpoint("text-glm"))
    assert found.tokens is not None
    assert (found.tokens.prompts.longest, found.tokens.answers, found.answers) == (2, None, None)
