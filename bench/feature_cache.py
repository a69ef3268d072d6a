"""Compares reading a feature cache, as distillation does, with reading its file from one end to the other.

    python bench/feature_cache.py [--megabytes 2000] [--rounds 5]

The cache has visual features of 257 tokens of width 1,408 in bfloat16 (0.7 MB an image), in a file of the store.
`reading` are all images once, in a shuffled order, 64 a batch, by the threads that make batches ahead. It is compared
with `raw`, which reads the same file sequentially, 16 MiB at a time. Both start with the file out of memory
(`from_disk`), or in it (`from_memory`). `opening` is what each process does once: the store compares the file's bytes
with its digest. A ratio is a speed over that of `raw`: 1 means that reading costs nothing beside the disk.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import show, spread

from lmmpress.data.workers import by_workers
from lmmpress.lmm.ragged_rows import NewFile, open_either
from lmmpress.lmm.tensor_rows import TensorRows
from lmmpress.store import Store, open_store

TOKENS, WIDTH, BATCH = 257, 1408, 64
IMAGE = 2 * TOKENS * WIDTH  # bytes
NAME = "features-bench"
Work = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    images = arguments.megabytes * 1_000_000 // IMAGE
    with tempfile.TemporaryDirectory(prefix="lmmpress-bench-") as folder:
        with open_store(folder).new_tensors(NAME) as path:
            fill(NewFile(path, "features").rows((images, TOKENS, WIDTH), torch.bfloat16))
        with open_store(folder).tensor_file(NAME) as path:
            assert path is not None
            rows = open_either(path, "features")
            assert isinstance(rows, TensorRows)
            result: dict[str, Any] = {"megabytes": arguments.megabytes, "images": images}
            order = torch.randperm(images, generator=torch.Generator().manual_seed(0)).tolist()
            places: dict[str, Work] = {"from_disk": partial(forget, path), "from_memory": lambda: None}
            for where, prepare in places.items():
                work: dict[str, Work] = {
                    "reading": partial(read, rows, order),
                    "opening": partial(opened, Path(folder)),
                }
                result[where] = {
                    name: compared(prepare, partial(raw, path), one, arguments.rounds) for name, one in work.items()
                }
    show(result)


def fill(rows: TensorRows) -> None:
    for begin in range(0, len(rows), BATCH):
        part = range(begin, min(begin + BATCH, len(rows)))
        rows.write(part, torch.randn(len(part), TOKENS, WIDTH).bfloat16())


def read(rows: TensorRows, order: list[int]) -> None:
    parts = [order[at : at + BATCH] for at in range(0, len(order), BATCH)]
    for _ in by_workers(rows.__getitem__, parts, ahead=1):
        pass


def raw(path: Path) -> None:
    block = bytearray(16 << 20)
    with path.open("rb", buffering=0) as file:
        while file.readinto(block):
            pass


def opened(folder: Path) -> None:
    store: Store = open_store(str(folder))
    with store.tensor_file(NAME) as path:
        assert path is not None


def forget(path: Path) -> None:
    """Have the system forget what it keeps of the file in memory."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def compared(prepare: Work, raw: Work, work: Work, rounds: int) -> dict[str, Any]:
    """The seconds of both in turns, each after `prepare`, and the speed of `work` over that of `raw`. The first round
    does not count. Each comes first in every other round, since a disk may keep what it was asked for."""
    pairs = []
    for number in range(rounds + 1):
        both = (raw, work) if number % 2 else (work, raw)
        took = {one: seconds(prepare, one) for one in both}
        pairs.append((took[raw], took[work]))
    del pairs[0]
    return {
        "raw_seconds": spread([one for one, _ in pairs]),
        "seconds": spread([other for _, other in pairs]),
        "speed_over_raw": spread([one / other for one, other in pairs]),
    }


def seconds(prepare: Work, work: Work) -> float:
    prepare()
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
