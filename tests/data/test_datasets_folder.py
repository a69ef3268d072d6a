"""Rows in folders that `datasets` saved, read without it."""

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.containers import fault_of, peak_of, raw_of, read_all, refusal, stream_of

from lmmpress.data.containers.container import Held
from lmmpress.data.containers.datasets_folder import DATASETS
from lmmpress.errors import UserError

FEATURES = datasets.Features(
    {
        "image": datasets.Image(decode=False),
        "images": datasets.List(datasets.Image(decode=False)),
        "question": datasets.Value("string"),
        "turns": [{"from": datasets.Value("string"), "value": datasets.Value("large_string")}],
        "share": datasets.Value("float32"),
    }
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (3, 3), (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


def made(count: int, features: datasets.Features = FEATURES) -> datasets.Dataset:
    rows = [
        {
            "image": {"bytes": png(number), "path": None},
            "images": [{"bytes": png(number), "path": None}] * (number % 3),
            "question": f"q{number}" if number % 5 else None,
            "turns": [{"from": "human", "value": "字" * number}],
            "share": number / 4,
        }
        for number in range(count)
    ]
    return datasets.Dataset.from_list(rows, features=features)


def plain(folder: Path, value: object) -> object:
    """A value as `datasets` gives it, with a picture as its bytes."""
    if isinstance(value, Held):
        return {"bytes": raw_of(folder, value), "path": None}
    if isinstance(value, list):
        return [plain(folder, one) for one in value]
    return {key: plain(folder, one) for key, one in value.items()} if isinstance(value, dict) else value


def rows_of(folder: Path) -> list[object]:
    return [plain(folder, record.values) for record in read_all(DATASETS, folder)]


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(count=st.integers(1, 150), shards=st.integers(1, 3), seed=st.none() | st.integers(0, 9), data=st.data())
def test_rows_are_those_that_datasets_loads(
    tmp_path_factory: pytest.TempPathFactory, count: int, shards: int, seed: int | None, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("saved")
    rows = made(count)
    if seed is not None:
        rows = rows.shuffle(seed=seed).select(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=20)))
    rows.save_to_disk(folder, num_shards=min(shards, len(rows)))
    assert rows_of(folder) == list(datasets.load_from_disk(str(folder)))


def test_splits_are_folders(tmp_path: Path) -> None:
    saved = datasets.DatasetDict(train=made(5), gate=made(2), test=made(3))
    saved.save_to_disk(tmp_path, num_shards={"train": 2, "gate": 1, "test": 1})
    found = read_all(DATASETS, tmp_path)
    assert [record.split for record in found] == ["train"] * 5 + ["gate"] * 2 + ["test"] * 3
    assert (found[0].place, found[0].line) == ("train/data-00000-of-00002.arrow, row 1", 1)
    loaded = datasets.load_from_disk(str(tmp_path))
    assert rows_of(tmp_path) == [row for split in ("train", "gate", "test") for row in loaded[split]]


def test_splits_that_were_saved_one_by_one(tmp_path: Path) -> None:
    for split in ("train", "test"):
        made(2).save_to_disk(tmp_path / split)
    assert [record.split for record in read_all(DATASETS, tmp_path)] == ["test"] * 2 + ["train"] * 2


@pytest.mark.parametrize(("named", "split"), [("train", "train"), ("train[:50%]", None), (None, None)])
def test_one_dataset_has_the_split_that_it_was_loaded_as(tmp_path: Path, named: str | None, split: str | None) -> None:
    made(2).save_to_disk(tmp_path)
    state = json.loads((tmp_path / "state.json").read_text("utf-8"))
    (tmp_path / "state.json").write_text(json.dumps(state | {"_split": named}), "utf-8")
    assert {record.split for record in read_all(DATASETS, tmp_path)} == {split}


def test_pictures_are_read_in_place(tmp_path: Path) -> None:
    made(70).save_to_disk(tmp_path)
    found = [record.values["image"] for record in read_all(DATASETS, tmp_path)]
    assert all(isinstance(held, Held) and held.raw is None for held in found)
    assert [raw_of(tmp_path, held) for held in found] == [png(number) for number in range(70)]
    names = {held.name for held in found if isinstance(held, Held)}
    assert len(names) == 70
    assert "data-00000-of-00001.arrow, row 70, image" in names


def test_classes_have_their_names(tmp_path: Path) -> None:
    features = datasets.Features({"label": datasets.ClassLabel(names=["cup", "shoe"])})
    datasets.Dataset.from_dict({"label": [1, 0, None, -1]}, features=features).save_to_disk(tmp_path)
    assert rows_of(tmp_path) == [{"label": "shoe"}, {"label": "cup"}, {"label": None}, {"label": None}]


@pytest.mark.parametrize("key", ["_indices_data_files", "_indices_files"])
def test_old_folders_have_their_rows_in_the_order_of_their_indices(tmp_path: Path, key: str) -> None:
    """As releases of 2020 saved a Dataset that was selected from or shuffled."""
    made(30).save_to_disk(tmp_path, num_shards=3)
    order = [29, 3, 3, 0, 17]
    with pa.OSFile(str(tmp_path / "indices.arrow"), "wb") as file:
        table = pa.table({"indices": pa.array(order, pa.uint64())})
        with pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    state = json.loads((tmp_path / "state.json").read_text("utf-8"))
    (tmp_path / "state.json").write_text(json.dumps(state | {key: [{"filename": "indices.arrow"}]}), "utf-8")
    every = list(datasets.load_from_disk(str(tmp_path)))
    assert rows_of(tmp_path) == [every[number] for number in order]
    assert read_all(DATASETS, tmp_path)[0].place == "data-00002-of-00003.arrow, row 10"

    with pa.OSFile(str(tmp_path / "indices.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(pa.table({"indices": pa.array([1, 30], pa.uint64())}))
    assert "indices.arrow, row 2: there is no row 30 among 30 rows" in refusal(DATASETS, tmp_path)


def test_which_folders_are_recognised() -> None:
    saved = [
        "dataset_dict.json",
        "test/state.json",
        "test/data-00000-of-00001.arrow",
        "test/dataset_info.json",
        "README.md",
    ]
    assert DATASETS.files(saved) == ["dataset_dict.json", "test/data-00000-of-00001.arrow", "test/state.json"]
    assert DATASETS.files(["state.json", "data.arrow", "x/state.json", "x/y.arrow"]) == ["data.arrow", "state.json"]
    assert DATASETS.files(["state.json", "metadata.jsonl"]) == []
    assert DATASETS.files(["a/b/state.json", "a/b/data.arrow"]) == []


def saved(folder: Path, count: int = 5) -> Path:
    made(count).save_to_disk(folder)
    return folder / "data-00000-of-00001.arrow"


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("[", "state.json: not JSON"),
        ("{}", "state.json: _data_files is no list of files; write the folder again by save_to_disk"),
        ('{"_data_files": [{"filename": "../x.arrow"}]}', "_data_files is no list of files"),
        ('{"_data_files": [{"filename": "a.arrow"}, 7]}', "_data_files is no list of files"),
        ('{"_data_files": [{"filename": "a.arrow"}, {"filename": "a.arrow"}]}', "_data_files names a file twice"),
        ('{"_data_files": "abc"}', "_data_files is no list of files"),
        ('{"_data_files": [{"filename": "other.arrow"}]}', "'other.arrow' is missing"),
    ],
)
def test_a_wrong_state_is_refused(tmp_path: Path, state: str, message: str) -> None:
    saved(tmp_path)
    (tmp_path / "state.json").write_text(state, "utf-8")
    assert message in refusal(DATASETS, tmp_path)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"splits": ["train", "../x"]}, "dataset_dict.json: splits is no list of names"),
        ({"splits": ["train", "test"]}, "names the split 'test', but test/state.json is missing"),
        ({"splits": ["train", "train"]}, "dataset_dict.json names a split twice"),
        ({}, "dataset_dict.json: splits is no list of names"),
    ],
)
def test_wrong_splits_are_refused(tmp_path: Path, splits: dict[str, Any], message: str) -> None:
    saved(tmp_path / "train")
    (tmp_path / "dataset_dict.json").write_text(json.dumps(splits), "utf-8")
    assert message in refusal(DATASETS, tmp_path)


