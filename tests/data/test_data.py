"""Faults of a data set are reported with their row."""

import contextlib
import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lmmpress.data import open_image, open_picture, read_split
from lmmpress.errors import UserError
from lmmpress.lmm.batches import grouped, make_batch
from lmmpress.lmm.checkpoint import read_checkpoint
from lmmpress.lmm.examples import Examples, encode
from lmmpress.lmm.processor import load_processor

GOOD = {"file_name": "a.png", "question": "q", "answer": "a", "task": "t", "split": "test"}


def write(folder: Path, *rows: object) -> Path:
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "metadata.jsonl").write_text("\n".join(lines), "utf-8")
    return folder


def test_rows_are_read_in_order(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", GOOD, GOOD | {"question": "r"}, GOOD | {"split": "gate"})
    assert [row.question for row in read_split(folder, "test").rows] == ["q", "r"]


def test_a_limit_takes_images_evenly_and_all_rows_of_an_image(tmp_path: Path) -> None:
    folder = write(tmp_path / "d")
    rows = []
    for number in range(10):
        shutil.copyfile(folder / "a.png", folder / f"{number}.png")
        rows += [GOOD | {"file_name": f"{number}.png", "question": f"{number}{letter}"} for letter in "ab"]
    taken = read_split(write(folder, *rows), "test", limit=10).rows
    assert [row.question for row in taken] == ["0a", "0b", "2a", "2b", "4a", "4b", "6a", "6b", "8a", "8b"]


def many(folder: Path) -> Path:
    """Ten pictures with two rows each, of a task that every row has and one that few have."""
    write(folder)
    rows = []
    for number in range(10):
        shutil.copyfile(folder / "a.png", folder / f"{number}.png")
        tasks = ("often", "seldom" if number < 2 else "often")
        rows += [
            GOOD | {"file_name": f"{number}.png", "question": f"{number}{letter}", "task": task}
            for letter, task in zip("ab", tasks, strict=True)
        ]
    return write(folder, *rows)


def test_a_random_draw_takes_all_rows_of_a_picture_and_depends_on_the_seed(tmp_path: Path) -> None:
    folder = many(tmp_path / "d")
    taken = [read_split(folder, "test", limit=8, draw="random", seed=seed) for seed in (0, 0, 1)]
    assert taken[0].digest == taken[1].digest != taken[2].digest
    for split in taken:
        assert len(split.rows) == 2 * len(split.pictures) == 8
        assert [row.line for row in split.rows] == sorted(row.line for row in split.rows)


@pytest.mark.parametrize(("limit", "seldom"), [(10, 1), (15, 1), (5, 0)])
def test_a_draw_by_task_takes_of_each_task_its_share(tmp_path: Path, limit: int, seldom: int) -> None:
    rows = read_split(many(tmp_path / "d"), "test", limit=limit, draw="by_task").rows
    assert len(rows) == limit
    assert sum(row.task == "seldom" for row in rows) == seldom


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "{",
            "line 2: not JSON: Expecting property name enclosed in double quotes at character 2; a line holds one JSON",
        ),
        (
            json.dumps(GOOD) + ",",
            "line 2: not JSON: Extra data at character .*; a line holds one JSON object and nothing",
        ),
        ("[" * 100_000, "line 2: not JSON"),
        ([1], "line 2: a row is a JSON object"),
        ({"question": "q"}, "line 2: answer is missing; a row has question and answer, or conversations, or messages"),
        (GOOD | {"answer": None}, "line 2: answer is missing"),
        (GOOD | {"answer": " \n"}, "line 2: answer is empty; fill it in, or leave the row out"),
        (GOOD | {"answer": 3}, "line 2: answer is 3, which is no text; write it as text, in quotes"),
        (GOOD | {"answer": {"x": "y" * 99}}, r'line 2: answer is \{"x": "y{30}\.\.\., which is no text'),
        (GOOD | {"answer": ["a", 3]}, "line 2: answer, entry 2 is 3, which is no text"),
        (GOOD | {"answer": []}, "line 2: answer has 0 answers; a row has 1 to 1,000"),
        (GOOD | {"file_name": "b.png"}, "line 2: image 'b.png' is missing"),
        (GOOD | {"file_name": "../d.png"}, "points outside"),
        (GOOD | {"file_name": "/etc/passwd"}, "points outside"),
        (GOOD | {"file_name": 7}, "file_name is no text"),
        (
            GOOD | {"file_name": ""},
            "file_name is no text; it is the path of one image, and a row without image has none",
        ),
        (GOOD | {"file_name": "https://h/a.png"}, "image 'https://h/a.png' is an address; fetch it into the data set"),
        (GOOD | {"file_name": "images\\a.png"}, "is missing; write / between folders"),
    ],
)
def test_the_error_for_a_bad_row_names_its_line(
    tmp_path: Path, row: dict[str, Any] | list[int] | str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read_split(write(tmp_path / "d", GOOD, row), "test")


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", GOOD | {"file_name": "link.png"})
    Image.new("RGB", (4, 4)).save(tmp_path / "outside.png")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(UserError, match="points outside"):
        read_split(folder, "test")


def test_an_empty_split_lists_those_that_have_rows(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'distill' has no rows; the splits are test; choose among them, by splits in"):
        read_split(write(tmp_path / "d", GOOD), "distill")


def test_a_file_without_rows_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", GOOD)
    (folder / "metadata.jsonl").write_text("\n \n", "utf-8")
    with pytest.raises(UserError, match=r"metadata\.jsonl holds no rows"):
        read_split(folder, "test")


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (LFS, "is a git-lfs pointer and not the file itself; run `git lfs pull` there"),
        (gzip.compress(b"{}", mtime=0), "is compressed by gzip; unpack it"),
        (b"PAR1\x15\x04", "is a Parquet file; give it a name that ends with .parquet"),
        (b"PK\x03\x04", "is a zip archive; unpack it"),
    ],
)
def test_the_error_for_metadata_of_another_file_type_names_that_type(tmp_path: Path, raw: bytes, message: str) -> None:
    folder = write(tmp_path / "d", GOOD)
    (folder / "metadata.jsonl").write_bytes(raw)
    with pytest.raises(UserError, match=message):
        read_split(folder, "test")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "it is empty; fetch it again"),
        (LFS, "it is a git-lfs pointer and not the file itself; run `git lfs pull` there"),
        (b"<!DOCTYPE html>", "it is none of JPEG, .*, or is damaged; convert it, or fetch it again"),
    ],
)
def test_the_error_for_a_file_that_is_not_an_image_names_its_type(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / "a.png").write_bytes(raw)
    with pytest.raises(UserError, match=message):
        open_picture(tmp_path / "a.png")


