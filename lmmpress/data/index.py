"""The index of a data set: its rows, checked and in one form, in an SQLite file of this machine's cache.

It is made once, by reading the data set as a stream, and again whenever the files with the rows have changed. So a
process keeps no rows in memory, and finds any of them at once.
"""

import hashlib
import json
import os
import sqlite3
import tempfile
import threading
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmpress.data.address import bring, home_of, names_of, shown
from lmmpress.data.containers.recognise import Found, recognise
from lmmpress.data.index_making import make_index
from lmmpress.data.picture_files import stamp_of
from lmmpress.data.row import Row, Turn
from lmmpress.errors import UserError
from lmmpress.files.bounded import check_file, read_bytes
from lmmpress.progress import say_once
from lmmpress.settings.reading import Reading
from lmmpress.store.cache_settings import cache_folder

Ids = NDArray[np.int64]
"""Numbers of rows in the index, in the data's order."""

_VERSION = 3
_UNUSED = 30 * 86400.0  # seconds after which an index that nobody opened is removed
_AT_ONCE = 500


@dataclass(frozen=True)
class Place:
    """Where the bytes of a picture are: a whole file of the data set if `size` is negative, else `size` bytes of one
    from `offset` on. A file of the index has an absolute path."""

    path: str
    offset: int = 0
    size: int = -1


@dataclass(frozen=True)
class Stored:
    """A row of the index. `old` is what the digest of earlier versions takes of it, None if they had no such rows."""

    row: Row
    old: list[str | None] | None


@dataclass(frozen=True)
class Picture:
    """A picture of the index: its number and name, whether it is a file of its own, that file's stamp when it was read,
    and its sha256; both are empty for a file that was not read yet."""

    number: int
    name: str
    is_file: bool
    stamp: str
    sha256: str


