"""Builds the sample data set on disk, in the imagefolder format that lmmpress reads.

directory/metadata.jsonl     one row for each question: file_name, question, answer, task, split
directory/images/*.png       one picture for each advertisement, with up to five questions
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lmmpress.host.processes import inherited
from lmmpress.progress import track
from lmmpress.sample.advert import Advert, Row, advert_rng, ask, draw_advert
from lmmpress.sample.drawing import render

# Images by split. A split named "train" exists too, but only in memory: the teacher was trained on it.
SIZES: dict[str, int] = {"score": 400, "distill": 4000, "gate": 300, "test": 800}

# An image of the split `distill` has a question about its content, which needs reading, and two of the tasks that need
# only the picture. An image of any other split has a question of every task.
LEARNED, LOOKS = "distill", 2

# Part of the cache folder's name: raise it when the same seed gives different data.
VERSION = 3

# Start worker processes only above this number of pictures: starting them takes as long as drawing some hundred.
FEW = 200

Sample = tuple[Advert, list[Row], Image.Image]
Make = Callable[[int, str, int], Sample]  # seed, split, index: one advertisement; a function of a module's top


def make(seed: int, split: str, index: int) -> Sample:
    """Advertisement number `index` of a split, its rows and its picture; the same on every machine."""
    rng = advert_rng(seed, split, index)
    advert = draw_advert(rng)
    rows, image = ask(advert, rng), render(advert, rng)
    if split == LEARNED:
        visual = [row for row in rows if row.task != "content"]
        tasks = {visual[(LOOKS * index + offset) % len(visual)].task for offset in range(LOOKS)} | {"content"}
        rows = [row for row in rows if row.task in tasks]
    return advert, rows, image


def make_at(make: Make, seed: int, place: tuple[str, int]) -> Sample:
    return make(seed, *place)


def make_many(places: list[tuple[str, int]], seed: int, note: str, make: Make = make) -> Iterator[Sample]:
    """`make` for every (split, index), in order, on all cores if there are many; `note` labels the progress bar."""
    one = partial(make_at, make, seed)
    if len(places) <= FEW:
        yield from track(map(one, places), note, len(places))
        return
    # Spawned, not forked: a process that already runs torch's threads must not be forked.
    with inherited(), get_context("spawn").Pool() as pool:
        samples = pool.imap(one, places, chunksize=50)
        yield from track(samples, note, len(places))


@contextmanager
def atomically(directory: Path) -> Iterator[Path]:
    """A temporary folder that is renamed to `directory` when the block succeeds and is removed when it fails."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}-"))
    draft.chmod(0o755)
    try:
        yield draft
        draft.rename(directory)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def build(directory: Path, seed: int = 0, sizes: dict[str, int] | None = None, make: Make = make) -> Path:
    """Write the data set to `directory`, which must not exist, and return it.

    `sizes` is the number of images of each split, and `make` makes one; everything else follows from `seed`.
    """
    directory = Path(directory)
    if directory.exists():
        raise FileExistsError(directory)
    places = [(split, i) for split, size in (sizes or SIZES).items() for i in range(size)]
    with atomically(directory) as draft:
        (draft / "images").mkdir()
        with (draft / "metadata.jsonl").open("w", encoding="utf-8") as metadata:
            samples = make_many(places, seed, "Drawing the sample", make)
            for number, ((split, _), (_, rows, image)) in enumerate(zip(places, samples, strict=True)):
                # no split in the file name: imagefolder would read it as a split and drop the other files
                name = f"images/{number:05d}.png"
                image.save(draft / name)
                for row in rows:
                    fields = {"file_name": name, "question": row.question, "answer": row.answer}
                    fields |= {"task": row.task, "split": split}
                    metadata.write(json.dumps(fields, ensure_ascii=False) + "\n")
    return directory


def cached(name: str = f"sample-v{VERSION}", make: Make = make) -> Path:
    """The sample data set of seed 0 in the user's cache (LMMPRESS_CACHE or ~/.cache/lmmpress), built once."""
    home = os.environ.get("LMMPRESS_CACHE")
    directory = (Path(home) if home else Path.home() / ".cache" / "lmmpress") / name
    if not directory.exists():
        try:
            build(directory, make=make)
        except OSError:
            if not directory.exists():  # if it exists, another process has just built the same data
                raise
    return directory


def digest(directory: Path) -> str:
    """sha256 (hex) over the rows and the decoded pixels of a data set, so that PNG encoders do not matter."""
    total = hashlib.sha256()
    rows = (directory / "metadata.jsonl").read_bytes()
    total.update(rows)
    for name in dict.fromkeys(json.loads(line)["file_name"] for line in rows.splitlines()):
        with Image.open(directory / name) as image:
            total.update(np.asarray(image.convert("RGB")).tobytes())
    return total.hexdigest()


class Adverts(NamedTuple):
    """Advertisements in memory: pixels (n, 64, 64, 3), attributes, and the rows of each."""

    pixels: NDArray[np.uint8]
    adverts: list[Advert]
    rows: list[list[Row]]


def in_memory(split: str, size: int, seed: int = 0, make: Make = make) -> Adverts:
    """The first `size` advertisements of a split, built without files."""
    pixels, adverts, rows = [], [], []
    for advert, questions, image in make_many([(split, i) for i in range(size)], seed, f"Drawing {split}", make):
        pixels.append(np.asarray(image))
        adverts.append(advert)
        rows.append(questions)
    return Adverts(np.stack(pixels), adverts, rows)
