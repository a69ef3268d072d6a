"""Rows in Parquet files: what pyarrow reads, as values that JSON can hold, and pictures."""

import datetime
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.containers import peak_of, raw_of, read_all, refusal, stream_of

from lmmpress.data.containers.container import Held, Record
from lmmpress.data.containers.parquet import PARQUET, read_parquet
from lmmpress.errors import UserError

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(folder: Path, columns: dict[str, Any], name: str = "a.parquet", **options: Any) -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / name, **options)
    return folder


def values_of(folder: Path, **columns: Any) -> list[object]:
    """What the rows of one column become."""
    (name,) = columns
    return [record.values[name] for record in read_all(PARQUET, write(folder, columns))]


def test_a_row_is_a_record(tmp_path: Path) -> None:
    columns = {
        "image": pa.array([{"bytes": b"x", "path": "x.png"}], PICTURE),
        "question": ["q"],
        "answer": [["a", "b"]],
    }
    write(tmp_path, columns, "data/test-00000-of-00001.parquet")
    place = "data/test-00000-of-00001.parquet, row 1"
    picture = Held(f"{place}, image", b"x")
    values = {"image": picture, "question": "q", "answer": ["a", "b"]}
    assert read_all(PARQUET, tmp_path) == [Record(values, place, 1, "test")]


def test_files_of_the_folder_and_its_sub_folders(tmp_path: Path) -> None:
    for name in ("train/10.parquet", "train/9.parquet", "val.parquet", ".cache/x.parquet"):
        write(tmp_path, {"a": [name]}, name)
    found = [(record.values["a"], record.split) for record in read_all(PARQUET, tmp_path)]
    assert found == [("train/9.parquet", "train"), ("train/10.parquet", "train"), ("val.parquet", "validation")]
    assert PARQUET.files(["a.jsonl", "b.tar"]) == []


def test_any_one_file_can_be_read(tmp_path: Path) -> None:
    write(tmp_path, {"file_name": ["a.png", "b.png"]}, "metadata.parquet")
    rows = read_parquet(tmp_path, "metadata.parquet", "test")
    assert [(row.values["file_name"], row.line, row.split) for row in rows] == [
        ("a.png", 1, "test"),
        ("b.png", 2, "test"),
    ]


def test_pictures_as_bytes_as_paths_and_in_lists(tmp_path: Path) -> None:
    columns = {
        "image": pa.array([{"bytes": b"x", "path": "x.png"}, {"bytes": None, "path": "y.png"}, None], PICTURE),
        "images": pa.array(
            [[{"bytes": b"1", "path": None}, {"bytes": b"2", "path": None}], [], None], pa.list_(PICTURE)
        ),
        "raw": pa.array([b"r", b"", None], pa.large_binary()),
        "path": ["a.png", None, "../b.png"],
    }
    one, two, three = (record.values for record in read_all(PARQUET, write(tmp_path, columns)))
    assert one == {
        "image": Held("a.parquet, row 1, image", b"x"),
        "images": [Held("a.parquet, row 1, images 1", b"1"), Held("a.parquet, row 1, images 2", b"2")],
        "raw": Held("a.parquet, row 1, raw", b"r"),
        "path": "a.png",
    }
    assert two == {"image": "y.png", "images": [], "raw": Held("a.parquet, row 2, raw", b""), "path": None}
    assert three == {"image": None, "images": None, "raw": None, "path": "../b.png"}


def test_a_path_is_relative_to_the_files_folder_if_it_is_there(tmp_path: Path) -> None:
    paths = ["a.png", "b.png", "../a.png", "/etc/passwd", "a\0.png", "s3://bucket/a.png"]
    write(tmp_path, {"image": pa.array([{"bytes": None, "path": path} for path in paths], PICTURE)}, "data/a.parquet")
    (tmp_path / "data" / "a.png").touch()
    found = [record.values["image"] for record in read_all(PARQUET, tmp_path)]
    assert found == ["data/a.png", *paths[1:]]


def test_what_the_hub_writes(tmp_path: Path) -> None:
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "images": datasets.List(datasets.Image()),
            "label": datasets.ClassLabel(names=["cup", "shoe"]),
            "labels": datasets.List(datasets.ClassLabel(names=["cup", "shoe"])),
            "turns": [{"from": datasets.Value("string"), "kind": datasets.ClassLabel(names=["human", "gpt"])}],
        }
    )
    picture = Image.new("RGB", (4, 4), "red")
    row = {
        "image": picture,
        "images": [picture, picture],
        "label": 1,
        "labels": [0, 1],
        "turns": [{"from": "human", "kind": 0}],
    }
    made = datasets.Dataset.from_dict({name: [value, None] for name, value in row.items()}, features=features)
    made = made.add_column("sound", [{"bytes": b"la", "path": "la.mp3"}, None])
    made.cast_column("sound", datasets.Audio(decode=False)).to_parquet(tmp_path / "a.parquet")
    first, second = (record.values for record in read_all(PARQUET, tmp_path))
    for held in (first.pop("image"), *_list(first.pop("images"))):
        assert Image.open(io.BytesIO(raw_of(tmp_path, held))).getpixel((0, 0)) == (255, 0, 0)
    assert first == {
        "label": "shoe",
        "labels": ["cup", "shoe"],
        "sound": "la.mp3",
        "turns": [{"from": "human", "kind": "human"}],
    }
    assert set(second.values()) == {None}


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