def write_stream(path: Path, table: pa.Table, **options: Any) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema, **options) as writer:
        writer.write_table(table)


def test_compressed_batches_are_refused(tmp_path: Path) -> None:
    """They would expand to whatever size they say."""
    path = saved(tmp_path)
    texts = pa.array(["a" * 1000] * 9)
    for column in (texts, texts.dictionary_encode()):
        write_stream(path, pa.table({"a": column}), options=pa.ipc.IpcWriteOptions(compression="zstd"))
        assert "is compressed; write it without compression" in refusal(DATASETS, tmp_path)
        write_stream(path, pa.table({"a": column}))
        assert len(read_all(DATASETS, tmp_path)) == 9


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            pa.array(["a" * 30], pa.string_view()),
            "column 'a' is of type string_view; write it as text, or leave it out",
        ),
        (pa.array([(1, 2, 3)], pa.month_day_nano_interval()), "is of type month_day_nano_interval; write it as text"),
        (pa.array([b"\xff"]).view(pa.string()), "row 1: column 'a' is damaged: Invalid UTF8"),
        (pa.ListArray.from_arrays(pa.array([0, 1 << 30], pa.int32()), pa.nulls(1 << 30)), "row 1 holds more than"),
    ],
    ids=["view", "interval", "no UTF-8", "a list of nothing"],
)
def test_values_that_cannot_be_held_are_refused(tmp_path: Path, array: pa.Array, message: str) -> None:
    write_stream(saved(tmp_path), pa.table({"a": array}))
    assert message in refusal(DATASETS, tmp_path)


