"""The header of a safetensors file: which tensors it has, and where they lie in it."""

import json
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from lmmpress.axes.slices import Shape
from lmmpress.errors import UserError
from lmmpress.files.strict_json import parse_mapping

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_LARGEST = 100_000_000  # bytes; the limit of the safetensors library
_MOST_DIMENSIONS = 64


@dataclass(frozen=True)
class Place:
    """A tensor that begins at `start` of a file."""

    start: int
    shape: Shape
    dtype: torch.dtype

    @property
    def end(self) -> int:
        return self.start + prod(self.shape) * self.dtype.itemsize


def read_header(path: Path) -> dict[str, Place]:
    """The tensors of a safetensors file by their names.

    As strict as the safetensors library: the tensors must fill the file without gaps and overlaps. Raises UserError if
    they do not, or if the file is truncated.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(9)
        length = struct.unpack("<Q", start[:8])[0] if len(start) == 9 else _LARGEST
        if length >= _LARGEST or start[8:] != b"{":
            raise UserError(f"{path} is no safetensors file: it does not begin with a header of one")
        if length > size - 8:
            raise UserError(f"{path} is cut short: it has {size} bytes and its header alone {length}; fetch it again")
        header = parse_mapping(b"{" + file.read(length - 1), f"{path}: the header of this safetensors file", True)
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise UserError(f"{path} is damaged: __metadata__ of its header is no mapping of strings")
    found = {name: _place(path, name, entry, 8 + length) for name, entry in header.items()}
    filled = 8 + length
    for name, place in sorted(found.items(), key=lambda one: (one[1].start, one[1].end, one[0])):
        if place.start != filled:
            where = "overlaps with another tensor" if place.start < filled else "begins after a hole"
            raise UserError(f"{path} is damaged: {name} {where}")
        filled = place.end
    if filled > size:
        raise UserError(f"{path} is cut short: it has {size} bytes and should have {filled}; fetch it again")
    if filled < size:
        raise UserError(f"{path} is damaged: {size - filled} bytes stand after its last tensor")
    return found


def header_of(
    tensors: Iterable[tuple[str, Shape, torch.dtype]], metadata: Mapping[str, str] | None = None, length: int = 0
) -> bytes:
    """The bytes in front of tensors, by name, shape and dtype, that follow each other in a safetensors file; at least
    `length` bytes, a multiple of 8."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, shape, dtype in tensors:
        size = prod(shape) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * max(-len(text) % 8, length - 8 - len(text))
    return struct.pack("<Q", len(text)) + text


def _place(path: Path, name: str, entry: Any, start: int) -> Place:
    """Where a tensor lies in a file whose tensors begin at `start`."""
    try:
        (begin, end), dtype, shape = entry["data_offsets"], entry["dtype"], entry["shape"]
        numbers = [begin, end, *shape]
        valid = isinstance(shape, list) and len(shape) <= _MOST_DIMENSIONS and isinstance(dtype, str)
        valid = valid and all(type(number) is int and 0 <= number < 1 << 63 for number in numbers)
    except (KeyError, TypeError, ValueError):
        valid = False
    if not valid:
        raise UserError(f"{path} is damaged: its header does not say where {name} lies")
    if dtype not in _DTYPES:
        raise UserError(f"{path}: {name} is stored as {dtype}; write it as F32, F16 or BF16 first")
    place = Place(start + begin, tuple(shape), _DTYPES[dtype])
    if start + end != place.end:
        raise UserError(f"{path} is damaged: {name} has another size than its header says")
    return place
