"""Reads and writes the safetensors files of a checkpoint, tensor by tensor.

Tensors are read through a memory map and written one at a time, so a whole model is never in memory.
"""

import json
import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any

import torch

from lmmpress.axes.slices import Shape, Shapes
from lmmpress.errors import UserError
from lmmpress.files.allow_list import INDEX, WEIGHTS, Files, choose, weight_map
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
_LARGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors library
_MOST_DIMENSIONS = 64
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


class WeightFile:
    """One memory-mapped safetensors file: its tensors are views of the file, not copies.

    As strict as the safetensors library: the tensors must fill the file without gaps and overlaps. Raises UserError if
    they do not, or if the file is truncated.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(9)
            length = struct.unpack("<Q", start[:8])[0] if len(start) == 9 else _LARGEST_HEADER
            if length >= _LARGEST_HEADER or start[8:] != b"{":
                raise UserError(f"{path} is no safetensors file: it does not begin with a header of one")
            if length > size - 8:
                raise UserError(
                    f"{path} is cut short: it has {size} bytes and its header alone {length}; fetch it again"
                )
            header = parse_mapping(b"{" + file.read(length - 1), f"{path}: the header of this safetensors file", True)
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        metadata = header.pop("__metadata__", None) or {}
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise UserError(f"{path} is damaged: __metadata__ of its header is no mapping of strings")
        self._start, self._entries = 8 + length, header
        filled = 0
        for begin, end, name in sorted(self._ends(name, entry) for name, entry in header.items()):
            if begin != filled:
                where = "overlaps with another tensor" if begin < filled else "begins after a hole"
                raise UserError(f"{path} is damaged: {name} {where}")
            filled = end
        if filled > size - self._start:
            raise UserError(
                f"{path} is cut short: it has {size} bytes and should have {self._start + filled}; fetch it again"
            )
        if filled < size - self._start:
            raise UserError(f"{path} is damaged: {size - self._start - filled} bytes stand after its last tensor")

    def _ends(self, name: str, entry: Any) -> tuple[int, int, str]:
        """The first and last offset of a tensor in the bytes after the header, and its name."""
        try:
            (begin, end), dtype, shape = entry["data_offsets"], entry["dtype"], entry["shape"]
            numbers = [begin, end, *shape]
            valid = isinstance(shape, list) and len(shape) <= _MOST_DIMENSIONS and isinstance(dtype, str)
            valid = valid and all(type(number) is int and 0 <= number < 1 << 63 for number in numbers)
        except (KeyError, TypeError, ValueError):
            valid = False
        if not valid:
            raise UserError(f"{self.path} is damaged: its header does not say where {name} lies")
        if dtype not in _DTYPES:
            raise UserError(f"{self.path}: {name} is stored as {dtype}; write it as F32, F16 or BF16 first")
        if end - begin != prod(shape) * _DTYPES[dtype].itemsize:
            raise UserError(f"{self.path} is damaged: {name} has another size than its header says")
        return begin, end, name

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def shape(self, name: str) -> Shape:
        return tuple(self._entries[name]["shape"])

    def dtype(self, name: str) -> torch.dtype:
        return _DTYPES[self._entries[name]["dtype"]]

    def tensor(self, name: str) -> torch.Tensor:
        """The tensor as a view of the mapped file; the system is advised to read it ahead, not page by page."""
        shape, dtype = self.shape(name), self.dtype(name)
        if prod(shape) == 0:
            return torch.empty(shape, dtype=dtype)
        begin = self._start + self._entries[name]["data_offsets"][0]
        aligned = begin - begin % mmap.PAGESIZE
        if hasattr(mmap, "MADV_WILLNEED"):
            self._map.madvise(mmap.MADV_WILLNEED, aligned, begin - aligned + prod(shape) * dtype.itemsize)
        return torch.frombuffer(self._map, dtype=dtype, count=prod(shape), offset=begin).view(shape)


def weight_files(checkpoint: Path) -> list[Path]:
    """The safetensors files of a checkpoint directory: those that its index lists, or the only one.

    Raises UserError if there are none, if there are only pickles, or if index and shards disagree.
    """
    files = choose(checkpoint)
    if INDEX in files.taken:
        return _shards(checkpoint, files)
    if files.weights:
        return [checkpoint / WEIGHTS]
    if any(name.endswith(_PICKLES) for name in files.left):
        raise UserError(
            f"{checkpoint} holds pickled weights only, which lmmpress never opens; convert them with "
            "save_pretrained(..., safe_serialization=True) on a machine that trusts them"
        )
    raise UserError(f"{checkpoint} is no checkpoint: it has no safetensors weights")


def _shards(checkpoint: Path, files: Files) -> list[Path]:
    shard_of = weight_map(checkpoint / INDEX)
    if missing := sorted(set(shard_of.values()) - set(files.weights)):
        raise UserError(f"{checkpoint}: its index names shards that are not there: {', '.join(missing[:5])}")
    stored = {(name, shard) for shard in files.weights for name in WeightFile(checkpoint / shard)}
    if different := sorted({name for name, _ in stored ^ set(shard_of.items())}):
        raise UserError(f"{checkpoint}: its index and its shards do not agree about {', '.join(different[:5])}")
    return [checkpoint / name for name in files.weights]


def check_finite(checkpoint: Path) -> None:
    """Raise UserError if a weight of a checkpoint is not finite; reads every byte of the weights."""
    for file in map(WeightFile, weight_files(checkpoint)):
        for name in file:
            if file.dtype(name).is_floating_point and not is_finite(file.tensor(name)):
                raise UserError(
                    f"{file.path}: {name} holds NaN or infinity, so nothing can be computed with it; take a checkpoint "
                    "from before that happened"
                )


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether every number of a tensor is finite."""
    if tensor.numel() == 0:
        return True
    low, high = tensor.aminmax()  # NaN if any value is NaN; one pass, no copy
    return bool(low.isfinite() & high.isfinite())


def stored_shapes(checkpoint: Path) -> Shapes:
    """The shapes of all stored tensors, read from the files' headers."""
    files = [WeightFile(path) for path in weight_files(checkpoint)]
    return {name: file.shape(name) for file in files for name in file}


def write_weights(path: Path, entries: list[tuple[str, Shape, torch.dtype]], values: Iterable[torch.Tensor]) -> None:
    """Write a safetensors file from a stream of tensors in the order of `entries` (name, shape, dtype).

    The next tensor is computed while one is written, so two are in memory at a time. The file is not flushed to disk:
    call `sync` once for all files at the end.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape, dtype in entries:
        size = prod(shape) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for (name, shape, dtype), value in zip(entries, _one_ahead(values), strict=True):
            if tuple(value.shape) != tuple(shape) or value.dtype != dtype:
                raise ValueError(f"{name}: declared as {dtype} {shape}, but got {value.dtype} {tuple(value.shape)}")
            file.write(value.contiguous().view(-1).view(torch.uint8).numpy().data)


def sync(files: Iterable[Path]) -> None:
    """Flush these files to disk; returns when they are durable."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _one_ahead(values: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The same tensors; a thread computes the next one while the current one is used."""
    source = iter(values)
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(next, source, None)
        while (value := upcoming.result()) is not None:
            upcoming = pool.submit(next, source, None)
            yield value