def test_arrows_file_format_is_read_too(tmp_path: Path) -> None:
    path = saved(tmp_path)
    table = pa.ipc.open_stream(path.read_bytes()).read_all()
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    assert len(rows_of(tmp_path)) == 5
    assert raw_of(tmp_path, read_all(DATASETS, tmp_path)[4].values["image"]) == png(4)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is empty; fetch it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "run `git lfs pull` there"),
        (b"x" * 100, "cannot be read as an Arrow stream"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path: Path, raw: bytes, message: str) -> None:
    saved(tmp_path).write_bytes(raw)
    assert message in refusal(DATASETS, tmp_path)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, share: float) -> None:
    """At the end of a batch too: it ends with a mark."""
    raw = saved(tmp_path).read_bytes()
    for length in {int(share * len(raw)), len(raw) - 8}:
        (tmp_path / "data-00000-of-00001.arrow").write_bytes(raw[:length])
        assert len(fault_of(DATASETS, tmp_path)) == 1
        assert "again" in refusal(DATASETS, tmp_path)


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=5))
def test_damaged_files_give_one_line_or_records(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[float, int]]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    if not folder.exists():
        saved(folder)
        os.rename(folder / "data-00000-of-00001.arrow", folder / "whole")
    raw = bytearray((folder / "whole").read_bytes())
    for share, byte in flips:
        raw[int(share * len(raw))] = byte
    path = folder / "data-00000-of-00001.arrow"
    path.unlink(missing_ok=True)  # a file that is mapped must not become another
    path.write_bytes(raw)
    assert len(fault_of(DATASETS, folder)) <= 1


def test_rows_come_before_the_file_was_read_to_its_end(tmp_path: Path) -> None:
    path = saved(tmp_path)
    schema = pa.schema({"a": pa.string()})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for text in (b"ok", b"\xff"):
            writer.write_batch(pa.record_batch({"a": pa.array([text]).view(pa.string())}))
    stream = stream_of(DATASETS, tmp_path)
    assert next(stream).values == {"a": "ok"}
    with pytest.raises(UserError, match="row 2: column 'a' is damaged"):
        next(stream)


def test_memory_does_not_grow_with_rows(tmp_path: Path) -> None:
    peaks, pools = [], []
    for count in (500, 5000):
        folder = tmp_path / str(count)
        saved(folder)
        columns = {"raw": [bytes([number % 251]) * 2000 for number in range(count)], "text": ["t" * 200] * count}
        write_stream(folder / "data-00000-of-00001.arrow", pa.table(columns))  # one batch, as large as the file
        peaks.append(peak_of(DATASETS, folder))
        pools.append(max(pa.total_allocated_bytes() for _ in stream_of(DATASETS, folder)))
    assert peaks[1] < 1.2 * peaks[0] + 100_000
    assert pools[1] < 1.2 * pools[0] + 100_000