MOMENT = datetime.datetime(2026, 5, 1, 12, 30, 0, 250_000)
TZ = datetime.timezone(datetime.timedelta(hours=8))


@pytest.mark.parametrize(
    ("array", "values"),
    [
        (pa.array(["a", "b", None, "a"]).dictionary_encode(), ["a", "b", None, "a"]),
        (pa.array(["a"], pa.large_string()), ["a"]),
        (pa.array([MOMENT], pa.timestamp("us")), ["2026-05-01 12:30:00.25"]),
        (pa.array([MOMENT.replace(microsecond=0)], pa.timestamp("ns")), ["2026-05-01 12:30:00"]),
        (pa.array([MOMENT.replace(tzinfo=TZ)], pa.timestamp("ms", "+08:00")), ["2026-05-01 04:30:00.25Z"]),
        (pa.array([datetime.date(2026, 5, 1)]), ["2026-05-01"]),
        (pa.array([datetime.time(1, 2, 3)]), ["01:02:03"]),
        (pa.array([datetime.timedelta(seconds=2)], pa.duration("ms")), [2000]),
        (pa.array([Decimal("1.50"), Decimal("-2.00")]), ["1.50", "-2.00"]),
        (pa.array([float("nan"), float("inf"), 0.5]), [None, None, 0.5]),
        (pa.nulls(2), [None, None]),
        (pa.array([{"a": 1, "b": [{"c": "x"}]}, None]), [{"a": 1, "b": [{"c": "x"}]}, None]),
        (pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64())), [{"k": 1}, None, {}]),
        (pa.array([[(1, "v")], [(2, "w")]], pa.map_(pa.int64(), pa.string())), [[[1, "v"]], [[2, "w"]]]),
        (pa.array([[1, 2], [3, 4]], pa.list_(pa.int64(), 2)), [[1, 2], [3, 4]]),
        (pa.array([[[1], []], None]), [[[1], []], None]),
        (pa.array([b"\x01\xff"], pa.binary(2)), ["01ff"]),
        (pa.array([True, None]), [True, None]),
        (pa.array([2**64 - 1], pa.uint64()), [2**64 - 1]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_values_become_what_json_can_hold(tmp_path: Path, array: pa.Array, values: list[object]) -> None:
    found = values_of(tmp_path, a=array)
    assert found == values
    assert json.loads(json.dumps(found, allow_nan=False)) == values


def test_extension_types_are_what_they_are_stored_as(tmp_path: Path) -> None:
    raw = bytes(range(16))
    array = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([raw], pa.binary(16)))
    (found,) = values_of(tmp_path, a=array)
    assert found in (raw.hex(), "00010203-0405-0607-0809-0a0b0c0d0e0f")
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(8).reshape(2, 2, 2))
    assert values_of(tmp_path, a=tensors) == [[0, 1, 2, 3], [4, 5, 6, 7]]


