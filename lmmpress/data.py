"""Rows of a data set in Hugging Face's imagefolder form: images and a metadata.jsonl of questions and answers.

The file is somebody else's: every row is checked before anything is computed, and a fault is told with its row.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from lmmpress.errors import UserError

METADATA = "metadata.jsonl"


@dataclass(frozen=True)
class Row:
    """A question about an image (none in text-only data) and its one right answer. `question` is the full prompt."""

    file_name: str | None
    question: str
    answer: str
    task: str


@dataclass(frozen=True)
class Split:
    """The rows of one split, in the file's order, and a digest of what they say and show."""

    name: str
    folder: Path
    rows: tuple[Row, ...]
    digest: str

    def image_names(self) -> list[str]:
        """The distinct images in order of first use."""
        return list(dict.fromkeys(row.file_name for row in self.rows if row.file_name is not None))


def read_split(folder: Path, name: str, limit: int | None = None) -> Split:
    """The rows of a split, at most `limit`: those of images taken evenly over the split, all rows of an image together.

    Raises UserError for a missing or malformed metadata.jsonl, an image that is missing or lies outside of the folder,
    a split without rows, and rows of which some have an image and some have none.
    """
    path = folder / METADATA
    if not path.is_file():
        raise UserError(f"{folder} is no data set: it has no {METADATA} (one JSON object per line, see docs/data.md)")
    return _split(folder, path.stat().st_mtime_ns, name, limit)


@lru_cache(maxsize=32)
def _split(folder: Path, stamp: int, name: str, limit: int | None) -> Split:
    everything = _read(folder, stamp)
    rows = [row for row, split in everything if split == name]
    if not rows:
        there = sorted({split for _, split in everything})
        raise UserError(f"{folder}: split {name!r} has no rows; the splits are {', '.join(there) or 'none'}")
    if limit is not None and limit < len(rows):
        rows = _evenly(rows, limit)
    if len({row.file_name is None for row in rows}) > 1:
        raise UserError(f"{folder}: some rows of split {name!r} have an image and some have none")
    split = Split(name, folder, tuple(rows), "")
    return Split(name, folder, tuple(rows), _digest(split))


def open_image(split: Split, name: str) -> Image.Image:
    """An image as RGB; UserError names the file and the first row that asks for it."""
    try:
        with Image.open(split.folder / name) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        row = next(row for row in split.rows if row.file_name == name)
        raise UserError(
            f"{split.folder / name} cannot be read as an image ({type(error).__name__}); "
            f"it belongs to the row asking {row.question[:40]!r}"
        ) from None


def _evenly(rows: list[Row], limit: int) -> list[Row]:
    about: dict[object, list[Row]] = {}
    for number, row in enumerate(rows):
        about.setdefault(number if row.file_name is None else row.file_name, []).append(row)
    groups = list(about.values())
    wanted = -(-limit * len(groups) // len(rows))
    return [row for place in range(wanted) for row in groups[place * len(groups) // wanted]][:limit]


@lru_cache(maxsize=4)
def _read(folder: Path, stamp: int) -> list[tuple[Row, str]]:
    """All rows with their splits; `stamp` is the file's time, so that a changed file is read again."""
    path = folder / METADATA
    images: set[str] = set()
    with path.open(encoding="utf-8", errors="replace") as file:
        return [
            _row(line, folder, f"{path}, line {number}", images)
            for number, line in enumerate(file, start=1)
            if line.strip()
        ]


def _row(line: str, folder: Path, place: str, images: set[str]) -> tuple[Row, str]:
    """One row and its split; `images` are the file names found to be good before."""
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError):
        raise UserError(f"{place}: not JSON") from None
    if not isinstance(raw, dict):
        raise UserError(f"{place}: a row is a JSON object")
    for key in ("question", "answer", "task", "split"):
        if not isinstance(raw.get(key), str) or not raw[key].strip():
            raise UserError(f"{place}: {key} is missing or no text")
    file_name = raw.get("file_name")
    if file_name is not None and file_name not in images:
        _check_image_name(file_name, folder, place)
        images.add(file_name)
    return Row(file_name, raw["question"], raw["answer"], raw["task"]), raw["split"]


def _check_image_name(file_name: object, folder: Path, place: str) -> None:
    if not isinstance(file_name, str) or not file_name or "\0" in file_name:
        raise UserError(f"{place}: file_name is no text")
    if not (folder / file_name).resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{place}: file_name {file_name!r} points outside of the data set")
    if not (folder / file_name).is_file():
        raise UserError(f"{place}: image {file_name!r} is missing")


def _digest(split: Split) -> str:
    sha = hashlib.sha256()
    for row in split.rows:
        sha.update(json.dumps([row.file_name, row.question, row.answer, row.task]).encode())
    for name in split.image_names():
        sha.update(hashlib.sha256((split.folder / name).read_bytes()).digest())
    return sha.hexdigest()
