"""Reads the rows of a data set in Hugging Face's imagefolder format: images, and metadata.jsonl with their questions.

The file is untrusted: every row is checked when it is read, and an error names its line.
"""

import hashlib
import io
import json
import os
import posixpath
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from PIL import Image

from lmmpress.data.address import METADATA, bring
from lmmpress.data.pictures import MOST_BYTES, is_plain, picture_of
from lmmpress.data.text import read_lines
from lmmpress.errors import UserError
from lmmpress.files.bounded import check_file, read_bytes

In = TypeVar("In")
Out = TypeVar("Out")

LONGEST_TEXT = 1_000_000  # characters of a question or an answer
_LONGEST_NAME = 200  # characters of a task or a split
_TEXTS = {"question": LONGEST_TEXT, "answer": LONGEST_TEXT, "task": _LONGEST_NAME, "split": _LONGEST_NAME}
_PIXELS_VERSION = 2  # version of the decoding of pictures that are not plain
_TEST, _GATE = "test", "gate"
_USUAL_GATES = ("validation", "val", "valid", "dev")
_AHEAD = 4  # how many items each worker may compute ahead of the consumer


@dataclass(frozen=True)
class Row:
    """A question about an image (no image in text-only data) and its one right answer. `question` is the full prompt.

    `line` is its line number in metadata.jsonl.
    """

    file_name: str | None
    question: str
    answer: str
    task: str
    line: int = field(default=0, compare=False)

    @property
    def picture(self) -> str | None:
        """The image's normalised path: `./a.png` becomes `a.png`."""
        return None if self.file_name is None else posixpath.normpath(self.file_name)


@dataclass(frozen=True)
class Split:
    """The rows of one split, in the file's order, and a digest of their texts and images.

    `pictures` holds the sha256 of each image file, by its normalised path; `stamp` is the modification time of the
    file with the rows.
    """

    name: str
    folder: Path
    rows: tuple[Row, ...]
    digest: str
    pictures: dict[str, str] = field(default_factory=dict, compare=False)
    stamp: int = field(default=0, compare=False)

    def image_names(self) -> list[str]:
        """The normalised paths of the distinct images, in order of first use."""
        return list(dict.fromkeys(row.picture for row in self.rows if row.picture is not None))

    def place(self, row: Row) -> str:
        """A row's file, line and question, for a message."""
        return f"{self.folder / METADATA}, line {row.line}, asking {row.question[:40]!r}"


def read_split(folder: Path, name: str, limit: int | None = None, tasks: Iterable[str] = ()) -> Split:
    """The rows of a split, at most `limit`: images are chosen evenly over the split, each with all its rows. With
    `tasks` only rows of these tasks.

    Raises UserError for a missing or malformed metadata.jsonl, an image that is missing, not a regular file or outside
    the folder, a split without rows or without rows of a task, and a split in which only some rows have an image.
    """
    return _split(folder, _stamp(folder), name, limit, tuple(tasks))


def check_unchanged(split: Split) -> None:
    """Raise UserError if the images of a split, or the file with its rows, are no longer what they were when the split
    was read."""
    if _stamp(split.folder) != split.stamp:
        raise UserError(f"{split.folder / METADATA} has changed since its rows were read; start again")
    for name, sha256 in zip(split.pictures, _by_workers(partial(_sha256, split.folder), split.pictures), strict=True):
        if sha256 != split.pictures[name]:
            raise UserError(f"{split.folder / name} has changed since the rows were read; start again")


def split_for_measuring(folder: Path) -> str:
    """The split to measure accuracy on if nobody names one: `test`; where there is none, the rows that the gate or
    validation uses, or the only split. Never one of several that a model may have learned from.

    Raises UserError if that leaves none.
    """
    names = _split_names(folder, _stamp(folder))
    for name in (_TEST, _GATE, *_USUAL_GATES):
        if name in names:
            return name
    if len(names) == 1:
        return names[0]
    if not names:
        raise UserError(f"{folder / METADATA} holds no rows")
    raise UserError(f"{folder}: there is no split 'test'; say by --split which one to use: {', '.join(names)}")


def usual_splits(folder: Path) -> dict[str, str]:
    """The data's own names for our splits `score`, `distill`, `gate` and `test`, if it has the usual splits train,
    validation (val, valid, dev) and test, and none of ours; otherwise empty.

    The train split is used to score and to distil, the validation split for the gate.
    """
    names = set(_split_names(folder, _stamp(folder)))
    gate = next((name for name in _USUAL_GATES if name in names), None)
    if names & {"score", "distill", "gate"} or gate is None or not names >= {"train", "test"}:
        return {}
    return {"score": "train", "distill": "train", "gate": gate, "test": "test"}


