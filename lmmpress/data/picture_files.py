"""Keeps the digests of a data set's picture files in its index: each file is read once, and again if it has changed."""

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmmpress.data.address import bring, shown
from lmmpress.data.pictures import MOST_BYTES, is_plain
from lmmpress.data.workers import by_workers
from lmmpress.errors import UserError
from lmmpress.files.bounded import read_bytes
from lmmpress.progress import counter

_AT_ONCE = 1000
_WORTH_SHOWING = 5000  # pictures


def read_files(folder: Path, database: sqlite3.Connection) -> None:
    """Read every picture file that an index names, and note its digest.

    Raises UserError for a picture that cannot be read; its name begins the message.
    """
    last, question = -1, "SELECT id, name FROM pictures WHERE size < 0 AND id > ? ORDER BY id LIMIT ?"
    while files := database.execute(question, [last, _AT_ONCE]).fetchall():
        last, part = files[-1][0], [str(name) for _, name in files]
        bring(folder, part)
        found = by_workers(partial(read_file, folder), part)
        values = [(*one, name) for name, one in zip(part, found, strict=True)]
        database.executemany(UPDATE, values)


UPDATE = "UPDATE pictures SET stamp = ?, sha256 = ?, plain = ? WHERE name = ?"


def read_file(folder: Path, name: str) -> tuple[str, str, bool]:
    """The stamp of a picture file, its sha256, and whether it is plain (see `lmmpress.data.pictures.is_plain`)."""
    stamp = stamp_of(folder, name)
    try:
        raw = read_bytes(folder, name, MOST_BYTES)
    except UserError as error:
        raise UserError(f"{shown(folder)}: image {error}") from None
    return stamp, hashlib.sha256(raw).hexdigest(), is_plain(raw)


def stamp_of(folder: Path, name: str) -> str:
    """Size and modification time of a picture file; empty if there is none."""
    try:
        status = os.stat(folder / name)
    except OSError:
        return ""
    return f"{status.st_size}:{status.st_mtime_ns}"


def in_parts(numbers: NDArray[np.int32]) -> Iterator[NDArray[np.int32]]:
    """The numbers of pictures that are read in parts, with progress if there are many."""
    if len(numbers) < _WORTH_SHOWING:
        yield numbers
        return
    with counter("read pictures", len(numbers)) as advance:
        for at in range(0, len(numbers), _AT_ONCE):
            part = numbers[at : at + _AT_ONCE]
            yield part
            advance(len(part))
