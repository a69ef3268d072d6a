"""The digest of a split's rows: of the content of their texts and pictures, in their order.

It is the same in whatever form, folder and files the rows are. It names results in stores, so it never changes for the
same rows. Runs that were begun before it existed go on with the digest of then.
"""

import hashlib
import json
import posixpath
from collections.abc import Callable, Iterable, Iterator
from itertools import compress

import numpy as np

from lmmpress.data.index import Stored
from lmmpress.data.row import Row

_VERSION = "rows 2"  # raised when the same bytes give other texts or pixels
_PIXELS_VERSION = 2  # version of the decoding of pictures that are not plain, in the old digest
_WIDTH = 16  # bytes of a name's digest


def digest_of_rows(rows: Iterable[Row], sha256: Callable[[str], str]) -> str:
    """The digest of rows; `sha256` gives that of a picture's bytes by its name."""
    sha = hashlib.sha256(_VERSION.encode())
    for row in rows:
        before = [[turn.question, turn.answer] for turn in row.before]
        pictures = [sha256(name) for name in row.pictures]
        told = [row.question, row.answer, row.others, row.task, row.system, before, pictures]
        sha.update(json.dumps(told).encode() + b"\n")
    return sha.hexdigest()


def old_digest_of_rows(rows: Callable[[], Iterable[Stored]], picture: Callable[[str], tuple[str, bool]]) -> str | None:
    """The digest that versions before gave these rows: also of the names of picture files. `rows` gives the rows, once
    more where they name pictures. `picture` gives a picture's sha256, and whether it is plain. None if those versions
    had no such rows.

    They once decoded pictures that are not plain (turned by EXIF, transparent, of more than 8 bits) to other pixels.
    If there are such pictures, the digest includes the version of the decoding.
    """
    sha, of_names = hashlib.sha256(), bytearray()
    for stored in rows():
        if stored.old is None:
            return None
        sha.update(json.dumps(stored.old).encode())
        if stored.old[0] is not None:
            of_names += hashlib.sha256(stored.old[0].encode()).digest()[:_WIDTH]
    plain = True
    for name in _distinct(rows, of_names):
        sha256, is_plain = picture(posixpath.normpath(name))
        sha.update(bytes.fromhex(sha256))
        plain = plain and is_plain
    if not plain:
        sha.update(f"pixels {_PIXELS_VERSION}".encode())
    return sha.hexdigest()


def _distinct(rows: Callable[[], Iterable[Stored]], of_names: bytearray) -> Iterator[str]:
    """The distinct names of rows' pictures as the data spells them, in order of first use, by the names' digests."""
    if not of_names:
        return
    _, firsts = np.unique(np.frombuffer(of_names, f"S{_WIDTH}"), return_index=True)
    is_first = np.zeros(len(of_names) // _WIDTH, bool)
    is_first[firsts] = True
    names = (stored.old[0] for stored in rows() if stored.old and stored.old[0] is not None)
    yield from compress(names, is_first)
