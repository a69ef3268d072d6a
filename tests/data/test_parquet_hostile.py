"""Parquet files that no honest writer wrote give one line: no traceback, no crash, no memory that is not theirs."""

import io
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.containers import fault_of, read_all, refusal
from support.paths import ROOT
from support.thrift import Long, element, encoded, parquet

from lmmpress.data.containers.parquet import PARQUET
from lmmpress.data.containers.parquet_footer import read_footer
from lmmpress.data.containers.parquet_pages import sizes
from lmmpress.errors import UserError

TEXT, NUMBER = 6, 2
PLAIN = 0


def page(stored: int, expanded: int, values: int) -> bytes:
    """The header of a page, and so many bytes of nothing."""
    return encoded({1: 0, 2: expanded, 3: stored, 5: {1: values, 2: PLAIN, 3: 3, 4: 3}}) + bytes(stored)


def group(body: bytes, kind: int, values: int, rows: int, start: int = 4) -> dict[int, object]:
    """A row group of one column, compressed by zstd."""
    chunk = {1: kind, 2: [0, 3], 3: [b"a"], 4: 6, 5: Long(values), 6: Long(9), 7: Long(len(body)), 9: Long(start)}
    return {1: [{2: Long(4), 3: chunk}], 2: Long(9), 3: Long(rows)}


COLUMN = [element(b"root", 1), element(b"a", kind=TEXT)]
LIST = [element(b"root", 1), element(b"l", 1), element(b"list", 1, repetition=2), element(b"a", kind=NUMBER)]
BOMB = page(100, 1 << 30, 5)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is no Parquet file, or is cut off; fetch it again"),
        (b"PAR1", "is no Parquet file, or is cut off; fetch it again"),
        (b"PAR1" + b"\0" * 50, "is no Parquet file, or is cut off; fetch it again"),
        (b"PARE" + b"\0" * 50 + b"PARE", "is encrypted; write it without encryption"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "run `git lfs pull` there"),
        (b"PAR1" + b"\xff\xff\xff\xff" + b"PAR1", "its footer would have 4,294,967,295 bytes, of 12"),
        (b"PAR1" + b"\x00" * 50 + b"\x10\0\0\0PAR1", "is damaged: its footer has no schema"),
        (parquet([element(b"root", 1), *[element(b"a", 1)] * 20_000, element(b"x", kind=1)]), "more than 1,000"),
        (
            parquet([element(b"root", 1), *[element(b"a", 1)] * 200, element(b"x", kind=1)]),
            "nested more than 100 levels",
        ),
        (parquet([element(b"root", 2), element(b"x", kind=1)]), "its footer has a schema that lacks columns"),
        (parquet([element(b"root", 1), element(b"x", kind=1), element(b"y", kind=1)]), "a schema with two roots"),
        (parquet(COLUMN, [group(b"", TEXT, 1, 1, start=1 << 40)]), "has a column outside of the file"),
        (parquet(COLUMN, [{1: [{2: Long(4)}] * 2, 3: Long(1)}]), "a row group that lacks columns"),
        (parquet(COLUMN, [{1: [{1: b"/etc/passwd", 2: Long(4)}], 3: Long(1)}]), "has columns in another file"),
        (parquet(COLUMN, [{1: [{2: Long(4)}], 3: Long(-1)}]), "a row group of less than no rows"),
        (
            parquet(COLUMN, [group(BOMB, TEXT, 5, 5)], BOMB),
            "row group 1 has 100 bytes and needs more than 100 times that",
        ),
        (parquet(COLUMN, [group(b"\xff" * 30, TEXT, 5, 5)], b"\xff" * 30), "column 'a' .*; fetch it again"),
        (
            parquet(LIST, [group(page(50, 50, 1 << 30), NUMBER, 1 << 30, 1)], page(50, 50, 1 << 30)),
            "row group 1 has 50 bytes and needs more than 100 times that in memory",
        ),
        (
            parquet(COLUMN, [group(page(20, -5, 5), TEXT, 5, 5)], page(20, -5, 5)),
            "column 'a' has a page of a negative size",
        ),
    ],
)
def test_a_hostile_file_gives_one_line(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / "a.parquet").write_bytes(raw)
    with pytest.raises(UserError, match=message) as caught:
        read_all(PARQUET, tmp_path)
    assert len(caught.value.lines) == 1


def test_without_the_check_a_deep_schema_would_end_the_process(tmp_path: Path) -> None:
    """It is why the footer is read before pyarrow reads it: if this fails, pyarrow has become safe."""
    (tmp_path / "a.parquet").write_bytes(
        parquet([element(b"root", 1), *[element(b"a", 1)] * 50_000, element(b"x", kind=1)])
    )
    program = "import sys, pyarrow.parquet as pq; pq.ParquetFile(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.parquet")], capture_output=True, check=False
    )
    assert done.returncode < 0
    assert "more than 1,000" in refusal(PARQUET, tmp_path)


