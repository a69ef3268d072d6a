"""A process that stores checkpoints until it is killed, forked from one that has everything imported already."""

import json
import os
import random
import sys
from pathlib import Path

# imported before the fork, so that a writer gets to work in milliseconds
from lmmpress.store import Store, open_store
from lmmpress.store.bucket import BucketObjects
from lmmpress.store.cache import CachedObjects
from lmmpress.store.cache_settings import cache_folder

INDEX, TEMPLATES = "model.safetensors.index.json", "additional_chat_templates"
PART = 5 << 20  # bytes; the least that S3 takes


def opened(address: str, limit: int = 10**12, **settings: float) -> Store:
    """A store in a bucket with small parts, so that also small files have many parts."""
    return Store(CachedObjects(BucketObjects(address, part=PART, **settings), cache_folder(), limit))


def random_checkpoint(folder: Path, seed: int, sizes: dict[str, int] | None = None) -> Path:
    """A directory of random files, which a store takes for a checkpoint. Shards are listed in an index."""
    chance = random.Random(seed)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(f'{{"seed": {seed}}}', "utf-8")
    for name, size in (sizes or {"model.safetensors": 3000, f"{TEMPLATES}/tool.jinja": 10, "merges.txt": 0}).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(chance.randbytes(size))
    if shards := [name for name in sizes or () if name.startswith("model-")]:
        (folder / INDEX).write_text(json.dumps({"weight_map": {name: name for name in shards}}), "utf-8")
    return folder


def write_step(folder: Path, number: int) -> Path:
    """The checkpoint of a step: some files that only it has and one that all share."""
    made = random_checkpoint(folder, number, {f"model-{index}.safetensors": 40_000 + number for index in range(3)})
    (made / "vocab.txt").write_bytes(b"frozen" * 1000)
    return made


def write_until_killed(address: str) -> None:
    """One checkpoint and decision after the other; a line for each that was accepted."""
    store = open_store(address)
    with store.run_state("key") as state:
        number = len(state.history())
        while True:
            with store.scratch() as folder:
                digest = store.add_checkpoint(write_step(folder / "checkpoint", number))
            state.decide(number, {"checkpoint": digest})
            number += 1
            os.write(1, f"accepted {number}\n".encode())


def main() -> None:
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            write_until_killed(line.strip())
        os.write(1, f"forked {pid}\n".encode())
        os.waitpid(pid, 0)
        os.write(1, b"ended\n")


if __name__ == "__main__":
    main()