ROWS = st.fixed_dictionaries(
    {
        "text": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        "number": st.none() | st.integers(-(2**63), 2**63 - 1),
        "raw": st.none() | st.binary(max_size=40),
        "texts": st.none() | st.lists(st.none() | st.text("ab", max_size=3), max_size=4),
        "inner": st.none()
        | st.fixed_dictionaries({"x": st.none() | st.booleans(), "y": st.lists(st.binary(max_size=3))}),
    }
)
SCHEMA = pa.schema(
    {
        "text": pa.string(),
        "number": pa.int64(),
        "raw": pa.binary(),
        "texts": pa.list_(pa.string()),
        "inner": pa.struct({"x": pa.bool_(), "y": pa.list_(pa.binary())}),
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=st.lists(ROWS, max_size=12),
    repeated=st.sampled_from([1, 30]),
    options=st.fixed_dictionaries(
        {
            "row_group_size": st.sampled_from([1, 7, 1000]),
            "compression": st.sampled_from(["none", "snappy", "gzip", "zstd", "lz4", "brotli"]),
            "use_dictionary": st.booleans(),
            "data_page_version": st.sampled_from(["1.0", "2.0"]),
            "data_page_size": st.sampled_from([64, 1 << 20]),
            "write_page_checksum": st.booleans(),
        }
    ),
)
def test_rows_are_those_that_pyarrow_reads(
    tmp_path: Path, rows: list[dict[str, Any]], repeated: int, options: dict[str, Any]
) -> None:
    table = pa.Table.from_pylist(rows * repeated, SCHEMA)
    pq.write_table(table, tmp_path / "a.parquet", **options)
    found = read_all(PARQUET, tmp_path)
    assert [_plain(record.values) for record in found] == pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [record.line for record in found] == list(range(1, len(found) + 1))


def _plain(value: object) -> object:
    if isinstance(value, Held):
        return value.raw
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return {key: _plain(one) for key, one in value.items()} if isinstance(value, dict) else value


def test_the_names_of_pictures_are_unique(tmp_path: Path) -> None:
    picture = {"bytes": b"x", "path": None}
    for name in ("train/0.parquet", "test/0.parquet"):
        write(tmp_path, {"a": [picture] * 70, "b": [[picture, picture]] * 70}, name, row_group_size=20)
    names = [
        held.name
        for record in read_all(PARQUET, tmp_path)
        for held in (record.values["a"], *_list(record.values["b"]))
        if isinstance(held, Held)
    ]
    assert len(set(names)) == len(names) == 2 * 70 * 3


def test_rows_come_before_the_file_was_read_to_its_end(tmp_path: Path) -> None:
    """The second row group is damaged; the rows of the first are there before that is seen."""
    write(tmp_path, {"a": [f"text {number}" for number in range(100)]}, row_group_size=50, use_dictionary=False)
    raw = bytearray((tmp_path / "a.parquet").read_bytes())
    chunk = pq.read_metadata(tmp_path / "a.parquet").row_group(1).column(0)
    raw[chunk.data_page_offset : chunk.data_page_offset + 20] = bytes([0xFF]) * 20
    (tmp_path / "a.parquet").write_bytes(raw)
    stream = stream_of(PARQUET, tmp_path)
    assert [next(stream).line for _ in range(50)] == list(range(1, 51))
    with pytest.raises(UserError, match=r"column 'a' .*; fetch it again"):
        next(stream)


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False, "compression": "none"}])
def test_memory_does_not_grow_with_the_rows_of_a_group(tmp_path: Path, options: dict[str, Any]) -> None:
    peaks, pools = [], []
    for count in (300, 3000):
        rows = {"raw": [bytes([number % 251]) * 5000 for number in range(count)], "text": ["t" * 200] * count}
        folder = write(tmp_path / str(count), rows, data_page_size=1 << 15, write_batch_size=8, **options)
        peaks.append(peak_of(PARQUET, folder))
        pools.append(max(pa.total_allocated_bytes() for _ in stream_of(PARQUET, folder)))
    assert peaks[1] < 1.2 * peaks[0] + 100_000
    assert pools[1] < 1.2 * pools[0] + 100_000


def test_a_repeated_value_is_not_repeated_in_memory(tmp_path: Path) -> None:
    """One picture of many rows is stored once; read in batches of so many rows it would be gigabytes."""
    once = pa.DictionaryArray.from_arrays(pa.array([0] * 300, pa.int32()), pa.array([b"x" * (2 << 20)]))
    write(tmp_path, {"raw": once}, store_schema=False)
    assert (tmp_path / "a.parquet").stat().st_size < 3 << 20
    most = max(pa.total_allocated_bytes() for _ in stream_of(PARQUET, tmp_path))
    assert most < 150 << 20


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"a": pa.array([[], ["x" * 9_000_000]])},
            "a.parquet, row 2 holds more than 8,388,608 characters, or 1,048,576",
        ),
        ({"a": pa.array([[0] * 1_100_000])}, "a.parquet, row 1 holds more than 8,388,608 characters"),
        ({"a": pa.array([[0] * 5_000_000])}, "a.parquet, row 1 holds more than 8,388,608 characters"),
        (
            {"a": pa.array([b"ok", b"\xff"]).view(pa.string())},
            "a.parquet, row 2: column 'a' is damaged: Invalid UTF8 sequence",
        ),
        ({"a": pa.array([1, 2**62], pa.timestamp("ms"))}, "a.parquet, row 2: column 'a' has a value that cannot be"),
    ],
)
def test_values_that_cannot_be_held_are_refused(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_all(PARQUET, write(tmp_path, columns))
    assert len(caught.value.lines) == 1


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), tmp_path / "a.parquet")
    assert "a.parquet: two columns are named 'a'; rename one" in refusal(PARQUET, tmp_path)


def test_a_file_outside_of_the_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"a": [1]})
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "b.parquet").symlink_to(tmp_path / "a.parquet")
    assert "a link that points outside of the data set" in refusal(PARQUET, tmp_path / "d")


def test_many_rows_of_many_values_are_read(tmp_path: Path) -> None:
    """More values than are made at once: the rows are taken apart until they fit."""
    numbers = pa.array(np.repeat(np.arange(6, dtype=np.int8), 800_000))
    rows = pa.ListArray.from_arrays(pa.array(range(0, 4_800_001, 800_000), pa.int32()), numbers)
    found = [record.values["a"] for record in stream_of(PARQUET, write(tmp_path, {"a": rows}))]
    assert [(len(_list(row)), set(_list(row))) for row in found] == [(800_000, {number}) for number in range(6)]
