"""The rows of a Dataset that `datasets` saved, in its order. Needs pyarrow."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from lmmpress.data.containers.arrow_stream import Mapping, batches, open_mapped, records_in
from lmmpress.data.containers.container import Record
from lmmpress.errors import UserError


def rows(folder: Path, names: Sequence[str], split: str | None) -> Iterator[Record]:
    """The rows of these files as they stand, batch by batch."""
    for name in names:
        mapping = open_mapped(folder, name)
        for first, batch in batches(mapping):
            yield from _records(mapping, batch, first, split)
            mapping.forget()


def chosen_rows(folder: Path, names: Sequence[str], indices: Sequence[str], split: str | None) -> Iterator[Record]:
    """The rows whose numbers the files of `indices` list, in that order: a Dataset that was selected from or shuffled
    before an old release of `datasets` saved it.

    What is kept for each batch is where it lies in the mapped file. Raises UserError for a number beyond the rows.
    """
    found: list[tuple[Mapping, int, pa.RecordBatch]] = []
    starts, count = [], 0
    for name in names:
        mapping = open_mapped(folder, name)
        for first, batch in batches(mapping):
            found.append((mapping, first, batch))
            starts.append(count)
            count += batch.num_rows
        mapping.forget()
    for name in indices:
        listed = open_mapped(folder, name)
        for first, batch in batches(listed):
            for place, number in enumerate(_numbers(listed, batch), first):
                if number is None or number >= count:
                    raise UserError(f"{listed.place}, row {place}: there is no row {number} among {count:,} rows")
                at = bisect_right(starts, number) - 1
                mapping, start, rows_there = found[at]
                offset = number - starts[at]
                yield from _records(mapping, rows_there.slice(offset, 1), start + offset, split)
            for mapping in {id(one): one for one, _, _ in found}.values():
                mapping.forget()


def _numbers(mapping: Mapping, batch: pa.RecordBatch) -> list[int | None]:
    if batch.num_columns != 1 or not pa.types.is_unsigned_integer(batch.column(0).type):
        raise UserError(f"{mapping.place} is no list of row numbers; write the folder again by save_to_disk")
    return list(batch.column(0).to_pylist())


def _records(mapping: Mapping, batch: pa.RecordBatch, first: int, split: str | None) -> Iterator[Record]:
    for row, values in enumerate(records_in(mapping, batch, first), first):
        yield Record(values, f"{mapping.name}, row {row}", row, split)