def open_image(split: Split, name: str) -> Image.Image:
    """Read an image for the model (see `lmmpress.data.pictures`); UserError names the file and the first row that uses
    it."""
    try:
        return picture_of(read_bytes(split.folder, name, MOST_BYTES))
    except UserError as error:
        row = next(row for row in split.rows if row.picture == posixpath.normpath(name))
        raise UserError(
            f"{split.folder / name} cannot be read as an image: {error}; it belongs to {split.place(row)}"
        ) from None


def thumbnail(split: Split, name: str, side: int) -> bytes:
    """An image of a split as a small PNG of new pixels, no side above `side`: nothing of the file itself is in it."""
    image = open_image(split, name)
    image.thumbnail((side, side))
    image.info.clear()  # profiles and comments, which would be written too
    written = io.BytesIO()
    image.save(written, "PNG")
    return written.getvalue()


def open_images(split: Split) -> Iterator[Image.Image]:
    """All images of a split in the order of `image_names`, read ahead by several threads."""
    return _by_workers(lambda name: open_image(split, name), split.image_names())


def _stamp(folder: Path) -> int:
    """The modification time of metadata.jsonl; a new one makes the caches read the file again."""
    if not (folder / METADATA).exists():
        raise UserError(f"{folder} is no data set: it has no {METADATA} (one JSON object per line, see docs/data.md)")
    return (folder / METADATA).stat().st_mtime_ns


@lru_cache(maxsize=32)
def _split(folder: Path, stamp: int, name: str, limit: int | None, tasks: tuple[str, ...]) -> Split:
    rows = [row for row, split in _read(folder, stamp) if split == name]
    if not rows:
        names = ", ".join(_split_names(folder, stamp))
        if not names:
            raise UserError(f"{folder / METADATA} holds no rows")
        raise UserError(
            f"{folder}: split {name!r} has no rows; the splits are {names}; choose among them, by splits in a plan, or "
            "by --split"
        )
    present = sorted({row.task for row in rows})
    for task in tasks:
        if task not in present:
            raise UserError(f"{folder}: split {name!r} has no task {task!r}; its tasks are {', '.join(present)}")
    if tasks:
        rows = [row for row in rows if row.task in tasks]
    if limit is not None and limit < len(rows):
        rows = _evenly(rows, limit)
    with_image, without = ([row for row in rows if (row.file_name is None) is none] for none in (False, True))
    if with_image and without:
        raise UserError(
            f"{folder}: some rows of split {name!r} have an image and some have none, for instance those of lines "
            f"{with_image[0].line} and {without[0].line} of {METADATA}; give a split one kind"
        )
    images = list(dict.fromkeys(row.picture for row in rows if row.picture is not None))
    bring(folder, images)
    _check_images_are_there(folder, rows)
    checked = _checked_pictures(folder, stamp)
    new = [image for image in images if image not in checked]
    checked.update(zip(new, _by_workers(lambda image: _check_picture(folder, image), new), strict=True))
    pictures = {image: checked[image].sha256 for image in images}
    return Split(name, folder, tuple(rows), _digest(rows, checked), pictures, stamp)


def _split_names(folder: Path, stamp: int) -> list[str]:
    return sorted({split for _, split in _read(folder, stamp)})