@contextmanager
def damage_told(file: Path) -> Iterator[None]:
    """Raise UserError where SQLite cannot read an index."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise UserError(f"the index {file} cannot be read: {error}; remove it, and it is made again") from None


Stamps = tuple[tuple[str, int, int], ...]
"""Name, size and modification time of each file with rows."""


@dataclass(eq=False)
class Index:
    """An open index. `found` says which form the data set has, `reading` how its rows were read, `stamps` how its files
    were; `skipped` are the places and faults of the rows that were left out."""

    folder: Path
    file: Path
    found: Found
    reading: Reading
    stamps: Stamps
    skipped: list[tuple[str, str]]
    _connections: dict[tuple[int, int], sqlite3.Connection] = field(default_factory=dict)

    def ask(self, question: str, values: Sequence[object] = ()) -> list[Any]:
        """All rows of SQLite's answer."""
        return list(self.each(question, values))

    def each(self, question: str, values: Sequence[object] = ()) -> Iterator[Any]:
        """SQLite's answer row by row. Each thread of each process has a connection of its own."""
        key = os.getpid(), threading.get_ident()
        with damage_told(self.file):
            if key not in self._connections:
                self._connections[key] = sqlite3.connect(self.file, timeout=60, check_same_thread=False)
            yield from self._connections[key].execute(question, values)

    def note(self, question: str, values: Iterable[Sequence[object]]) -> None:
        """Write what was computed from the rows."""
        try:
            with closing(sqlite3.connect(self.file, timeout=60)) as database, database:
                database.executemany(question, values)
        except sqlite3.OperationalError as error:
            raise UserError(f"the cache {self.file.parent} cannot be written to: {error}; set LMMPRESS_CACHE") from None

    def splits(self) -> list[str]:
        """The names of the splits that have rows, sorted."""
        return [str(name) for (name,) in self.ask("SELECT DISTINCT split FROM rows ORDER BY split")]

    def tasks(self, split: str) -> list[str]:
        """The names of a split's tasks, sorted."""
        return [str(name) for (name,) in self.ask("SELECT DISTINCT task FROM rows WHERE split = ? ORDER BY 1", [split])]

    def ids(self, split: str, tasks: Sequence[str] = ()) -> Ids:
        """The rows of a split, or only those of some tasks."""
        found = self.each(f"SELECT id FROM rows WHERE split = ?{_of(tasks)} ORDER BY id", [split, *tasks])
        return np.fromiter((number for (number,) in found), np.int64)

    def first_pictures(self, split: str, tasks: Sequence[str] = ()) -> NDArray[np.int32]:
        """For each of `ids` of a split the number of its first picture, -1 if it has none."""
        question = (
            "SELECT ifnull(picture, -1) FROM rows LEFT JOIN shown ON shown.row = id AND place = 0 "
            f"WHERE split = ?{_of(tasks)} ORDER BY id"
        )
        return np.fromiter((number for (number,) in self.each(question, [split, *tasks])), np.int32)

    def task_numbers(self, split: str, tasks: Sequence[str] = ()) -> NDArray[np.int32]:
        """For each of `ids` of a split the place of its task in `tasks(split)`."""
        places = {name: place for place, name in enumerate(self.tasks(split))}
        found = self.each(f"SELECT task FROM rows WHERE split = ?{_of(tasks)} ORDER BY id", [split, *tasks])
        return np.fromiter((places[name] for (name,) in found), np.int32)

    def some_chat(self, ids: Ids) -> bool:
        """Whether some of these rows were written as messages."""
        for at in range(0, len(ids), _AT_ONCE):
            chosen = ids[at : at + _AT_ONCE].tolist()
            marks = ",".join("?" * len(chosen))
            if self.ask(f"SELECT 1 FROM rows WHERE id IN ({marks}) AND json_extract(row, '$.chat') LIMIT 1", chosen):
                return True
        return False

    def shown(self, ids: Ids) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """How many pictures each of these rows has, and the numbers of the pictures, row by row."""
        counts, pictures = np.zeros(len(ids), np.int32), array("i")
        for at in range(0, len(ids), _AT_ONCE):
            chosen = ids[at : at + _AT_ONCE]
            marks = ",".join("?" * len(chosen))
            found = self.ask(
                f"SELECT row, picture FROM shown WHERE row IN ({marks}) ORDER BY row, place", chosen.tolist()
            )
            if found:
                rows, numbers = np.array(found, np.int64).T
                order = np.argsort(chosen)
                places = order[np.searchsorted(chosen, rows, sorter=order)]
                counts[at : at + len(chosen)] = np.bincount(places, minlength=len(chosen))
                pictures.extend(numbers[np.argsort(places, kind="stable")].tolist())
        return counts, np.array(pictures, np.int32)

    def pictures(self, numbers: NDArray[np.int32]) -> Iterator[Picture]:
        """The pictures with these numbers, in their order; a part of them at a time is in memory."""
        for at in range(0, len(numbers), _AT_ONCE):
            chosen = numbers[at : at + _AT_ONCE].tolist()
            marks = ",".join("?" * len(chosen))
            found = self.ask(f"SELECT id, name, size < 0, stamp, sha256 FROM pictures WHERE id IN ({marks})", chosen)
            about = {number: Picture(number, name, bool(file), stamp, sha) for number, name, file, stamp, sha in found}
            yield from (about[number] for number in chosen)

    def has_files(self) -> bool:
        """Whether some pictures are files of their own."""
        return bool(self.ask("SELECT 1 FROM pictures WHERE size < 0 LIMIT 1"))

    def stored(self, ids: Ids) -> Iterator[Stored]:
        """The rows with these numbers, in their order; a part of them at a time is in memory."""
        for at in range(0, len(ids), _AT_ONCE):
            chosen = ids[at : at + _AT_ONCE].tolist()
            marks = ",".join("?" * len(chosen))
            rows = dict(self.each(f"SELECT id, row FROM rows WHERE id IN ({marks})", chosen))
            yield from (_parsed(rows[number]) for number in chosen)

    def close(self) -> None:
        """Close the connections; those that are needed are made again."""
        while self._connections:
            self._connections.popitem()[1].close()

    def changed_file(self) -> str | None:
        """A file with rows that is not as it was when the index was made; None if there is none."""
        now = _stamps(self.folder, self.found)
        return next((one[0] for one, before in zip(now, self.stamps, strict=True) if one != before), None)

    def where(self, name: str) -> Place:
        """Where the bytes of a picture are."""
        found = self.ask("SELECT path, offset, size FROM pictures WHERE name = ?", [name])
        return Place(*found[0]) if found else Place(name)

    def is_changed(self, name: str, raw: bytes) -> bool:
        """Whether these bytes of a picture are others than when its file was read."""
        known = self.ask("SELECT stamp, sha256 FROM pictures WHERE name = ? AND size < 0 AND stamp != ''", [name])
        return any(
            stamp_of(self.folder, name) != stamp and hashlib.sha256(raw).hexdigest() != sha for stamp, sha in known
        )

    def read_picture(self, name: str, limit: int) -> bytes:
        """The bytes of a picture. UserError, which names it, if it cannot be read or has more than `limit`."""
        place = self.where(name)
        if place.size < 0:
            return read_bytes(self.folder, place.path, limit)
        if not place.size:  # where no picture has a byte, nothing is beside the index
            return b""
        if not os.path.isabs(place.path):
            check_file(self.folder, place.path)
        with (self.folder / place.path).open("rb") as file:
            file.seek(place.offset)
            return file.read(place.size)


