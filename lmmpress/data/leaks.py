"""Checks that accuracy is not measured on data that was trained on."""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import compress, islice
from typing import Any, TypeVar

import numpy as np

from lmmpress.data.row import Row
from lmmpress.data.rows import Split
from lmmpress.errors import UserError

Item = TypeVar("Item")
Digests = np.ndarray[Any, np.dtype[np.bytes_]]
"""Digests in alphabetical order: of so many rows that Python's own objects would take much memory."""

_TYPE = f"S{hashlib.sha256().digest_size}"
_AT_ONCE = 1000


def check_leak(learned: Split, measured: Split) -> str | None:
    """Raise UserError if an image of the measured split is also in the training split `learned`: with the same name,
    however it is spelled, or with the same bytes.

    Text-only rows in both splits are no error, since short questions repeat. They are counted: returns a warning with
    the count, or None if there are none.
    """
    contents = _sorted(bytes.fromhex(sha256) for _, sha256 in learned.pictures.items())
    pictures = ((one, bytes.fromhex(one[1])) for one in measured.pictures.items())
    for name, content in _known(pictures, contents):
        *_, other = (other for other, sha256 in learned.pictures.items() if sha256 == content)
        also = "" if other == name else f" (under the name {other}: the files have the same bytes)"
        raise UserError(
            f"{measured.folder}: image {name} is in the {measured.name} and in the {learned.name} split{also}; "
            "remove it from one of them: accuracy must not be measured on training data"
        )
    texts = _sorted(_digest(row) for row in _without_picture(learned))
    repeated, place = 0, ""
    for row in _known(((row, _digest(row)) for row in _without_picture(measured)), texts):
        repeated, place = repeated + 1, place or row.place
    if not repeated:
        return None
    return (
        f"{measured.folder}: {repeated:,} of the {len(measured.rows):,} rows of the {measured.name} split have "
        f"the same question and answer as a row of the {learned.name} split, for instance {place}: "
        "accuracy on them says little"
    )


def _without_picture(split: Split) -> Iterator[Row]:
    if not split.images.counts.all():
        yield from (row for row in split.rows if not row.pictures)


def _digest(row: Row) -> bytes:
    return hashlib.sha256(f"{len(row.question)} {row.question}{row.answer}".encode("utf-8", "surrogatepass")).digest()


def _sorted(digests: Iterable[bytes]) -> Digests:
    held = bytearray()
    for digest in digests:
        held += digest
    found = np.frombuffer(held, _TYPE) if held else np.empty(0, _TYPE)
    found.sort()
    return found


def _known(items: Iterator[tuple[Item, bytes]], known: Digests) -> Iterator[Item]:
    """Of items, each with its digest, those whose digest is known."""
    while len(known) and (some := list(islice(items, _AT_ONCE))):
        digests = np.array([digest for _, digest in some], _TYPE)
        places = np.minimum(np.searchsorted(known, digests), len(known) - 1)
        yield from compress((item for item, _ in some), known[places] == digests)