def _evenly(rows: list[Row], limit: int) -> list[Row]:
    by_image: dict[object, list[Row]] = {}
    for number, row in enumerate(rows):
        by_image.setdefault(number if row.picture is None else row.picture, []).append(row)
    groups = list(by_image.values())
    count = -(-limit * len(groups) // len(rows))
    return [row for place in range(count) for row in groups[place * len(groups) // count]][:limit]


@lru_cache(maxsize=4)
def _read(folder: Path, stamp: int) -> list[tuple[Row, str]]:
    """All rows with their splits."""
    path = folder / METADATA
    return [
        _row(line, f"{path}, line {number}", number) for number, line in read_lines(folder, METADATA) if line.strip()
    ]


def _row(line: str, place: str, number: int) -> tuple[Row, str]:
    """Parse one row; returns it with its split. Whether its image is there is checked when its split is read."""
    try:
        raw = json.loads(line, object_pairs_hook=_once_each)
    except _TwiceError as error:
        raise UserError(f"{place}: the key {error} stands twice in the row; keep one") from None
    except (ValueError, RecursionError) as error:
        why = f"{error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise UserError(f"{place}: not JSON: {why}; a line holds one JSON object and nothing else") from None
    if not isinstance(raw, dict):
        raise UserError(f"{place}: a row is a JSON object, each on a line of its own")
    for key, longest in _TEXTS.items():
        text = raw.get(key)
        if text is None:
            raise UserError(f"{place}: {key} is missing; a row has {', '.join(_TEXTS)}")
        if not isinstance(text, str):
            full = json.dumps(text)
            shown = full if len(full) <= 40 else f"{full[:37]}..."
            raise UserError(f"{place}: {key} is {shown}, which is no text; write it as text, in quotes")
        if not text.strip():
            raise UserError(f"{place}: {key} is empty; fill it in, or leave the row out")
        if len(text) > longest:
            raise UserError(f"{place}: {key} has {len(text):,} characters, more than {longest:,}; shorten it")
        _check_characters(key, text, place)
    file_name = raw.get("file_name")
    if file_name is not None:
        _check_image_name(file_name, place)
    return Row(file_name, raw["question"], raw["answer"], raw["task"], number), raw["split"]


class _TwiceError(ValueError):
    """A JSON object has a key twice."""


def _once_each(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Build a JSON object; if a key has two values, Python's json would silently keep the last one."""
    unique = dict(pairs)
    if len(unique) < len(pairs):
        raise _TwiceError(repr(Counter(key for key, _ in pairs).most_common(1)[0][0][:_LONGEST_NAME]))
    return unique


def _check_characters(key: str, text: str, place: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"{place}: {key} holds {text[error.start]!r}, half of a surrogate pair, which is no character; write the "
            "pair, or the character itself"
        ) from None


def _check_image_name(file_name: object, place: str) -> None:
    if not isinstance(file_name, str) or not file_name or "\0" in file_name:
        raise UserError(f"{place}: file_name is no text; it is the path of one image, and a row without image has none")
    _check_characters("file_name", file_name, place)
    if "://" in file_name:
        raise UserError(f"{place}: image {file_name!r} is an address; fetch it into the data set and name the file")


def _check_images_are_there(folder: Path, rows: Iterable[Row]) -> None:
    """Raise UserError, with the line of the row, unless each row's image is a regular file of the data set."""
    first = {row.file_name: row for row in reversed(list(rows)) if row.file_name is not None}
    for file_name, row in sorted(first.items(), key=lambda one: one[1].line):
        try:
            check_file(folder, file_name)
        except UserError as error:
            hint = "; write / between folders" if "\\" in file_name else ""
            raise UserError(f"{folder / METADATA}, line {row.line}: image {error}{hint}") from None


@dataclass(frozen=True)
class _Picture:
    """The sha256 of a picture file, and whether it is plain (see `lmmpress.data.pictures.is_plain`)."""

    sha256: str
    plain: bool


@lru_cache(maxsize=4)
def _checked_pictures(folder: Path, stamp: int) -> dict[str, _Picture]:
    """A cache of the pictures of a data set that were read so far, by normalised path; callers add to it."""
    return {}


def _check_picture(folder: Path, name: str) -> _Picture:
    try:
        raw = read_bytes(folder, name, MOST_BYTES)
    except UserError as error:
        raise UserError(f"{folder}: image {error}") from None
    return _Picture(hashlib.sha256(raw).hexdigest(), is_plain(raw))


def _sha256(folder: Path, name: str) -> str:
    return hashlib.sha256(read_bytes(folder, name, MOST_BYTES)).hexdigest()


def _digest(rows: Iterable[Row], pictures: dict[str, _Picture]) -> str:
    """A digest of the texts and images of rows. It names caches and results, so it never changes for the same pixels.

    Earlier versions decoded pictures that are not plain (turned by EXIF, transparent, of more than 8 bits) to other
    pixels. If there are such pictures, the digest includes the version of the decoding.
    """
    sha = hashlib.sha256()
    for row in rows:
        sha.update(json.dumps([row.file_name, row.question, row.answer, row.task]).encode())
    names = dict.fromkeys(row.file_name for row in rows if row.file_name is not None)
    used = [pictures[posixpath.normpath(name)] for name in names]
    for picture in used:
        sha.update(bytes.fromhex(picture.sha256))
    if not all(picture.plain for picture in used):
        sha.update(f"pixels {_PIXELS_VERSION}".encode())
    return sha.hexdigest()


def _by_workers(work: Callable[[In], Out], items: Iterable[In]) -> Iterator[Out]:
    """The results of `work` for each item, in order; threads compute a limited number of results ahead.

    Threads are enough: decoding a picture and hashing a file release the interpreter lock.
    """
    count = min(8, os.cpu_count() or 1)
    remaining = iter(items)
    with ThreadPoolExecutor(count) as pool:
        started = deque(pool.submit(work, item) for item in islice(remaining, count * _AHEAD))
        try:
            while started:
                result = started.popleft().result()
                started.extend(pool.submit(work, item) for item in islice(remaining, 1))
                yield result
        finally:
            for future in started:
                future.cancel()