def test_a_bomb_of_strings_in_a_list_is_no_bomb(tmp_path: Path) -> None:
    """A list that names one megabyte a million times: the text is there once, and the row is refused."""
    numbers = pa.array([0] * 1_000_000, pa.int32())
    texts = pa.DictionaryArray.from_arrays(numbers, pa.array(["x" * 1_000_000]))
    rows = pa.ListArray.from_arrays(pa.array([0, 1_000_000], pa.int32()), texts)
    pq.write_table(pa.table({"a": rows}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 2 << 20
    program = (
        "import sys; from pathlib import Path; from lmmpress.data.containers.parquet import PARQUET\n"
        "try: list(PARQUET.records(Path(sys.argv[1]), ['a.parquet']))\n"
        "except Exception as error: print(error)\n"
        "print(*(line for line in open('/proc/self/status', encoding='utf-8') if line.startswith('VmHWM')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=ROOT,
        check=True,
    )
    said, most = done.stdout.splitlines()[:2]
    assert "row 1 holds more than" in said
    assert int(most.split()[1]) < 1 << 20, "kilobytes"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_dictionary": False, "data_page_size": 100, "data_page_version": "2.0"},
        {"use_dictionary": ["text"], "compression": "none", "row_group_size": 30},
    ],
)
def test_footer_and_pages_are_what_pyarrow_says(tmp_path: Path, options: Mapping[str, Any]) -> None:
    inner = [{"x": number, "l": [b"a"] * (number % 3)} for number in range(100)]
    columns = {
        "text": ["t" * number for number in range(100)],
        "inner": inner,
        "m": pa.array([[]] * 100, pa.map_("string", "int8")),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", **options)
    file = pq.ParquetFile(tmp_path / "a.parquet")
    with (tmp_path / "a.parquet").open("rb") as raw:
        footer = read_footer(raw, "a.parquet")
        assert [(column.path, column.in_list) for column in footer.columns] == [
            (column.path, column.max_repetition_level > 0)
            for column in map(file.schema.column, range(len(file.schema)))
        ]
        for number, (rows, chunks) in enumerate(footer.groups):
            group = file.metadata.row_group(number)
            assert rows == group.num_rows
            for index, chunk in enumerate(chunks):
                theirs, found = group.column(index), sizes(raw, chunk)
                assert (chunk.values, chunk.size) == (theirs.num_values, theirs.total_compressed_size)
                assert found.values == theirs.num_values
                assert found.stored < theirs.total_compressed_size, "headers are no part of it"
                assert found.expanded < theirs.total_uncompressed_size


def written(**options: Any) -> bytes:
    rows = range(50)
    columns = {
        "image": pa.array([{"bytes": b"x" * number, "path": None} for number in rows]),
        "images": [[{"bytes": b"q", "path": "z"}]] * 50,
        "share": [1.5] * 50,
        "map": pa.array([[("a", 1)]] * 50, pa.map_(pa.string(), pa.int64())),
        "text": [f"t{number % 7}" for number in rows],
        "classes": pa.array(["a", "b"] * 25).dictionary_encode(),
        "texts": [["a", "bb"] * 3] * 50,
        "number": list(rows),
    }
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, **options)
    return file.getvalue()


FILES = [
    written(),
    written(data_page_version="2.0", compression="zstd"),
    written(use_dictionary=False, compression="none"),
    written(
        use_dictionary=False,
        column_encoding={"text": "DELTA_BYTE_ARRAY", "number": "DELTA_BINARY_PACKED"},
        row_group_size=20,
    ),
]


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    raw=st.sampled_from(FILES),
    flips=st.lists(st.tuples(st.booleans(), st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=5),
    kept=st.just(1.0) | st.floats(0, 1),
)
def test_damaged_files_give_one_line_or_records(
    tmp_path: Path, raw: bytes, flips: list[tuple[bool, float, int]], kept: float
) -> None:
    """Pages, or the footer, which stands at the end, have wrong bytes; or the file is cut off."""
    damaged = bytearray(raw)
    footer = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    for in_footer, share, byte in flips:
        low, high = (footer, len(raw)) if in_footer else (4, footer)
        damaged[low + int(share * (high - low))] = byte
    (tmp_path / "a.parquet").write_bytes(damaged[: int(kept * len(damaged))])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(fault_of(PARQUET, tmp_path)) <= 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + (300 << 10)
