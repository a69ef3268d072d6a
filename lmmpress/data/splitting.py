"""Divides rows by shares, in a seeded order, so that no picture is in two of the parts.

Rows without a split are divided so when a data set's index is made. A training split is divided so if the data has no
split for the gate: its parts are called `train[score]`, `train[distill]`, `train[gate]` and, if there is no test split
either, `train[test]`.
"""

import hashlib
import re
import sqlite3
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmpress.settings.reading import Reading, Shares

UNNAMED = ""
ROLES = ("score", "distill", "gate", "test")
GATES = ("validation", "val", "valid", "dev")

_PART = re.compile(rf"(?P<split>.+)\[(?P<role>{'|'.join(ROLES)})\]", re.DOTALL)

_WIDTH = 16  # bytes of a group's key
_AT_ONCE = 100_000

Keys = NDArray[np.bytes_]

Ask = Callable[[str, Sequence[object]], Iterable[Any]]
"""Answers a question of SQL with its values."""


def unsplit(database: sqlite3.Connection) -> bool:
    """Whether an index has rows without a split."""
    return bool(database.execute("SELECT 1 FROM rows WHERE split = ? LIMIT 1", [UNNAMED]).fetchone())


def divide(database: sqlite3.Connection, reading: Reading) -> None:
    """Give the rows without a split one of the four splits of a run."""
    for role, rows in parts(database.execute, UNNAMED, reading, ROLES).items():
        database.executemany("UPDATE rows SET split = ? WHERE id = ?", ((role, int(row)) for row in rows))


def part_of(name: str) -> tuple[str, str] | None:
    """The split and the role that the name of a part is made of; None if it is no such name."""
    found = _PART.fullmatch(name)
    return (found["split"], found["role"]) if found else None


def roles_in(splits: Sequence[str]) -> tuple[str, ...]:
    """The roles among which a split is divided: those that have no split of their own."""
    return tuple(role for role in ROLES if role not in splits)


def parts(ask: Ask, split: str, reading: Reading, roles: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """The rows of each part of a split, in their order; the digests of its pictures are known."""
    ids, keys = _groups(ask, split, reading.seed)
    order = np.argsort(keys, kind="stable")
    begins = np.flatnonzero(_is_new(keys, order))
    del keys
    found = _cut(np.diff(begins, append=len(ids)).tolist(), _shares(reading.shares, roles))
    ends = np.append(begins, len(ids))
    return {role: np.sort(ids[order[ends[begun] : ends[end]]]) for role, (begun, end) in zip(roles, found, strict=True)}


def _is_new(keys: Keys, order: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which keys, in this order, are not the same as the one before."""
    new = np.ones(len(order), bool)
    for at in range(1, len(order), _AT_ONCE):
        some = order[at - 1 : at + _AT_ONCE]
        new[at : at + _AT_ONCE] = keys[some[1:]] != keys[some[:-1]]
    return new


def _shares(shares: Shares, roles: Sequence[str]) -> list[float]:
    wanted = [float(getattr(shares, role)) for role in roles]
    return [share / sum(wanted) for share in wanted]


def _cut(sizes: Sequence[int], shares: Sequence[float]) -> list[tuple[int, int]]:
    """The begin and end of consecutive parts of groups, whose sizes are nearest to the shares; each part has a group as
    long as there are enough."""
    total, wanted, taken, at = sum(sizes), 0.0, 0, 0
    found = []
    for number, share in enumerate(shares):
        wanted += share * total
        after = len(shares) - number - 1  # parts that still have to get a group
        begun = at
        while at < len(sizes) - after:
            if after and at > begun and abs(taken + sizes[at] - wanted) > abs(taken - wanted):
                break
            taken += sizes[at]
            at += 1
        found.append((begun, at))
    return found


def _groups(ask: Ask, split: str, seed: int) -> tuple[NDArray[np.int64], Keys]:
    """The rows of a split, and the key of each row's group [rows]. Groups have no picture in common, and are known by
    their content: the smallest sha256 of their pictures, or of the texts of a row."""
    ids = np.fromiter((row for (row,) in ask("SELECT id FROM rows WHERE split = ? ORDER BY id", [split])), np.int64)
    contents = _first_contents(ask, split, ids)
    if len(contents) and contents.max() >= 0:
        every = ask("SELECT DISTINCT sha256 FROM pictures ORDER BY sha256", [])
        keys = _keys((sha256 for (sha256,) in every), seed).take(contents, mode="clip")
    else:
        keys = np.empty(len(ids), f"S{_WIDTH}")
    texts = ask("SELECT question, answer FROM rows WHERE split = ? ORDER BY id", [split])
    without = (
        hashlib.sha256(f"{question}\n{answer}".encode()).hexdigest()
        for (question, answer), content in zip(texts, contents, strict=True)
        if content < 0
    )
    keys[contents < 0] = _keys(without, seed)
    return ids, keys


def _keys(names: Iterable[str], seed: int) -> Keys:
    """What decides the order of groups with these names: the begin of a digest."""
    digests = bytearray()
    for name in names:
        digests += hashlib.sha256(f"{seed} {name}".encode()).digest()[:_WIDTH]
    return np.frombuffer(digests, f"S{_WIDTH}") if digests else np.empty(0, f"S{_WIDTH}")


def _content_of_pictures(ask: Ask) -> NDArray[np.int32]:
    """By the number of a picture: the place of its sha256 among all of them in alphabetical order."""
    ((most,),) = ask("SELECT ifnull(max(id), 0) FROM pictures", [])
    places, place, last = np.zeros(most + 1, np.int32), -1, None
    for sha256, number in ask("SELECT sha256, id FROM pictures ORDER BY sha256", []):
        if sha256 != last:
            place, last = place + 1, sha256
        places[number] = place
    return places


def _first_contents(ask: Ask, split: str, ids: NDArray[np.int64]) -> NDArray[np.int32]:
    """For each row the place of its group's first content among those in alphabetical order, -1 for rows without a
    picture."""
    question = (
        "SELECT shown.row, picture FROM shown JOIN rows ON rows.id = shown.row WHERE split = ? "
        "ORDER BY shown.row, place"
    )
    rows, firsts = array("q", [-1]), array("i", [0])
    ones, others = array("i"), array("i")  # pairs: the first picture of a row, and a further one
    for row, picture in ask(question, [split]):
        if row != rows[-1]:
            rows.append(row)
            firsts.append(picture)
        elif picture != firsts[-1]:
            ones.append(firsts[-1])
            others.append(picture)
    found = np.full(len(ids), -1, np.int32)
    if len(rows) > 1:
        content = _content_of_pictures(ask)
        of_row = content[np.frombuffer(firsts, np.int32)[1:]]
        if ones:
            of_row = _joined(content[np.array(ones)], content[np.array(others)], len(content))[of_row]
        del content, firsts
        found[np.searchsorted(ids, np.frombuffer(rows, np.int64)[1:])] = of_row
    return found


def _joined(ones: NDArray[np.int32], others: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    """For each number below `count` the smallest one that it is joined to, directly or through others, by pairs."""
    parent = array("i", range(count))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = number = parent[parent[number]]
        return number

    for one, other in zip(ones, others, strict=True):
        first, second = sorted((root(int(one)), root(int(other))))
        parent[second] = first
    roots = np.array(parent, np.int32)
    while (roots[roots] != roots).any():
        roots = roots[roots]
    return roots