def open_index(folder: Path, reading: Reading) -> Index:
    """The index of the data set in a folder, made if there is none yet.

    Raises UserError for a folder of no known form, and for the first faulty row, or for too many of them.
    """
    found = recognise(shown(folder), partial(names_of, folder))
    bring(folder, found.files)
    return _opened(folder, found, _stamps(folder, found), reading.model_dump_json())


def paths_with_rows(folder: Path) -> list[Path]:
    """The files with the rows of a data set in a directory. UserError if it is of no known form."""
    return [folder / name for name in recognise(str(folder), partial(names_of, folder)).files]


def _stamps(folder: Path, found: Found) -> Stamps:
    stamps = []
    for name in found.files:
        try:
            name.encode("utf-8")
            check_file(folder, name)
        except UnicodeEncodeError:
            raise UserError(f"{shown(folder)}: the name {name!r} is not UTF-8; rename the file") from None
        except UserError as error:
            raise UserError(f"{shown(folder)}: {error}") from None
        status = os.stat(folder / name)
        stamps.append((name, status.st_size, status.st_mtime_ns))
    return tuple(stamps)


@lru_cache(maxsize=8)
def _opened(folder: Path, found: Found, stamps: Stamps, reading: str) -> Index:
    how = Reading.model_validate_json(reading)
    if found.others and how.errors != "list":
        say_once(
            f"{shown(folder)}: the rows are read from {found.files[0]}, as {found.container.name}; files of another "
            f"form ({', '.join(found.others)}) are there too, and are not read"
        )
    about = [_VERSION, home_of(folder), found.container.name, stamps, reading]
    file = _kept_in() / f"{hashlib.sha256(json.dumps(about).encode()).hexdigest()}.sqlite"
    index = Index(folder, file, found, how, stamps, [])
    if not file.exists() or not _is_whole(index) or _is_mended(index):
        index.close()
        make_index(folder, found, how, file)
        _remove_unused(file.parent)
    with suppress(OSError):
        os.utime(file)
    index.skipped += [(str(place), str(why)) for place, why in index.ask("SELECT place, why FROM skipped")]
    if index.skipped and how.errors == "skip":
        place, why = index.skipped[0]
        say_once(f"{shown(folder)}: {len(index.skipped):,} faulty rows are left out; the first is {place}: {why}")
    return index


def _is_whole(index: Index) -> bool:
    """Whether an index has its tables, and the pictures beside it are all there. A disk that was full, or a copy that
    was cut off, leaves others."""
    beside = index.file.with_suffix(".pictures")
    try:
        for table in ("rows", "shown", "skipped", "damaged", "looks", "digests"):
            index.ask(f"SELECT 1 FROM {table} LIMIT 1")
        ((end,),) = index.ask("SELECT max(offset + size) FROM pictures WHERE path = ?", [str(beside)])
    except UserError:
        return False
    return (end or 0) <= (beside.stat().st_size if beside.exists() else 0)


def _is_mended(index: Index) -> bool:
    """Whether a picture file has changed for which rows were left out. A bucket's list names the index."""
    if shown(index.folder) != str(index.folder):
        return False
    return any(stamp_of(index.folder, name) != stamp for name, stamp in index.ask("SELECT name, stamp FROM damaged"))


def _kept_in() -> Path:
    """The folder of indexes, which others cannot change; one of this process' own if the cache cannot be written to."""
    kept = cache_folder() / "rows"
    with suppress(OSError):
        kept.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.access(kept, os.W_OK):
            return kept
    return _of_this_process()


@lru_cache(maxsize=1)
def _of_this_process() -> Path:
    return Path(tempfile.mkdtemp(prefix="lmmpress-rows-"))


def _remove_unused(kept: Path) -> None:
    oldest = time.time() - _UNUSED
    for file in kept.glob("*.sqlite"):
        with suppress(OSError):
            if file.stat().st_mtime < oldest:
                file.unlink()
                file.with_suffix(".pictures").unlink(missing_ok=True)


def _of(tasks: Sequence[str]) -> str:
    """The condition that a row is of one of these tasks; none for no tasks."""
    return f" AND task IN ({','.join('?' * len(tasks))})" if tasks else ""


def _parsed(text: str) -> Stored:
    raw = json.loads(text)
    old = raw.pop("old", None)
    raw["before"] = tuple(Turn(*turn) for turn in raw.get("before", ()))
    for name in ("pictures", "others"):
        raw[name] = tuple(raw.get(name, ()))
    return Stored(Row(**raw), old)
