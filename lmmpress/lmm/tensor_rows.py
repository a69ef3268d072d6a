"""Tensors that do not fit into memory: they lie in files, and some of their rows are read or written at a time.

Files are read by position, not mapped, so what was read once is not part of this process's memory.
"""

import errno
import mmap
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from lmmpress.axes.slices import Shape
from lmmpress.errors import UserError
from lmmpress.lmm.tensor_header import header_of, read_header

_COPIED_AT_ONCE = 16 << 20  # bytes


class TensorRows:
    """A tensor [rows, ...] that begins at `start` of an open file. It stays whole when the file is removed."""

    def __init__(self, file: BinaryIO, start: int, shape: Shape, dtype: torch.dtype) -> None:
        self._file, self._start = file, start
        self.shape, self.dtype = shape, dtype
        self.row_size = prod(shape[1:]) * dtype.itemsize
        self._kept: int | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Sequence[int] | NDArray[np.int64]) -> torch.Tensor:
        """The rows with these numbers, [numbers, ...]. Consecutive ones are read at once."""
        numbers = np.asarray(rows, dtype=np.int64)
        found = torch.empty((len(numbers), *self.shape[1:]), dtype=self.dtype)
        raw = _bytes(found)
        for at, first, count in _runs(numbers):
            self._read(raw[at * self.row_size : (at + count) * self.row_size], first)
        return found

    def part(self, begin: int, end: int) -> torch.Tensor:
        """The rows from `begin` to `end`, [end - begin, ...]. OSError if the file is too short."""
        found = torch.empty((end - begin, *self.shape[1:]), dtype=self.dtype)
        self._read(_bytes(found), begin)
        return found

    def _read(self, raw: memoryview, first: int) -> None:
        """Fill memory with rows from the first on."""
        done = 0
        while done < len(raw):
            got = os.preadv(self._file.fileno(), [raw[done:]], self._start + first * self.row_size + done)
            if not got:
                with naming(self._file.name):
                    raise OSError(errno.EIO, "it was cut short while it was read")
            done += got
        self._let_go(first * self.row_size, first * self.row_size + len(raw))

    def keep(self, size: int) -> int:
        """Let so many bytes of the tensor stay in the system's memory after they were read, the first ones: an order
        that is shuffled anew gains nothing from the last ones. Returns how many these are."""
        whole = len(self) * self.row_size
        self._kept = min(size, whole)
        self._let_go(0, whole)
        return self._kept

    def _let_go(self, begin: int, end: int) -> None:
        """Tell the system that it need not keep these bytes, but for the part that may stay. Whole pages are meant: of
        one that holds other bytes too nothing is lost but time."""
        if self._kept is None or not hasattr(os, "posix_fadvise"):
            return
        begin = max(begin, self._kept)
        if begin < end:
            page = (self._start + begin) // mmap.PAGESIZE * mmap.PAGESIZE
            size = self._start + end + mmap.PAGESIZE - page
            os.posix_fadvise(self._file.fileno(), page, size, os.POSIX_FADV_DONTNEED)

    def write(self, rows: Sequence[int] | NDArray[np.int64], values: torch.Tensor) -> None:
        """Write the rows with these numbers; `values` [numbers, ...] are on the CPU."""
        numbers = np.asarray(rows, dtype=np.int64)
        assert values.shape == (len(numbers), *self.shape[1:])
        raw = _bytes(values.to(self.dtype))
        for at, first, count in _runs(numbers):
            part = raw[at * self.row_size : (at + count) * self.row_size]
            where = self._start + first * self.row_size
            while part:
                with naming(self._file.name):
                    done = os.pwrite(self._file.fileno(), part, where)
                part, where = part[done:], where + done


@contextmanager
def naming(file: Path | str | int) -> Iterator[None]:
    """Name a file in an OSError that names none, as that of a full disk; of a temporary file, which has only a number,
    the folder."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = tempfile.gettempdir() if isinstance(file, int) else str(file)
        raise


def temporary_rows(shape: Shape, dtype: torch.dtype) -> TensorRows:
    """A tensor in a temporary file of its own, which exists as long as the tensor."""
    return TensorRows(tempfile.TemporaryFile(), 0, shape, dtype)


def new_rows(path: Path, name: str, shape: Shape, dtype: torch.dtype) -> TensorRows:
    """The only tensor of a new safetensors file, whose rows are still to be written."""
    head = header_of([(name, shape, dtype)])
    with naming(path):
        path.write_bytes(head)
        file = path.open("r+b")
        file.truncate(len(head) + prod(shape) * dtype.itemsize)
    return TensorRows(file, len(head), shape, dtype)


def save_rows(path: Path, tensors: Mapping[str, TensorRows | torch.Tensor]) -> None:
    """Write a safetensors file, a part of each tensor at a time."""
    with naming(path), path.open("wb") as file:
        file.write(header_of((name, tensor.shape, tensor.dtype) for name, tensor in tensors.items()))
        for tensor in tensors.values():
            for part in _parts(tensor):
                file.write(_bytes(part))


def open_rows(path: Path) -> dict[str, TensorRows]:
    """The tensors of a safetensors file. ValueError for a damaged one."""
    try:
        places = read_header(path)
    except UserError as error:
        raise ValueError(str(error)) from None
    return {name: TensorRows(path.open("rb"), one.start, one.shape, one.dtype) for name, one in places.items()}


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
