"""Looks at every picture of a data set's rows, and notes what it finds in the index: format, size, or what is wrong."""

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lmmpress.data.address import bring
from lmmpress.data.index import Index
from lmmpress.data.picture_files import UPDATE, stamp_of
from lmmpress.data.pictures import MOST_BYTES, is_plain, look
from lmmpress.data.workers import by_workers
from lmmpress.errors import UserError
from lmmpress.progress import track

_AT_ONCE = 1000
_HELD = "held"  # the stamp of a picture that is inside of a container: it changes with the index only
_WANTED = "SELECT DISTINCT picture FROM shown JOIN good ON good.id = shown.row"

Unknown = tuple[int, str, int, str | None]
"""Number, name and size of a picture, and the stamp of the last look at it, if there was one."""


@dataclass(frozen=True)
class _Found:
    """What there is to know of a picture; without `sha256` it could not be read."""

    number: int
    name: str
    stamp: str
    sha256: str = ""
    plain: bool = False
    format: str = ""
    sides: tuple[int, int] = (0, 0)
    fault: str = ""


def look_at_pictures(index: Index, database: sqlite3.Connection) -> None:
    """Decode the pictures of the rows in the table `good`, by threads; not those that were decoded before, and are
    still the same files."""
    (count,) = database.execute(f"SELECT count(*) FROM ({_WANTED})").fetchone()
    found: list[_Found] = []
    looks = by_workers(lambda one: _look(index, *one), _pictures(index, database))
    for number, one in enumerate(track(looks, "look at pictures", count), start=1):
        if one is not None:
            found.append(one)
        if len(found) == _AT_ONCE or number == count:
            _note(database, found)
            found.clear()


def _pictures(index: Index, database: sqlite3.Connection) -> Iterator[Unknown]:
    last = -1
    question = (
        "SELECT pictures.id, name, size, looks.stamp FROM pictures LEFT JOIN looks ON looks.id = pictures.id "
        f"WHERE pictures.id > ? AND pictures.id IN ({_WANTED}) ORDER BY pictures.id LIMIT ?"
    )
    while part := database.execute(question, [last, _AT_ONCE]).fetchall():
        last = part[-1][0]
        bring(index.folder, [name for _, name, size, _ in part if size < 0])
        yield from part


def _look(index: Index, number: int, name: str, size: int, known: str | None) -> _Found | None:
    """What a picture is; None if that is known."""
    stamp = stamp_of(index.folder, name) if size < 0 else _HELD
    if stamp and stamp == known:
        return None
    try:
        raw = index.read_picture(name, MOST_BYTES)
    except UserError as error:
        return _Found(number, name, stamp="", fault=f"image {error}")
    sha256, plain = hashlib.sha256(raw).hexdigest(), is_plain(raw)
    try:
        seen = look(raw)
    except UserError as error:
        return _Found(number, name, stamp, sha256, plain, fault=f"image {name!r} cannot be read: {error}")
    return _Found(number, name, stamp, sha256, plain, seen.format, (seen.width, seen.height))


def _note(database: sqlite3.Connection, found: Sequence[_Found]) -> None:
    files = [(one.stamp, one.sha256, one.plain, one.name) for one in found if one.sha256 and one.stamp != _HELD]
    seen = [(one.number, one.stamp, one.format, *one.sides, one.fault) for one in found]
    with database:
        database.executemany(UPDATE, files)
        database.executemany("INSERT OR REPLACE INTO looks VALUES (?, ?, ?, ?, ?, ?)", seen)
