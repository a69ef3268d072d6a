"""The splits of a data set: their rows, of whatever form, and their pictures."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from lmmpress.data.address import shown
from lmmpress.data.digests import digest_of_rows, old_digest_of_rows
from lmmpress.data.draw import drawn
from lmmpress.data.images import Images, images_of
from lmmpress.data.index import Ids, Index, open_index
from lmmpress.data.picture_files import read_file
from lmmpress.data.pictures import MOST_BYTES, picture_of, small_png
from lmmpress.data.row import Row
from lmmpress.data.split_pictures import Pictures, read_pictures
from lmmpress.data.splitting import GATES, ROLES, part_of, parts, roles_in
from lmmpress.data.stored_rows import Rows
from lmmpress.data.workers import by_workers
from lmmpress.errors import UserError
from lmmpress.files.bounded import read_bytes
from lmmpress.settings.distillation import Draw
from lmmpress.settings.reading import AS_IT_IS, Reading

_TEST, _GATE = "test", "gate"


class ChangedPictureError(UserError):
    """The file of a picture has other bytes than when the rows were read."""


@dataclass(frozen=True)
class Split:
    """The rows of one split, in the data's order, and a digest of their texts and pictures.

    `old_digest` is the one of earlier versions, None for rows that they could not read. `pictures` holds the sha256 of
    each picture by its name. `index` is where the rows are read from, None for rows that are in no data set.
    """

    name: str
    folder: Path
    rows: Sequence[Row]
    digest: str
    pictures: Mapping[str, str] = field(default_factory=dict, compare=False)
    old_digest: str | None = field(default=None, compare=False)
    index: Index | None = field(default=None, compare=False, repr=False)

    @cached_property
    def images(self) -> Images:
        """The distinct images, in order of first use."""
        if isinstance(self.pictures, Pictures) and self.pictures.rows is self.rows:
            return self.pictures.images
        return images_of(self.rows)

    def place(self, row: Row) -> str:
        """A row's file, line and question, for a message."""
        return f"{shown(self.folder)}/{row.place}, asking {row.question[:40]!r}"

    def read(self, name: str) -> bytes:
        """The bytes of an image. UserError if it cannot be read, or its file has changed since the rows were read."""
        if self.index is None:
            return read_bytes(self.folder, name, MOST_BYTES)
        raw = self.index.read_picture(name, MOST_BYTES)
        if self.index.is_changed(name, raw):
            raise _changed(self, name)
        return raw


def read_split(
    folder: Path,
    name: str,
    limit: int | None = None,
    tasks: Iterable[str] = (),
    reading: Reading = AS_IT_IS,
    draw: Draw = "even",
    seed: int = 0,
) -> Split:
    """The rows of a split, at most `limit`, drawn as `draw` says. With `tasks` only rows of these tasks.

    Raises UserError for data of no known form or with faulty rows, a picture that is missing, not a regular file or
    outside the folder, a split without rows or without rows of a task, and a split in which only some rows have a
    picture.
    """
    index = open_index(folder, reading)
    return _split(index, name, limit, tuple(tasks), draw, seed)


def check_unchanged(split: Split) -> None:
    """Raise UserError if the pictures of a split, or the files with its rows, are no longer what they were when the
    split was read."""
    if split.index is None:
        return
    index = split.index
    if name := index.changed_file():
        raise UserError(f"{shown(split.folder)}/{name} has changed since its rows were read; start again")
    if not index.has_files():
        return
    files = ((name, sha256) for name, sha256 in split.pictures.items() if index.where(name).size < 0)
    for name, known, found in by_workers(lambda one: (*one, read_file(split.folder, one[0])[1]), files):
        if found != known:
            raise _changed(split, name)


def _changed(split: Split, name: str) -> ChangedPictureError:
    _split.cache_clear()  # so that this process, too, reads the pictures anew when it starts again
    return ChangedPictureError(f"{split.folder / name} has changed since the rows were read; start again")


def split_for_measuring(folder: Path, reading: Reading = AS_IT_IS) -> str:
    """The split to measure accuracy on if nobody names one: `test`; where there is none, the rows that the gate or
    validation uses, or the only split. Never one of several that a model may have learned from.

    Raises UserError if that leaves none.
    """
    names = open_index(folder, reading).splits()
    for name in (_TEST, _GATE, *GATES):
        if name in names:
            return name
    if len(names) == 1:
        return names[0]
    if not names:
        raise _no_rows(open_index(folder, reading))
    raise UserError(f"{shown(folder)}: there is no split 'test'; say by --split which one to use: {', '.join(names)}")


