"""Tensors that do not fit into memory: they lie in files, and some of their rows are read or written at a time.

Files are read by position, not mapped, so what was read once is not part of this process's memory.
"""

import json
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I32": torch.int32}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_COPIED_AT_ONCE = 16 << 20  # bytes

Shape = tuple[int, ...]


class TensorRows:
    """A tensor [rows, ...] that begins at `start` of an open file. It stays whole when the file is removed."""

    def __init__(self, file: BinaryIO, start: int, shape: Shape, dtype: torch.dtype) -> None:
        self._file, self._start = file, start
        self.shape, self.dtype = shape, dtype
        self.row_size = prod(shape[1:]) * dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Sequence[int] | NDArray[np.int64]) -> torch.Tensor:
        """The rows with these numbers, [numbers, ...]. Consecutive ones are read at once."""
        numbers = np.asarray(rows, dtype=np.int64)
        found = torch.empty((len(numbers), *self.shape[1:]), dtype=self.dtype)
        for at, first, count in _runs(numbers):
            found[at : at + count] = self.part(first, first + count)
        return found

    def part(self, begin: int, end: int) -> torch.Tensor:
        """The rows from `begin` to `end`, [end - begin, ...]. EOFError if the file is too short."""
        raw = bytearray((end - begin) * self.row_size)
        done = 0
        while done < len(raw):
            where = self._start + begin * self.row_size + done
            got = os.preadv(self._file.fileno(), [memoryview(raw)[done:]], where)
            if not got:
                raise EOFError(f"{self._file.name} is cut short")
            done += got
        flat = torch.frombuffer(raw, dtype=self.dtype) if raw else torch.empty(0, dtype=self.dtype)
        return flat.view(end - begin, *self.shape[1:])

    def write(self, rows: Sequence[int] | NDArray[np.int64], values: torch.Tensor) -> None:
        """Write the rows with these numbers; `values` [numbers, ...] are on the CPU."""
        numbers = np.asarray(rows, dtype=np.int64)
        raw = _bytes(values.to(self.dtype))
        for at, first, count in _runs(numbers):
            part = raw[at * self.row_size : (at + count) * self.row_size]
            where = self._start + first * self.row_size
            while part:
                done = os.pwrite(self._file.fileno(), part, where)
                part, where = part[done:], where + done


def temporary_rows(shape: Shape, dtype: torch.dtype, folder: Path | None = None) -> TensorRows:
    """A tensor in a file of its own, which exists as long as the tensor; by default where temporary files are."""
    return TensorRows(tempfile.TemporaryFile(dir=folder), 0, shape, dtype)


def save_rows(path: Path, tensors: Mapping[str, TensorRows | torch.Tensor]) -> None:
    """Write a safetensors file, a part of each tensor at a time."""
    header, offset = dict[str, Any](), 0
    for name, tensor in tensors.items():
        end = offset + prod(tensor.shape) * tensor.dtype.itemsize
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            for part in _parts(tensor):
                file.write(_bytes(part))


def open_rows(path: Path) -> dict[str, TensorRows]:
    """The tensors of a file that `save_rows` or the safetensors library wrote. ValueError if it is none."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        if not 0 < length <= size - 8:
            raise ValueError("it has no header")
        header = json.loads(file.read(length))
    found = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        shape, dtype, (begin, end) = tuple(entry["shape"]), _DTYPES[entry["dtype"]], entry["data_offsets"]
        if end - begin != prod(shape) * dtype.itemsize or 8 + length + end > size:
            raise ValueError(f"{name} is not whole")
        found[name] = TensorRows(path.open("rb"), 8 + length + begin, shape, dtype)
    return found


def _bytes(tensor: torch.Tensor) -> memoryview:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().data


def _parts(tensor: TensorRows | torch.Tensor) -> Iterator[torch.Tensor]:
    if isinstance(tensor, torch.Tensor):
        yield tensor
        return
    count = max(1, _COPIED_AT_ONCE // max(1, tensor.row_size))
    for begin in range(0, len(tensor), count):
        yield tensor.part(begin, min(begin + count, len(tensor)))


def _runs(numbers: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """The runs of consecutive numbers: where each begins, its first number, how many it has."""
    begins = np.flatnonzero(np.diff(numbers, prepend=-2) != 1)
    for begin, end in zip(begins.tolist(), [*begins[1:].tolist(), len(numbers)], strict=False):
        yield begin, int(numbers[begin]), end - begin
