"""The harder sample, for what the sample is too easy for: its pictures with other questions, and a smaller model."""

from __future__ import annotations

from pathlib import Path
from random import Random

from lmmpress.sample import dataset
from lmmpress.sample.dataset import LEARNED, Sample
from lmmpress.sample.hard_questions import TASKS, ask_hard

# Part of the cache folder's name: raise it when the same seed gives different data.
VERSION = 1

# An image of the split `distill` has three of the six questions, in turns; an image of any other split has all.
TURNS = (0, 1, 3)


def make(seed: int, split: str, index: int) -> Sample:
    """Advertisement number `index` of a split: the sample's picture, and the rows of the harder questions."""
    advert, _, image = dataset.make(seed, split, index)
    rows = ask_hard(advert, Random(f"{seed}/{split}/{index}/hard"))
    if split == LEARNED:
        asked = {TASKS[(index + turn) % len(TASKS)] for turn in TURNS}
        rows = [row for row in rows if row.task in asked]
    return advert, rows, image


def cached() -> Path:
    """The harder sample's data set of seed 0 in the user's cache, built once."""
    return dataset.cached(f"sample-hard-v{VERSION}", make)
