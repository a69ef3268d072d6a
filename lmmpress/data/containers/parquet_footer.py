"""Reads the footer of a Parquet file: which columns it has, and where each row group has their pages.

This is read before pyarrow reads it, because pyarrow ends the process where a footer is hostile: by a stack overflow at
a schema that is nested some thousand levels deep, by an abort where statistics do not fit their column.
https://parquet.apache.org/docs/file-format/
"""

from dataclasses import dataclass
from typing import BinaryIO

from lmmpress.data.containers.thrift import BINARY, INTEGERS, LIST, STRUCT, DamagedError, Reader
from lmmpress.errors import UserError
from lmmpress.files.bounded import LFS_POINTER

MAGIC = b"PAR1"
LONGEST_FOOTER = 64 << 20  # bytes
MOST_COLUMNS = 1000
BYTES, FIXED_BYTES = 6, 7
"""Types of columns: values of any size, and values of one size that the schema says."""

_DEEPEST = 100  # levels of nested columns
_REPEATED = 2
# the numbers of fields: of the footer, an element of its schema, a row group, a column chunk, and its metadata
_SCHEMA, _GROUPS = 2, 4
_TYPE, _LENGTH, _REPETITION, _NAME, _CHILDREN = 1, 2, 3, 4, 5
_CHUNKS, _ROWS = 1, 3
_FILE, _METADATA = 1, 3
_VALUES, _STORED, _DATA, _DICTIONARY = 5, 7, 9, 11


@dataclass(frozen=True)
class Column:
    """A column of the lowest level: its path, its type, the length of FIXED_BYTES, and whether it lies in a list."""

    path: str
    type: int
    length: int
    in_list: bool


@dataclass(frozen=True)
class Chunk:
    """Where a row group has the pages of a column, and how many values these hold."""

    start: int
    size: int
    values: int


@dataclass(frozen=True)
class Footer:
    """The columns of a file, and for each row group its number of rows and its chunks, one a column."""

    columns: tuple[Column, ...]
    groups: tuple[tuple[int, tuple[Chunk, ...]], ...]


def read_footer(file: BinaryIO, place: str) -> Footer:
    """The footer of a Parquet file. Raises UserError if there is none, or none that pyarrow can be given."""
    size = file.seek(0, 2)
    file.seek(0)
    start = file.read(len(LFS_POINTER))
    if start == LFS_POINTER:
        raise UserError(f"{place} is a git-lfs pointer and not the file itself; run `git lfs pull` there")
    file.seek(max(0, size - 8))
    end = file.read(8)
    if start[:4] == b"PARE" or end[4:] == b"PARE":
        raise UserError(f"{place} is encrypted; write it without encryption")
    if size < 12 or start[:4] != MAGIC or end[4:] != MAGIC:
        raise UserError(f"{place} is no Parquet file, or is cut off; fetch it again")
    length = int.from_bytes(end[:4], "little")
    if length > min(size - 12, LONGEST_FOOTER):
        raise UserError(
            f"{place} is damaged: its footer would have {length:,} bytes, of {size:,} and at most {LONGEST_FOOTER:,}; "
            "fetch it again"
        )
    file.seek(size - 8 - length)
    try:
        return _footer(Reader(file.read(length)), place, size)
    except DamagedError as error:
        raise UserError(f"{place} is damaged: its footer {error}; fetch it again") from None


def _footer(reader: Reader, place: str, size: int) -> Footer:
    columns: tuple[Column, ...] | None = None
    groups: list[tuple[int, tuple[Chunk, ...]]] = []
    for field, kind in reader.fields():
        if field == _SCHEMA and kind == LIST and columns is None:
            columns = _columns(reader, place)
        elif field == _GROUPS and kind == LIST and not groups:
            groups = [_group(reader, size) for _ in range(reader.count(STRUCT))]
        elif field in (_SCHEMA, _GROUPS):
            raise DamagedError("has a part twice")
        else:
            reader.skip(kind)
    if columns is None:
        raise DamagedError("has no schema")
    if any(len(chunks) != len(columns) for _, chunks in groups):
        raise DamagedError("has a row group that lacks columns")
    return Footer(columns, tuple(groups))


def _columns(reader: Reader, place: str) -> tuple[Column, ...]:
    """The columns of a schema. Its elements stand depth first, each with the number of its children."""
    count = reader.count(STRUCT)
    if count > MOST_COLUMNS:
        raise UserError(f"{place} has {count:,} columns, more than {MOST_COLUMNS:,}; leave some out")
    found = []
    above: list[_Group] = []
    for number in range(count):
        name, numbers = _element(reader)
        children = numbers.get(_CHILDREN, 0)
        if number and not above:
            raise DamagedError("has a schema with two roots")
        outer = above[-1] if above else _Group((), False, 1)
        outer.waiting -= 1
        path = (*outer.path, name) if number else ()
        in_list = outer.in_list or (bool(number) and numbers.get(_REPETITION) == _REPEATED)
        if children > 0 or not number:
            above.append(_Group(path, in_list, children))
        else:
            found.append(Column(".".join(path), numbers.get(_TYPE, -1), numbers.get(_LENGTH, 0), in_list))
        if len(above) > _DEEPEST:
            raise UserError(f"{place} has columns nested more than {_DEEPEST} levels deep; write them flat")
        while above and above[-1].waiting <= 0:
            above.pop()
    if above:
        raise DamagedError("has a schema that lacks columns")
    return tuple(found)


@dataclass
class _Group:
    """A column that holds others: its path, whether it lies in a list, and how many are still to come."""

    path: tuple[str, ...]
    in_list: bool
    waiting: int


def _element(reader: Reader) -> tuple[str, dict[int, int]]:
    """The name and the numbers of an element of the schema."""
    name, numbers = "", {}
    for field, kind in reader.fields():
        if field == _NAME and kind == BINARY:
            name = reader.text()
        elif kind in INTEGERS:
            numbers[field] = reader.integer()
        else:
            reader.skip(kind)
    return name, numbers


def _group(reader: Reader, size: int) -> tuple[int, tuple[Chunk, ...]]:
    rows = 0
    chunks: tuple[Chunk, ...] = ()
    for field, kind in reader.fields():
        if field == _CHUNKS and kind == LIST and not chunks:
            chunks = tuple(_chunk(reader, size) for _ in range(reader.count(STRUCT)))
        elif field == _ROWS and kind in INTEGERS:
            rows = reader.integer()
        else:
            reader.skip(kind)
    if rows < 0:
        raise DamagedError("has a row group of less than no rows")
    return rows, chunks


def _chunk(reader: Reader, size: int) -> Chunk:
    numbers: dict[int, int] = {}
    for field, kind in reader.fields():
        if field == _METADATA and kind == STRUCT:
            numbers = reader.integers()
        elif field == _FILE:
            raise DamagedError("has columns in another file")
        else:
            reader.skip(kind)
    start, stored, values = numbers.get(_DATA, 0), numbers.get(_STORED, 0), numbers.get(_VALUES, 0)
    if 0 < numbers.get(_DICTIONARY, 0) < start:
        start = numbers[_DICTIONARY]
    if values and (start < len(MAGIC) or min(stored, values) < 0 or start + stored > size):
        raise DamagedError("has a column outside of the file")
    return Chunk(start, stored, values)