def usual_splits(folder: Path, reading: Reading = AS_IT_IS) -> dict[str, str]:
    """The data's own names for our splits `score`, `distill`, `gate` and `test`, if it has a split train, and perhaps
    the usual splits validation (val, valid, dev) and test, and none of ours; otherwise empty.

    The train split is used to score and to distil, the validation split for the gate. If there is no validation split,
    the train split is divided, see `lmmpress.data.splitting`.
    """
    names = set(open_index(folder, reading).splits())
    if names & {"score", "distill", "gate"} or "train" not in names:
        return {}
    gate = next((name for name in GATES if name in names), None)
    if gate and "test" in names:
        return {"score": "train", "distill": "train", "gate": gate, "test": "test"}
    if gate or names > {"train", "test"}:
        return {}
    return {role: role if role in names else f"train[{role}]" for role in ROLES}


def open_image(split: Split, name: str) -> Image.Image:
    """Read an image for the model (see `lmmpress.data.pictures`); UserError names the image and the first row that uses
    it."""
    try:
        return picture_of(split.read(name))
    except ChangedPictureError:
        raise
    except UserError as error:
        row = next(row for row in split.rows if name in row.pictures)
        raise UserError(
            f"{shown(split.folder)}/{name} cannot be read as an image: {error}; it belongs to {split.place(row)}"
        ) from None


def thumbnail(split: Split, name: str, side: int) -> bytes:
    """An image of a split as a small PNG of new pixels, no side above `side`: nothing of the file itself is in it."""
    return small_png(open_image(split, name), side)


def open_images(split: Split) -> Iterator[Image.Image]:
    """All images of a split in the order of `images.names`, read ahead by several threads."""
    return by_workers(lambda name: open_image(split, name), split.images.names)


@lru_cache(maxsize=32)
def _split(index: Index, name: str, limit: int | None, tasks: tuple[str, ...], draw: Draw, seed: int) -> Split:
    ids = _chosen(index, name, limit, tasks, draw, seed)
    rows = Rows(index, ids)
    pictures = Pictures(rows)
    if read_pictures(index, ids):
        index.note("DELETE FROM digests", [()])
    key = json.dumps([name, limit, tasks, draw, seed])
    known = dict(index.ask("SELECT name, value FROM digests WHERE name IN (?, ?)", [key, f"old {key}"]))
    if len(known) < 2:
        old = old_digest_of_rows(lambda: index.stored(ids), pictures.about)
        known = {key: digest_of_rows(rows, pictures.__getitem__), f"old {key}": old or ""}
        index.note("INSERT OR REPLACE INTO digests VALUES (?, ?)", known.items())
    return Split(name, index.folder, rows, known[key], pictures, known[f"old {key}"] or None, index)


def _chosen(index: Index, name: str, limit: int | None, tasks: tuple[str, ...], draw: Draw, seed: int) -> Ids:
    """The rows of a split that were asked for."""
    where = shown(index.folder)
    part = part_of(name) if name not in index.splits() else None
    if part:
        name = part[0]
    present = index.tasks(name)
    if not present:
        names = ", ".join(index.splits())
        if not names:
            raise _no_rows(index)
        raise UserError(
            f"{where}: split {name!r} has no rows; the splits are {names}; choose among them, by splits in a plan, or "
            "by --split"
        )
    for task in tasks:
        if task not in present:
            raise UserError(f"{where}: split {name!r} has no task {task!r}; its tasks are {', '.join(present)}")
    ids, pictures = index.ids(name, tasks), index.first_pictures(name, tasks)
    of_tasks = index.task_numbers(name, tasks) if draw == "by_task" and limit is not None else np.zeros_like(pictures)
    if part:
        read_pictures(index, index.ids(name))
        rows = parts(index.each, name, index.reading, roles_in(index.splits())).get(part[1], ids[:0])
        wanted = np.isin(ids, rows)
        ids, pictures, of_tasks = ids[wanted], pictures[wanted], of_tasks[wanted]
        if not len(ids):
            raise UserError(f"{where}: split {name!r} has too few rows for a part {part[1]!r}; name splits in the plan")
    having, without = ids[pictures >= 0], ids[pictures < 0]
    if len(having) and len(without):
        with_picture, none = (stored.row.place for stored in index.stored(np.array([having[0], without[0]])))
        raise UserError(
            f"{where}: some rows of split {name!r} have an image and some have none, for instance those of "
            f"{with_picture} and {none}; give a split one kind"
        )
    return ids if limit is None else drawn(ids, limit, draw, seed, pictures, of_tasks)


def _no_rows(index: Index) -> UserError:
    return UserError(f"{shown(index.folder)}/{index.found.files[0]} holds no rows")
