"""Makes the index of a data set: reads its records as a stream, checks each row, divides rows that have no split.

Pictures inside of Parquet files and such are copied beside the index, each content once; the others stay where they
are.
"""

import hashlib
import json
import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from lmmpress.data.address import bring, shown
from lmmpress.data.containers.container import Held, Record
from lmmpress.data.containers.recognise import Found
from lmmpress.data.picture_files import read_files, stamp_of
from lmmpress.data.pictures import MOST_BYTES, picture_of
from lmmpress.data.row import Row
from lmmpress.data.shapes import Read, row_of
from lmmpress.data.splitting import divide, unsplit
from lmmpress.errors import UserError
from lmmpress.files.bounded import read_bytes
from lmmpress.progress import doing
from lmmpress.settings.reading import Reading

_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE rows (
    id INTEGER PRIMARY KEY, split TEXT NOT NULL, task TEXT NOT NULL, question TEXT NOT NULL, answer TEXT NOT NULL,
    row TEXT NOT NULL);
CREATE TABLE pictures (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, path TEXT NOT NULL, offset INTEGER NOT NULL,
    size INTEGER NOT NULL, stamp TEXT NOT NULL, sha256 TEXT NOT NULL, plain INTEGER NOT NULL);
CREATE TABLE shown (row INTEGER NOT NULL, place INTEGER NOT NULL, picture INTEGER NOT NULL, PRIMARY KEY (row, place))
    WITHOUT ROWID;
