"""Reads files in Arrow's stream format, batch by batch, mapped into memory.

Needs pyarrow. A batch of pictures is often hundreds of megabytes: mapped, only what is looked at is read, and pictures
are named by their places in the file. A file that becomes shorter while it is read ends the process.
"""

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from lmmpress.data.containers.arrow_checks import check_types, check_values, faults_told
from lmmpress.data.containers.arrow_values import Origin, features_of, records_of
from lmmpress.data.containers.file_names import check_inside
from lmmpress.errors import UserError
from lmmpress.files.bounded import LFS_POINTER

_FORM = "an Arrow stream"
_FILE_MAGIC = b"ARROW1\0\0"  # in front of a stream in Arrow's file format
_END = b"\xff\xff\xff\xff\0\0\0\0"
_AT_ONCE = 64  # rows that become Python's values together

# numbers of fields in Arrow's format/Message.fbs
_HEADER, _DICTIONARY_DATA, _COMPRESSION = 2, 1, 3


@dataclass(frozen=True)
class Mapping:
    """A file of Arrow's stream format that is mapped into memory; `start` is where the stream begins."""

    folder: Path
    name: str
    map: mmap.mmap
    buffer: pa.Buffer
    start: int

    @property
    def place(self) -> str:
        return str(self.folder / self.name)

    def stream(self) -> pa.BufferReader:
        """A reader of the stream that copies nothing."""
        return pa.BufferReader(self.buffer.slice(self.start))

    def forget(self) -> None:
        """Give the pages that were read back: they would count as the process's own."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.map.madvise(mmap.MADV_DONTNEED)


def open_mapped(folder: Path, name: str) -> Mapping:
    """Map a file of Arrow's stream format, whose messages are all there.

    Raises UserError for a file that is missing, outside of the folder, cut off, damaged or compressed.
    """
    check_inside(folder, name)
    place = str(folder / name)
    with (folder / name).open("rb") as file, faults_told(place, _FORM):
        start = file.read(len(LFS_POINTER))
        if not start:
            raise UserError(f"{place} is empty; fetch it again")
        if start == LFS_POINTER:
            raise UserError(f"{place} is a git-lfs pointer and not the file itself; run `git lfs pull` there")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        found = Mapping(folder, name, mapped, pa.py_buffer(mapped), 8 if start.startswith(_FILE_MAGIC) else 0)
        _check_messages(found)
    return found


def batches(mapping: Mapping) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The batches of a mapped file, whose values are checked, each with the number of its first row, from 1."""
    first = 1
    with faults_told(mapping.place, _FORM):
        reader = pa.ipc.open_stream(mapping.stream())
        check_types(reader.schema, mapping.place, overlapping=False)
        for batch in reader:
            check_values(batch, mapping.place, first)
            yield first, batch
            first += batch.num_rows


def records_in(mapping: Mapping, batch: pa.RecordBatch, first: int) -> Iterator[dict[str, object]]:
    """The values of each row of a batch of a mapped file, whose first row has the number `first` in it."""
    features = features_of(batch.schema)
    origin = Origin(mapping.folder, mapping.name, mapping.buffer.address, mapping.buffer.size)
    with faults_told(mapping.place, _FORM):
        for begin in range(0, batch.num_rows, _AT_ONCE):
            yield from records_of(batch.slice(begin, _AT_ONCE), features, origin, first + begin)


def _check_messages(mapping: Mapping) -> None:
    """Raise UserError unless the stream ends with its mark and no batch is compressed: such a batch would be expanded
    to whatever size it says. `datasets` compresses none."""
    stream = mapping.stream()
    messages = pa.ipc.MessageReader.open_stream(stream)
    for message in messages:
        if message.type in ("record batch", "dictionary") and _is_compressed(message):
            raise UserError(f"{mapping.place} is compressed; write it without compression")
    end = mapping.start + stream.tell()
    if mapping.map[end - len(_END) : end] != _END:
        raise UserError(f"{mapping.place} is cut off: it has no end mark; fetch it again")


def _is_compressed(message: pa.ipc.Message) -> bool:
    """Whether the buffers of a batch are compressed, by its metadata, a flatbuffer that pyarrow has verified."""
    raw = message.metadata.to_pybytes()
    batch = _reference(raw, _reference(raw, 0), _HEADER)
    if message.type == "dictionary":
        batch = _reference(raw, batch, _DICTIONARY_DATA)
    return _field(raw, batch, _COMPRESSION) is not None


def _reference(raw: bytes, table: int, number: int | None = None) -> int:
    """The table that a field refers to; without a number the one that stands at `table`."""
    at = table if number is None else _field(raw, table, number)
    if at is None:
        raise ValueError("a message has no content")
    return at + int(struct.unpack_from("<I", raw, at)[0])


def _field(raw: bytes, table: int, number: int) -> int | None:
    """Where a table of a flatbuffer has a field; None if it has not."""
    fields = table - struct.unpack_from("<i", raw, table)[0]
    if 4 + 2 * number >= struct.unpack_from("<H", raw, fields)[0]:
        return None
    offset = struct.unpack_from("<H", raw, fields + 4 + 2 * number)[0]
    return table + offset if offset else None
