"""Divides rows by shares, in a seeded order, so that no picture is in two of the parts.

Rows without a split are divided so when a data set's index is made. A training split is divided so if the data has no
split for the gate: its parts are called `train[score]`, `train[distill]`, `train[gate]` and, if there is no test split
either, `train[test]`.
"""

import hashlib
import re
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lmmpress.settings.reading import Reading, Shares

UNNAMED = ""
ROLES = ("score", "distill", "gate", "test")
GATES = ("validation", "val", "valid", "dev")

_PART = re.compile(rf"(?P<split>.+)\[(?P<role>{'|'.join(ROLES)})\]", re.DOTALL)

Ask = Callable[[str, Sequence[object]], Iterable[Any]]
"""Answers a question of SQL with its values."""


def unsplit(database: sqlite3.Connection) -> bool:
    """Whether an index has rows without a split."""
    return bool(database.execute("SELECT 1 FROM rows WHERE split = ? LIMIT 1", [UNNAMED]).fetchone())


def divide(database: sqlite3.Connection, reading: Reading) -> None:
    """Give the rows without a split one of the four splits of a run."""
    for role, rows in parts(database.execute, UNNAMED, reading, ROLES).items():
        database.executemany("UPDATE rows SET split = ? WHERE id = ?", ((role, row) for row in rows))


def part_of(name: str) -> tuple[str, str] | None:
    """The split and the role that the name of a part is made of; None if it is no such name."""
    found = _PART.fullmatch(name)
    return (found["split"], found["role"]) if found else None


def roles_in(splits: Sequence[str]) -> tuple[str, ...]:
    """The roles among which a split is divided: those that have no split of their own."""
    return tuple(role for role in ROLES if role not in splits)


def parts(ask: Ask, split: str, reading: Reading, roles: Sequence[str]) -> dict[str, list[int]]:
    """The rows of each part of a split, in their order; the digests of its pictures are known."""
    groups = _groups(ask, split)
    order = sorted(groups, key=lambda name: hashlib.sha256(f"{reading.seed} {name}".encode()).digest())
    found = _cut([len(groups[name]) for name in order], _shares(reading.shares, roles))
    return {
        role: sorted(row for name in order[begun:end] for row in groups[name])
        for role, (begun, end) in zip(roles, found, strict=True)
    }


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


def _groups(ask: Ask, split: str) -> dict[str, list[int]]:
    """The rows of a split in groups that have no picture in common, each named by its content: that of a picture, or
    the texts of its row."""
    contents: dict[int, list[str]] = {}
    question = (
        "SELECT shown.row, sha256 FROM shown JOIN rows ON rows.id = shown.row JOIN pictures ON pictures.id = picture "
        "WHERE split = ? ORDER BY shown.row, place"
    )
    for row, content in ask(question, [split]):
        contents.setdefault(row, []).append(content)
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = name = parent[parent[name]]
        return name

    for first, *others in contents.values():
        for other in others:
            one, two = sorted((root(first), root(other)))
            parent[two] = one
    groups: dict[str, list[int]] = {}
    for row, question, answer in ask("SELECT id, question, answer FROM rows WHERE split = ? ORDER BY id", [split]):
        name = (
            root(contents[row][0]) if row in contents else hashlib.sha256(f"{question}\n{answer}".encode()).hexdigest()
        )
        groups.setdefault(name, []).append(row)
    return groups