def test_a_folder_without_metadata_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no metadata\.jsonl"):
        read_split(tmp_path, "test")


def test_an_unreadable_image_is_named_with_its_row(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", GOOD)
    (folder / "a.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"a\.png cannot be read as an image.*asking 'q'"):
        open_image(read_split(folder, "test"), "a.png")


def test_a_split_with_images_for_only_some_rows_is_refused(tmp_path: Path) -> None:
    text_only = {key: value for key, value in GOOD.items() if key != "file_name"}
    with pytest.raises(UserError, match="some rows"):
        read_split(write(tmp_path / "d", GOOD, text_only), "test")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    line=st.one_of(
        st.text(max_size=60),
        st.recursive(
            st.none() | st.integers() | st.text(max_size=5),
            lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(list(GOOD)), inner),
        ).map(json.dumps),
    )
)
def test_any_text_as_metadata_is_read_or_is_a_clear_error(tmp_path_factory: pytest.TempPathFactory, line: str) -> None:
    folder = write(tmp_path_factory.mktemp("odd"), line)
    with contextlib.suppress(UserError):
        read_split(folder, "test")


@pytest.fixture(scope="module")
def examples(make_checkpoint: Callable[..., Path], data: Path) -> Examples:
    checkpoint = make_checkpoint("llama")
    return encode(read_split(data, "distill"), load_processor(checkpoint), read_checkpoint(checkpoint).config)


def test_every_answer_ends_with_the_end_token(examples: Examples) -> None:
    assert all(row.answer[-1] == 2 for row in examples.rows)


def test_a_batch_marks_the_positions_that_predict_the_answer(examples: Examples) -> None:
    batch = make_batch(examples, [3, 0, 7])
    assert batch.where.sum() == len(batch.targets) == len(batch.owner) == len(batch.number)
    shifted = torch.roll(batch.where, 1, dims=1)
    assert torch.equal(batch.inputs["input_ids"][shifted], batch.targets)


@pytest.mark.parametrize("generator", [None, 5])
def test_batches_hold_every_row_once(examples: Examples, generator: int | None) -> None:
    seeded = torch.Generator().manual_seed(generator) if generator else None
    order = grouped(examples, 7, seeded)
    assert sorted(index for chosen in order for index in chosen) == list(range(len(examples.rows)))


def test_an_answer_that_does_not_fit_is_refused(make_checkpoint: Callable[..., Path], data: Path) -> None:
    processor = load_processor(make_checkpoint("llama"))
    with pytest.raises(UserError, match="does not fit"):
        encode(read_split(data, "test"), processor, {"text_config": {"max_position_embeddings": 8}})
