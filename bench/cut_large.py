"""Measures cutting a checkpoint of the derived AntGMM shape, 5.4 billion parameters in bfloat16, along every axis.

    python bench/cut_large.py [--folder DIR] [--blocks 48] [--rounds 1]

Needs about three times the checkpoint's 11 GB on disk. Reports for each axis: the speed of the cut divided by the speed
of copying the bytes that it keeps (both start with an empty page cache and end with flushed files), the peak of
anonymous memory above the start (without pages of mapped files), and the bytes read from disk divided by the source's
size.
"""

import argparse
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import torch
from common import show, spread

from lmmpress.axes.slices import Shapes
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.checkpoint import apply_cuts, read_checkpoint
from lmmpress.lmm.read_anatomy import anatomy_of
from lmmpress.lmm.weights import INDEX, write_weights
from lmmpress.presets import preset
from lmmpress.pruning.choose import choose

REMOVED = {axis: stage["step"] for axis, stage in preset("paper", with_data=False)["stages"].items()}
SHARD = 2_000_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--blocks", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        source = folder / "source"
        config = json.loads((Path(preset("paper", with_data=False)["model"]) / "config.json").read_text("utf-8"))
        config["text_config"]["num_hidden_layers"] = arguments.blocks
        make(source, config)
        anatomy = read_checkpoint(source)
        size = bytes_of(source)
        result: dict[str, Any] = {"parameters": anatomy.parameters, "gigabytes": size / 1e9}
        for axis in REMOVED:
            result[axis] = measure(source, anatomy, axis, folder, arguments.rounds) | {"removed": REMOVED[axis]}
            result[axis]["bytes_read_over_source"] = result[axis].pop("bytes_read") / size
        show(result)


def measure(source: Path, anatomy: Anatomy, axis: str, folder: Path, rounds: int) -> dict[str, Any]:
    body = anatomy.towers["language"].axes[axis]
    scores = {group.name: torch.rand(group.size) for group in body.groups}
    cut = choose(anatomy, "language", axis, REMOVED[axis], scores)
    shares, memory, read = [], [], []
    for _ in range(rounds):
        forget(source)
        before = bytes_read()
        with AnonymousPeak() as peak:
            begun = time.perf_counter()
            apply_cuts(source, read_checkpoint(source), [cut], folder / "cut")
            cutting = time.perf_counter() - begun
        memory.append(peak.bytes / 2**20)
        read.append(bytes_read() - before)
        forget(folder / "cut")
        begun = time.perf_counter()
        shutil.copytree(folder / "cut", folder / "copy")
        for path in (folder / "copy").iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        shares.append((time.perf_counter() - begun) / cutting)
        for name in ("cut", "copy"):
            shutil.rmtree(folder / name)
    return {
        "speed_as_share_of_copying_the_kept_bytes": spread(shares),
        "anonymous_memory_mb": spread(memory),
        "bytes_read": max(read),
    }


def make(folder: Path, config: dict) -> None:
    """Write a checkpoint of this config with random weights, tensor by tensor."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    shapes = anatomy_of(config).shapes
    pool = (torch.randn(1 << 24) * 0.02).to(torch.bfloat16)
    shards = parted(shapes)
    index: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        entries = [(name, shapes[name], torch.bfloat16) for name in names]
        write_weights(folder / file, entries, (drawn(pool, shapes[name]) for name in names))
        index |= dict.fromkeys(names, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}), "utf-8")


def parted(shapes: Shapes) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    held = 0
    for name, shape in shapes.items():
        if held > SHARD:
            shards.append([])
            held = 0
        shards[-1].append(name)
        held += 2 * prod(shape)
    return shards


def drawn(pool: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    size = prod(shape)
    return pool.repeat(-(-size // len(pool)))[:size].view(shape)


def files_of(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.suffix == ".safetensors")


def bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in files_of(folder))


def forget(folder: Path) -> None:
    """Drop the files' pages from the page cache."""
    for path in files_of(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bytes_read() -> int:
    """The bytes that this process has read from disk."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text("utf-8").splitlines())
    return int(lines["read_bytes"])


class AnonymousPeak:
    """Samples anonymous memory while its block runs; `bytes` is the peak above the start."""

    def __enter__(self) -> "AnonymousPeak":
        self.start, self.bytes, self._on = self._now(), 0, True
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _now(self) -> int:
        with open("/proc/self/status", encoding="utf-8") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))

    def _watch(self) -> None:
        while self._on:
            self.bytes = max(self.bytes, self._now() - self.start)
            time.sleep(0.005)

    def __exit__(self, *_: object) -> None:
        self._on = False
        self._thread.join()


if __name__ == "__main__":
    main()
