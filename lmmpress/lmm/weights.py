"""Reads and writes the safetensors files of a checkpoint, tensor by tensor.

Tensors are read through a memory map and written one at a time, so a whole model is never in memory.
"""

import mmap
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path

import torch

from lmmpress.axes.slices import Shape, Shapes
from lmmpress.errors import UserError
from lmmpress.files.allow_list import INDEX, WEIGHTS, Files, choose, weight_map
from lmmpress.lmm.tensor_header import header_of, read_header

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


class WeightFile:
    """One memory-mapped safetensors file: its tensors are views of the file, not copies. UserError for a damaged one
    (see `lmmpress.lmm.tensor_header.read_header`)."""

    def __init__(self, path: Path) -> None:
        self.path, self._places = path, read_header(path)
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def shape(self, name: str) -> Shape:
        return self._places[name].shape

    def dtype(self, name: str) -> torch.dtype:
        return self._places[name].dtype

    def tensor(self, name: str) -> torch.Tensor:
        """The tensor as a view of the mapped file; the system is advised to read it ahead, not page by page."""
        place = self._places[name]
        if prod(place.shape) == 0:
            return torch.empty(place.shape, dtype=place.dtype)
        aligned = place.start - place.start % mmap.PAGESIZE
        if hasattr(mmap, "MADV_WILLNEED"):
            self._map.madvise(mmap.MADV_WILLNEED, aligned, place.end - aligned)
        flat = torch.frombuffer(self._map, dtype=place.dtype, count=prod(place.shape), offset=place.start)
        return flat.view(place.shape)


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
    with path.open("wb") as file:
        file.write(header_of(entries, {"format": "pt"}))
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