CREATE TABLE skipped (place TEXT NOT NULL, why TEXT NOT NULL);
CREATE TABLE damaged (name TEXT PRIMARY KEY, stamp TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE looks (
    id INTEGER PRIMARY KEY, stamp TEXT NOT NULL, format TEXT NOT NULL, width INTEGER NOT NULL,
    height INTEGER NOT NULL, fault TEXT NOT NULL);
CREATE TABLE digests (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX by_content ON pictures (sha256);
"""
_KEYS = """
CREATE INDEX by_split ON rows (split, task);
CREATE INDEX by_picture ON shown (picture);
"""
_SHOWN = 3
_AT_ONCE = 1000
_NEEDED = ("question", "answer", "task")
_ENCODER = json.JSONEncoder(ensure_ascii=False)


def make_index(folder: Path, found: Found, reading: Reading, file: Path) -> None:
    """Read a data set into the new index `file`, which is there when it is whole.

    Raises UserError for the first faulty row, or, if faulty rows are skipped, for too many of them.
    """
    with tempfile.TemporaryDirectory(dir=file.parent) as aside:
        new, beside = Path(aside, "index"), Path(aside, "pictures")
        with closing(sqlite3.connect(new)) as database, beside.open("wb") as held:
            database.executescript(_TABLES)
            writer = _Writer(database, held, str(file.with_suffix(".pictures")), folder, reading)
            with doing(f"reading the rows of {shown(folder)}") as say:
                for record in found.container.records(folder, found.files):
                    writer.take(record)
                    if writer.count % 10_000 == 0:
                        say(f"reading the rows of {shown(folder)}: {writer.count:,}")
            writer.end()
            database.commit()
            database.executescript(_KEYS)
            if unsplit(database) and reading.errors != "list":
                # rows about one picture stay together, also where it is there twice under different names
                read_files(folder, database)
                divide(database, reading)
            database.commit()
        if beside.stat().st_size:
            os.replace(beside, file.with_suffix(".pictures"))
        os.replace(new, file)


class _Writer:
    """Writes rows and pictures to a new index; `count` is the number of records that it was given."""

    def __init__(
        self, database: sqlite3.Connection, held: BinaryIO, held_path: str, folder: Path, reading: Reading
    ) -> None:
        self.count = 0
        self._database, self._held, self._held_path = database, held, held_path
        self._folder, self._reading = folder, reading
        self._skipped: list[tuple[str, str]] = []
        self._damaged: dict[str, str] = {}  # picture files that rows were skipped for, with their stamps
        self._number = 0
        self._rows: list[tuple[int, str, str, str, str, str]] = []
        self._shown: list[tuple[int, int, int]] = []

    def take(self, record: Record) -> None:
        """Check a record and write its row."""
        self.count += 1
        try:
            read = row_of(record, self._reading)
            if self._reading.errors == "skip":
                self._check_pictures(read)
            self._write(read)
        except UserError as error:
            if self._reading.errors == "fail":
                raise UserError(f"{shown(self._folder)}/{error}") from None
            self._skipped.append((record.place, str(error).removeprefix(f"{record.place}: ")))

    def end(self) -> None:
        """Write what is left. Raises UserError if more rows were skipped than is allowed."""
        self._flush()
        too_many = len(self._skipped) > self._reading.skipped_at_most * self.count
        if self._reading.errors == "skip" and too_many:
            named = "; ".join(f"{place}: {why}" for place, why in self._skipped[:_SHOWN])
            raise UserError(
                f"{shown(self._folder)}: {len(self._skipped):,} of {self.count:,} rows are faulty, more than "
                f"skipped_at_most {self._reading.skipped_at_most:g} allows: {named}"
            )
        self._database.executemany("INSERT INTO skipped VALUES (?, ?)", self._skipped)
        self._database.executemany("INSERT INTO damaged VALUES (?, ?)", self._damaged.items())

    def _check_pictures(self, read: Read) -> None:
        """Raise UserError unless every picture of a row is there and can be decoded."""
        for picture in read.pictures:
            name = picture if isinstance(picture, str) else picture.name
            try:
                if isinstance(picture, str):
                    bring(self._folder, [picture])
                    raw = read_bytes(self._folder, picture, MOST_BYTES)
                else:
                    raw = self._raw(picture)
                picture_of(raw)
            except UserError as error:
                if isinstance(picture, str):
                    self._damaged[picture] = stamp_of(self._folder, picture)
                raise UserError(f"{read.row.place}: image {name!r}: {error}") from None

    def _write(self, read: Read) -> None:
        pictures = [self._picture(picture, read.row.place) for picture in read.pictures]
        row = read.row
        written = _as_json(read, tuple(name for name, _ in pictures))
        self._number += 1
        self._rows.append((self._number, read.split, row.task, row.question, row.answer, written))
        self._shown += ((self._number, place, number) for place, (_, number) in enumerate(pictures))
        if len(self._rows) >= _AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        self._database.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?)", self._rows)
        self._database.executemany("INSERT INTO shown VALUES (?, ?, ?)", self._shown)
        self._rows.clear()
        self._shown.clear()

    def _picture(self, picture: str | Held, place: str) -> tuple[str, int]:
        """The name of a picture and its number; a content that is held twice has one name."""
        if isinstance(picture, str):
            return picture, self._insert(picture, picture, 0, -1, "")
        raw = self._raw(picture)
        if len(raw) > MOST_BYTES:
            raise UserError(f"{place}: {picture.name} has {len(raw):,} bytes, more than {MOST_BYTES:,}")
        sha256 = hashlib.sha256(raw).hexdigest()
        known = self._database.execute("SELECT name, id FROM pictures WHERE sha256 = ?", [sha256]).fetchone()
        if known:
            return str(known[0]), int(known[1])
        if picture.raw is None:
            return picture.name, self._insert(picture.name, picture.path, picture.offset, picture.size, sha256)
        at = self._held.tell()
        self._held.write(raw)
        return picture.name, self._insert(picture.name, self._held_path, at, len(raw), sha256)

    def _raw(self, picture: Held) -> bytes:
        """The bytes of a picture that a container holds."""
        if picture.raw is not None:
            return picture.raw
        with (self._folder / picture.path).open("rb") as file:
            file.seek(picture.offset)
            return file.read(picture.size)

    def _insert(self, name: str, path: str, offset: int, size: int, sha256: str) -> int:
        added = self._database.execute(
            "INSERT OR IGNORE INTO pictures (name, path, offset, size, stamp, sha256, plain) "
            "VALUES (?, ?, ?, ?, '', ?, 0)",
            (name, path, offset, size, sha256),
        )
        if added.rowcount:
            return int(added.lastrowid or 0)
        number, *there = self._database.execute(
            "SELECT id, path, offset, size FROM pictures WHERE name = ?", [name]
        ).fetchone()
        if there != [path, offset, size]:
            raise UserError(f"{name}: two pictures have this name; rename one")
        return int(number)


def _as_json(read: Read, names: tuple[str, ...]) -> str:
    """A row as JSON, without what is empty."""
    row: Row = read.row
    values = {
        "question": row.question,
        "answer": row.answer,
        "task": row.task,
        "place": row.place,
        "line": row.line,
        "pictures": names,
        "before": [[turn.question, turn.answer] for turn in row.before],
        "system": row.system,
        "others": row.others,
        "chat": row.chat,
        "old": read.old,
    }
    return _ENCODER.encode({name: value for name, value in values.items() if value or name in _NEEDED})
