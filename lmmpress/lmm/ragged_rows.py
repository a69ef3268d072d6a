"""Rows of different lengths in files, such as the visual features of images that have different numbers of tokens.

A file has the parts of all rows one after the other, [parts, width], and behind them `offsets` [rows + 1]: where the
parts of each row begin, and where those of the last one end. Rows of one length need no offsets: they are a tensor
[rows, parts, width].
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lmmpress.axes.slices import Shape
from lmmpress.lmm.tensor_header import header_of
from lmmpress.lmm.tensor_rows import TensorRows, naming, new_rows, open_rows, temporary_rows

_OFFSETS = "offsets"
_HEAD = 1024
"""The bytes that a file begins with. Its header is written at last, when the number of parts is known."""


class RaggedRows:
    """Rows of different lengths: `parts` [parts, width] of all rows, and the `offsets` [rows + 1] of each row's."""

    def __init__(self, parts: TensorRows, offsets: NDArray[np.int64]) -> None:
        self.parts, self.offsets = parts, offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, rows: Sequence[int] | NDArray[np.int64]) -> list[torch.Tensor]:
        """The rows with these numbers, each [its parts, width]. Those of consecutive rows are read at once."""
        numbers = np.asarray(rows, dtype=np.int64)
        begins, lengths = self.offsets[numbers], np.diff(self.offsets)[numbers]
        places = [np.arange(begin, begin + length) for begin, length in zip(begins, lengths, strict=True)]
        found = self.parts[np.concatenate([np.zeros(0, np.int64), *places])]
        return list(found.split(lengths.tolist()))

    def keep(self, size: int) -> int:
        """Let so many bytes of the parts stay in the system's memory; returns how many these are."""
        return self.parts.keep(size)


@dataclass(frozen=True)
class NewFile:
    """Where rows are written while they are computed: a new safetensors file at `path`, as the tensor `name`; without
    one a temporary file. Its dtype is `dtype`, or else theirs. `room` is told how many bytes the file will have before
    these are written, and raises where there is no room for them."""

    path: Path | None = None
    name: str = ""
    dtype: torch.dtype | None = None
    room: Callable[[int], None] = field(default=lambda _: None)

    def rows(self, shape: Shape, dtype: torch.dtype) -> TensorRows:
        """A tensor whose rows are still to be written, in any order."""
        dtype = self.dtype or dtype
        self.room(prod(shape) * dtype.itemsize)
        return temporary_rows(shape, dtype) if self.path is None else new_rows(self.path, self.name, shape, dtype)

    def ragged(self, width: int, dtype: torch.dtype) -> "NewRagged":
        """Rows of different lengths, which are still to be written, in their order."""
        return NewRagged(self, width, self.dtype or dtype)


class NewRagged:
    """Rows of different lengths that are written one after the other into a file."""

    def __init__(self, new: NewFile, width: int, dtype: torch.dtype) -> None:
        with naming(new.path or tempfile.gettempdir()):
            self._file = tempfile.TemporaryFile() if new.path is None else new.path.open("w+b")  # noqa: SIM115
        self._new, self._offsets = new, [0]
        self._width, self._dtype = width, dtype

    def write(self, rows: Sequence[torch.Tensor]) -> None:
        """Write the next rows, each [its parts, width], which are on the CPU."""
        begin = self._offsets[-1]
        for row in rows:
            self._offsets.append(self._offsets[-1] + len(row))
        parts = self._parts()
        self._new.room(len(parts) * parts.row_size)
        parts.write(range(begin, len(parts)), torch.cat(list(rows)))

    def done(self) -> RaggedRows:
        """All rows, when the last one is written."""
        parts, offsets = self._parts(), torch.tensor(self._offsets)
        tensors = [(self._new.name, parts.shape, parts.dtype), (_OFFSETS, tuple(offsets.shape), offsets.dtype)]
        with naming(self._file.name):
            os.pwrite(self._file.fileno(), header_of(tensors, length=_HEAD), 0)
        TensorRows(self._file, _HEAD + len(parts) * parts.row_size, tuple(offsets.shape), offsets.dtype).write(
            range(len(offsets)), offsets
        )
        return RaggedRows(parts, offsets.numpy())

    def _parts(self) -> TensorRows:
        return TensorRows(self._file, _HEAD, (self._offsets[-1], self._width), self._dtype)


def open_either(path: Path, name: str) -> TensorRows | RaggedRows | None:
    """The tensor of that name in a safetensors file, whether its rows are of one length or not; None if the file is
    empty. ValueError for a file with something else."""
    found = open_rows(path)
    if not found:
        return None
    if name not in found or found.keys() - {name, _OFFSETS}:
        raise ValueError(f"not {name}, but {', '.join(sorted(found))}")
    rows = found[name]
    if _OFFSETS not in found:
        return rows
    offsets = found[_OFFSETS].part(0, len(found[_OFFSETS])).numpy()
    if offsets.ndim != 1 or offsets.dtype != np.int64 or not len(offsets) or len(rows.shape) != 2:
        raise ValueError(f"{name} with offsets of another form")
    if offsets[0] or offsets[-1] != len(rows) or (np.diff(offsets) < 0).any():
        raise ValueError(f"{name} of {len(rows)} parts with offsets of others")
    return RaggedRows(rows, offsets)
