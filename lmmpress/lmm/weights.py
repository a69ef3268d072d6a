"""The weights of a checkpoint on disk: safetensors read by tensor and written as a stream, nothing else.

Tensors are read through a memory map and written one at a time, so a model is never in memory as a whole.
"""

import json
import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path

import torch

from lmmpress.errors import UserError
from lmmpress.lmm.anatomy import Shape, Shapes

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
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
_LARGEST_HEADER = 100_000_000


class WeightFile:
    """One safetensors file, mapped: its tensors are views of the file until something copies them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = struct.unpack("<Q", file.read(8))[0] if size >= 8 else _LARGEST_HEADER
            if length >= min(_LARGEST_HEADER, max(size - 8, 0)):
                raise UserError(f"{path} is no safetensors file: its header says {length} bytes of {size}")
            try:
                header = json.loads(file.read(length))
            except ValueError:
                raise UserError(f"{path} is no safetensors file: its header is not JSON") from None
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        if not isinstance(header, dict):
            raise UserError(f"{path} is no safetensors file: its header lists no tensors")
        header.pop("__metadata__", None)
        self._start, self._entries = 8 + length, header
        for name, entry in header.items():
            try:
                (begin, end), dtype, shape = entry["data_offsets"], entry["dtype"], entry["shape"]
                sound = all(isinstance(number, int) and number >= 0 for number in (begin, end, *shape))
            except (KeyError, TypeError, ValueError):
                sound = False
            if not sound:
                raise UserError(f"{path} is damaged: its header does not say where {name} lies")
            if dtype not in _DTYPES:
                raise UserError(f"{path}: {name} is stored as {dtype}; write it as F32, F16 or BF16 first")
            wanted = prod(shape) * _DTYPES[dtype].itemsize
            if not begin <= end <= size - self._start or end - begin != wanted:
                raise UserError(f"{path} is damaged: {name} lies outside of the file or has another size than it says")

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def shape(self, name: str) -> Shape:
        return tuple(self._entries[name]["shape"])

    def dtype(self, name: str) -> torch.dtype:
        return _DTYPES[self._entries[name]["dtype"]]

    def tensor(self, name: str) -> torch.Tensor:
        """The tensor as a view of the mapped file, which the disk is asked to read at once and not page by page."""
        shape, dtype = self.shape(name), self.dtype(name)
        if prod(shape) == 0:
            return torch.empty(shape, dtype=dtype)
        begin = self._start + self._entries[name]["data_offsets"][0]
        aligned = begin - begin % mmap.PAGESIZE
        if hasattr(mmap, "MADV_WILLNEED"):
            self._map.madvise(mmap.MADV_WILLNEED, aligned, begin - aligned + prod(shape) * dtype.itemsize)
        return torch.frombuffer(self._map, dtype=dtype, count=prod(shape), offset=begin).view(shape)


def weight_files(checkpoint: Path) -> list[Path]:
    """The safetensors files of a checkpoint directory, as its index lists them.

    Raises UserError where there are none, where only pickles are, and where index and shards do not agree.
    """
    index = checkpoint / INDEX
    if index.is_file():
        return _shards(checkpoint, index)
    if (checkpoint / WEIGHTS).is_file():
        return [checkpoint / WEIGHTS]
    if list(checkpoint.glob("*.bin")) or list(checkpoint.glob("*.pt")):
        raise UserError(
            f"{checkpoint} holds pickled weights only, which lmmpress never opens; convert them with "
            "save_pretrained(..., safe_serialization=True) on a machine that trusts them"
        )
    raise UserError(f"{checkpoint} is no checkpoint: it has no safetensors weights")


def _shards(checkpoint: Path, index: Path) -> list[Path]:
    try:
        weight_map: dict[str, str] = json.loads(index.read_text("utf-8"))["weight_map"]
        shards = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{index} is no index of shards: it has no weight_map") from None
    missing = [name for name in shards if "/" in name or not (checkpoint / name).is_file()]
    if missing:
        raise UserError(f"{checkpoint}: its index names shards that are not there: {', '.join(missing)}")
    unlisted = sorted(path.name for path in checkpoint.glob("model-*.safetensors") if path.name not in shards)
    if unlisted:
        raise UserError(f"{checkpoint} holds shards that its index does not name: {', '.join(unlisted)}")
    held = {(name, shard) for shard in shards for name in WeightFile(checkpoint / shard)}
    if strayed := sorted(name for name, shard in held ^ set(weight_map.items())):
        raise UserError(f"{checkpoint}: its index and its shards do not agree about {', '.join(strayed[:5])}")
    return [checkpoint / name for name in shards]


def stored_shapes(checkpoint: Path) -> Shapes:
    """The shapes of all stored tensors, from the files' headers."""
    files = [WeightFile(path) for path in weight_files(checkpoint)]
    return {name: file.shape(name) for file in files for name in file}


def write_weights(path: Path, entries: list[tuple[str, Shape, torch.dtype]], values: Iterable[torch.Tensor]) -> None:
    """Write a safetensors file from a stream of tensors in the order of `entries`.

    The next tensor is made while one is written: two are in memory at a time. `sync` forces files to the disk, all
    together at the end, so that the disk is never waited for in between.
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
                raise ValueError(f"{name}: announced as {dtype} {shape}, given as {value.dtype} {tuple(value.shape)}")
            file.write(value.contiguous().view(-1).view(torch.uint8).numpy().data)


def sync(files: Iterable[Path]) -> None:
    """Return when everything written to these files is on the disk."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _one_ahead(values: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The same tensors, each made in a thread of its own while the one before is used."""
    source = iter(values)
    with ThreadPoolExecutor(1) as maker:
        coming = maker.submit(next, source, None)
        while (value := coming.result()) is not None:
            coming = maker.submit(next, source, None)
            yield value
