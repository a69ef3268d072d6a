"""Rows, processor and model that do not fit each other are corrected where it is clear how, and otherwise refused in
one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.certain import certain
from support.data import write_data
from transformers import AutoProcessor

from lmmpress.data import read_split
from lmmpress.errors import UserError
from lmmpress.evaluation.generate import generate, questions
from lmmpress.lmm.checkpoint import load_model, read_checkpoint
from lmmpress.lmm.compatibility import correct_files, corrections, fitted, was_blind
from lmmpress.lmm.examples import check_rows, encode
from lmmpress.lmm.processor import load_processor

BLIP2, LLAVA, TEXT = "llama", "llava-clip-llama", "text-glm"
ROW = {
    "file_name": "images/0000.png",
    "question": "图片的背景颜色是什么?",
    "answer": "红色",
    "task": "t",
    "split": "test",
}


pytestmark = pytest.mark.usefixtures("aloud")


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., Any]:
    """The test split of a data set with one picture and these rows."""

    def make(*changes: dict[str, Any]) -> Any:
        folder = write_data(tmp_path / "data", {"test": 1})
        made = [{key: value for key, value in (ROW | change).items() if value is not None} for change in changes]
        (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in made), "utf-8")
        return read_split(folder, "test")

    return make


@pytest.fixture
def copy_of(make_checkpoint: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """A checkpoint whose JSON files are changed: a value of None takes the key away."""

    def make(kind: str, **changes: dict[str, Any]) -> Path:
        folder = tmp_path / "model"
        shutil.copytree(make_checkpoint(kind), folder)
        for name, changed in changes.items():
            path = folder / f"{name}.json"
            held = json.loads(path.read_text("utf-8")) | changed
            path.write_text(json.dumps({key: value for key, value in held.items() if value is not None}), "utf-8")
        return folder

    return make


def encoded(checkpoint: Path, split: Any) -> Any:
    """The encoded rows; the check before a run accepts them too."""
    config = read_checkpoint(checkpoint).config
    check_rows(split, load_processor(checkpoint), config)
    return encode(split, load_processor(checkpoint), config)


def refused(checkpoint: Path, split: Any) -> str:
    """The one line with which both encoding and the check before a run refuse the rows."""
    config = read_checkpoint(checkpoint).config
    lines: list[str] = []
    for work in (encode, check_rows):
        with pytest.raises(UserError) as told:
            done = work(split, load_processor(checkpoint), config)
            if done is not None and done.pixels is not None:
                done.pixels[range(len(done.pixels))]
        lines += told.value.lines
    assert len(set(lines)) == 1
    return lines[0]


# --- rows ---


def test_a_llava_question_without_image_gets_it_in_front(
    make_checkpoint: Callable[..., Path], rows: Callable[..., Any]
) -> None:
    checkpoint = make_checkpoint(LLAVA)
    whole = encoded(checkpoint, rows({"question": "<image>\n背景"}, {"question": "背景"}, {"question": "标题"}))
    assert whole.rows[0].prompt == whole.rows[1].prompt
    assert [row.prompt.count(3) for row in whole.rows] == [4, 4, 4]  # a tower of 16 pixels with patches of 8


def test_answers_with_unknown_characters_are_counted(
    make_checkpoint: Callable[..., Path], rows: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = make_checkpoint(BLIP2)
    split = rows({"answer": "红色"}, {"answer": "紫"}, {"answer": "橙"})
    check_rows(split, load_processor(checkpoint), read_checkpoint(checkpoint).config)
    said = [line for line in capsys.readouterr().err.splitlines() if "has no token for some characters" in line]
    assert len(said) == 1
    assert "line 2" in said[0]
    assert "as in 2 answers of split test" in said[0]


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (LLAVA, {"question": "<image><image>背景"}, "the question holds <image> 2 times, but the row has one image"),
        (LLAVA, {"question": "<image>背景", "file_name": None}, "holds <image>, but the row has no image"),
        (LLAVA, {"answer": "<image>"}, "the answer holds <image>"),
        (BLIP2, {"question": "<image>背景"}, "BLIP-2's processor puts the image in front itself; take it out"),
        (BLIP2, {"answer": "红<image>"}, "the answer holds <image>"),
        (BLIP2, {"file_name": None}, "the row has no image, but BLIP-2 needs one; give it a file_name"),
        (TEXT, {}, "the row has an image, 'images/0000.png', but the model takes text alone; leave out file_name"),
    ],
)
def test_a_row_that_does_not_fit_the_model_is_a_one_line_error(
    make_checkpoint: Callable[..., Path], rows: Callable[..., Any], kind: str, change: dict[str, Any], message: str
) -> None:
    told = refused(make_checkpoint(kind), rows(change))
    assert "metadata.jsonl, line 1, asking '" in told
    assert message in told


def test_a_question_without_tokens_is_a_one_line_error(copy_of: Callable[..., Path], rows: Callable[..., Any]) -> None:
    checkpoint = copy_of(TEXT, tokenizer={"normalizer": {"type": "Replace", "pattern": {"Regex": "."}, "content": ""}})
    assert "the tokenizer makes nothing of the" in refused(checkpoint, rows({"file_name": None}))


def test_a_question_that_is_too_long_is_a_one_line_error_that_names_its_row(
    make_checkpoint: Callable[..., Path], rows: Callable[..., Any]
) -> None:
    checkpoint = make_checkpoint("opt")
    told = refused(checkpoint, rows({}, {"question": "图" * 96}))
    assert "line 2, asking" in told
    assert "prompt and answer are 103 tokens, the model takes 96" in told


# --- processors ---


@pytest.mark.parametrize("number", [None, 7])
def test_query_tokens_are_taken_from_the_config_and_a_picture_reaches_the_model(
    copy_of: Callable[..., Path], rows: Callable[..., Any], number: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = copy_of(BLIP2, processor_config={"num_query_tokens": number})
    made = encoded(checkpoint, rows({}))
    assert made.rows[0].prompt.count(3) == 4
    assert f"num_query_tokens is {number}, the model's config says 4; the config is followed" in capsys.readouterr().err
    assert was_blind(checkpoint, read_checkpoint(checkpoint).config) is (number is None)


def test_corrections_of_a_processor_are_reported_once(
    copy_of: Callable[..., Path], rows: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = copy_of(BLIP2, processor_config={"num_query_tokens": 9})
    again = checkpoint.with_name("again")
    shutil.copytree(checkpoint, again)
    for folder in (checkpoint, again, checkpoint):
        fitted(load_processor(folder), read_checkpoint(folder).config)
    assert capsys.readouterr().err.count("num_query_tokens is 9") == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"patch_size": None},
        {"patch_size": 4},
        {"num_additional_image_tokens": None},
        {"vision_feature_select_strategy": None},
        {"vision_feature_select_strategy": "full"},
        {"patch_size": None, "num_additional_image_tokens": None, "vision_feature_select_strategy": None},
    ],
)
def test_the_settings_by_which_llava_counts_image_tokens_are_taken_from_the_model(
    copy_of: Callable[..., Path], rows: Callable[..., Any], settings: dict[str, Any]
) -> None:
    checkpoint = copy_of(LLAVA, processor_config=settings)
    split = rows({"question": "<image>背景"})
    examples = encoded(checkpoint, split)
    assert examples.rows[0].prompt.count(3) == 4
    model = load_model(checkpoint)
    assert len(generate(model, questions(model, examples, [0]), 2)) == 1


def test_a_processor_that_counts_correctly_is_unchanged(copy_of: Callable[..., Path]) -> None:
    other = {"num_additional_image_tokens": 0, "vision_feature_select_strategy": "full"}  # one off twice
    for checkpoint in (copy_of(LLAVA, processor_config=other),):
        before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
        config = read_checkpoint(checkpoint).config
        assert corrections(load_processor(checkpoint), config) == {}
        correct_files(checkpoint, config)
        assert before == {path.name: path.read_bytes() for path in checkpoint.iterdir()}


CUT = {"direction": "Right", "max_length": 6, "strategy": "LongestFirst", "stride": 0}


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        (BLIP2, {"processor_config": {"num_query_tokens": None}}),
        (LLAVA, {"processor_config": {"patch_size": None, "num_additional_image_tokens": None}}),
        (BLIP2, {"tokenizer": {"truncation": CUT}}),
        (LLAVA, {"tokenizer_config": {"max_length": 6, "truncation": True}}),
    ],
)
def test_plain_transformers_does_the_same_with_corrected_files(
    copy_of: Callable[..., Path], rows: Callable[..., Any], kind: str, files: dict[str, Any]
) -> None:
    checkpoint = copy_of(kind, **files)
    config = read_checkpoint(checkpoint).config
    question = ("<image>\n" if kind == LLAVA else "") + ROW["question"]
    wanted = encoded(checkpoint, rows({"question": question})).rows[0].prompt
    correct_files(checkpoint, config)
    plain = AutoProcessor.from_pretrained(checkpoint)(images=Image.new("RGB", (16, 16)), text=question)
    assert plain["input_ids"][0] == wanted
    before = (checkpoint / "processor_config.json").read_bytes()
    correct_files(checkpoint, config)
    assert (checkpoint / "processor_config.json").read_bytes() == before


@pytest.mark.parametrize("kind", [BLIP2, LLAVA, TEXT])
def test_saved_truncation_and_padding_are_switched_off(
    copy_of: Callable[..., Path],
    make_checkpoint: Callable[..., Path],
    rows: Callable[..., Any],
    kind: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pads = {"strategy": {"Fixed": 40}, "direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"}
    checkpoint = copy_of(kind, tokenizer={"truncation": CUT, "padding": pads | {"pad_to_multiple_of": None}})
    split = rows({"file_name": None} if kind == TEXT else {})
    wanted = encode(split, load_processor(make_checkpoint(kind)), read_checkpoint(checkpoint).config)
    assert encoded(checkpoint, split).rows[0].prompt == wanted.rows[0].prompt
    assert "saved with truncation or padding to 6 tokens; it is switched off" in capsys.readouterr().err


def test_an_image_token_unlike_the_configs_is_a_one_line_error(
    copy_of: Callable[..., Path], rows: Callable[..., Any]
) -> None:
    told = refused(copy_of(LLAVA, config={"image_token_index": 5}), rows({}))
    assert "image_token_index is 5 in config.json, but the tokenizer's <image> is 3" in told


def test_a_config_without_an_image_token_says_what_to_add(
    copy_of: Callable[..., Path], rows: Callable[..., Any]
) -> None:
    checkpoint = copy_of(BLIP2, config={"image_token_index": None}, processor_config={"num_query_tokens": None})
    assert 'add "image_token_index": 3, the tokenizer\'s <image>' in refused(checkpoint, rows({}))


@pytest.mark.parametrize("kind", [BLIP2, TEXT])
def test_a_tokenizer_larger_than_the_embedding_is_a_one_line_error(
    copy_of: Callable[..., Path], rows: Callable[..., Any], kind: str
) -> None:
    checkpoint = copy_of(kind)
    processor = load_processor(checkpoint)
    tokenizer = getattr(processor, "tokenizer", processor)
    tokenizer.add_tokens(["one more"])
    tokenizer.save_pretrained(checkpoint)
    config: dict[str, Any] = dict(read_checkpoint(checkpoint).config)
    rows_there = config.get("text_config", config)["vocab_size"]
    told = refused(checkpoint, rows({"file_name": None} if kind == TEXT else {}))
    assert f"the tokenizer has ids up to {rows_there} ('one more'), the model's embedding has {rows_there} rows" in told


def test_pictures_of_another_size_than_the_towers_are_a_one_line_error(
    copy_of: Callable[..., Path], rows: Callable[..., Any]
) -> None:
    checkpoint = copy_of(BLIP2)
    path = checkpoint / "processor_config.json"
    held = json.loads(path.read_text("utf-8"))
    held["image_processor"]["size"] = {"height": 24, "width": 24}
    path.write_text(json.dumps(held), "utf-8")
    told = refused(checkpoint, rows({}))
    assert "makes pictures of 24 x 24 pixels, the vision tower takes 16 x 16" in told


def test_pictures_are_encoded_upright_and_on_white(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """The rules of lmmpress.data.pictures apply to the model's pixels."""
    folder = write_data(tmp_path / "data", {"test": 1})
    clear = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    clear.save(folder / "images" / "0000.png")
    checkpoint = make_checkpoint(BLIP2)
    processor = load_processor(checkpoint)
    encoded_row = encode(read_split(folder, "test"), processor, read_checkpoint(checkpoint).config)
    found = certain(encoded_row.pixels)[[0]][0]
    white = processor(images=Image.new("RGB", (16, 16), "white"), text="q", return_tensors="pt")["pixel_values"][0]
    assert torch.equal(found, white)
