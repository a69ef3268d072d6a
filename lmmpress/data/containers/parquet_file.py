"""Reads the rows of one Parquet file with little memory, however large its row groups are, and whatever it says.

Needs pyarrow. The file is read page by page and not mapped into memory: mapped pages count as the process's own, and a
file that becomes shorter would end the process.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from lmmpress.data.containers.arrow_checks import check_types, check_values, faults_told
from lmmpress.data.containers.arrow_values import Origin, features_of, records_of
from lmmpress.data.containers.container import Record
from lmmpress.data.containers.file_names import check_inside
from lmmpress.data.containers.parquet_footer import BYTES, FIXED_BYTES, Footer, read_footer
from lmmpress.data.containers.parquet_pages import sizes
from lmmpress.data.containers.thrift import DamagedError
from lmmpress.errors import UserError

_BATCH_ROWS = 64
_BATCH_BYTES = 64 << 20  # what a batch's values may take, where a single row does not take more
_READ_AT_ONCE = 1 << 20  # bytes of a column
_THRIFT_TEXT = 64 << 20  # bytes
_MOST_HELD = 256 << 20  # bytes of the pages of a row group that are in memory at once
_MOST_EXPANSION = 100  # times that pages beyond that may expand
_VALUE = 8  # bytes of a value in a list, with its levels


def rows(folder: Path, name: str, split: str | None) -> Iterator[Record]:
    """The rows of a Parquet file as `read_parquet` describes them."""
    place, origin = str(folder / name), Origin(folder, name)
    check_inside(folder, name)
    with (folder / name).open("rb") as raw, faults_told(place, "Parquet"):
        footer = read_footer(raw, place)
        opened = _open(place)
        metadata, schema = opened.metadata, opened.schema_arrow
        check_types(schema, place)
        features = features_of(schema)
        row = 0
        for group, (count, _) in enumerate(footer.groups):
            if not count:
                continue
            reading = _plan(footer, group, raw, place)
            by_dictionary = _open(place, metadata, reading.as_dictionary) if reading.as_dictionary else opened
            expected = row + count
            for batch in by_dictionary.iter_batches(reading.rows, row_groups=[group], use_threads=False):
                check_values(batch, place, row + 1)
                for values in records_of(batch, features, origin, row + 1):
                    row += 1
                    yield Record(values, f"{name}, row {row}", row, split)
            if row != expected:
                raise UserError(
                    f"{place} is damaged: row group {group + 1} has other rows than it says; fetch it again"
                )


@dataclass(frozen=True)
class _Reading:
    """How a row group is read: so many rows at a time, and these columns as dictionaries."""

    rows: int
    as_dictionary: tuple[str, ...]


def _open(place: str, metadata: pq.FileMetaData | None = None, as_dictionary: tuple[str, ...] = ()) -> pq.ParquetFile:
    return pq.ParquetFile(
        pa.OSFile(place),
        metadata=metadata,
        read_dictionary=list(as_dictionary),
        buffer_size=_READ_AT_ONCE,
        pre_buffer=False,
        page_checksum_verification=True,
        thrift_string_size_limit=_THRIFT_TEXT,
        arrow_extensions_enabled=False,
    )


def _plan(footer: Footer, number: int, raw: BinaryIO, place: str) -> _Reading:
    """How to read a row group with a bounded memory. UserError if its pages expand as no honest writer's do."""
    count, chunks = footer.groups[number]
    stored = expanded = held = repeated = 0
    as_dictionary = []
    for column, chunk in zip(footer.columns, chunks, strict=True):
        try:
            size = sizes(raw, chunk)
        except DamagedError as error:
            raise UserError(f"{place} is damaged: column {column.path!r} {error}; fetch it again") from None
        stored += size.stored
        expanded += size.expanded
        held += size.largest + size.dictionary
        if column.in_list:  # all values of a chunk may belong to one row
            held += size.values * max(_VALUE, column.length if column.type == FIXED_BYTES else 0)
        if column.in_list and column.type == BYTES and size.dictionary * size.values > _BATCH_BYTES:
            as_dictionary.append(column.path)
        elif column.type in (BYTES, FIXED_BYTES):
            repeated += size.dictionary + size.by_prefix
    if held > _MOST_HELD and held > _MOST_EXPANSION * stored:
        raise UserError(
            f"{place}: row group {number + 1} has {stored:,} bytes and needs more than {_MOST_EXPANSION} times that in "
            "memory; write it again with smaller row groups"
        )
    each = max(1, repeated + expanded // max(1, count))
    return _Reading(max(1, min(_BATCH_ROWS, _BATCH_BYTES // each)), tuple(as_dictionary))
