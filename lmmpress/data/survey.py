"""Looks at a data set as a whole: every row and every picture is judged, whatever is wrong with others."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmmpress.data.address import shown
from lmmpress.data.index import Ids, Index, damage_told, open_index
from lmmpress.data.picture_looks import look_at_pictures
from lmmpress.data.row import Row
from lmmpress.data.splitting import ROLES, UNNAMED, parts
from lmmpress.errors import UserError
from lmmpress.settings.faults import nearest
from lmmpress.settings.reading import Reading

# The connection's own tables: `good` has the rows without a fault, with their splits, `faults` the others. The view
# `rows` hides the index's table of this name, so whatever is asked of the connection is about good rows.
_TABLES = """
CREATE TEMP TABLE good (id INTEGER PRIMARY KEY, split TEXT NOT NULL);
CREATE TEMP TABLE faults (row INTEGER PRIMARY KEY, why TEXT NOT NULL);
CREATE TEMP VIEW rows AS SELECT good.id, good.split, task, question, answer, row
    FROM good JOIN main.rows AS every ON every.id = good.id;
"""
_DAMAGED = """
INSERT INTO faults SELECT row, fault FROM (
    SELECT shown.row AS row, fault, min(place) FROM shown JOIN good ON good.id = shown.row
    JOIN looks ON looks.id = shown.picture WHERE fault != '' GROUP BY shown.row)
"""
_ODD = """
WITH kinds AS (SELECT id, split, EXISTS (SELECT 1 FROM shown WHERE shown.row = id) AS pictured FROM good),
counts AS (SELECT split, sum(pictured) AS seeing, count(*) - sum(pictured) AS blind FROM kinds GROUP BY split)
INSERT INTO faults SELECT id, CASE WHEN pictured THEN 'the row has an image, most rows of its split have none'
    ELSE 'the row has no image, other rows of its split have one' END || '; give a split one kind'
FROM kinds JOIN counts USING (split) WHERE seeing > 0 AND blind > 0 AND pictured = (seeing < blind)
"""


@dataclass(frozen=True)
class Fault:
    """What is wrong with a row, and where the row was read."""

    place: str
    why: str


class Survey:
    """The rows of a data set that have no fault, and the faults of the others.

    It has the rows of some splits, or of all. `divided` is the number of good rows that the data gives no split.
    """

    def __init__(self, index: Index, database: sqlite3.Connection, splits: Sequence[str]) -> None:
        self.index, self.splits, self.divided = index, tuple(splits), 0
        self._database = database
        database.executescript(_TABLES)
        known = [str(name) for (name,) in database.execute("SELECT DISTINCT split FROM main.rows")]
        named = sorted({*known, *ROLES} - {UNNAMED} if UNNAMED in known else known)
        for split in splits:
            if split not in named:
                raise UserError(f"{shown(index.folder)}: there is no split {split!r}; {nearest(split, named)}")
        chosen = [*splits, UNNAMED] if splits else known
        marks = ",".join("?" * len(chosen))
        database.execute(f"INSERT INTO good SELECT id, split FROM main.rows WHERE split IN ({marks})", chosen)
        database.commit()

    def ask(self, question: str, values: Sequence[object] = ()) -> list[Any]:
        """All of SQLite's answer; the table `rows` has the good rows."""
        return list(self.each(question, values))

    def each(self, question: str, values: Sequence[object] = ()) -> Iterator[Any]:
        """SQLite's answer piece by piece; the table `rows` has the good rows."""
        yield from self._database.execute(question, values)

    def ids(self) -> Ids:
        """The good rows."""
        return np.fromiter((number for (number,) in self.each("SELECT id FROM good ORDER BY id")), np.int64)

    def rows(self) -> Iterator[tuple[str, Row]]:
        """The good rows, each with its split, in the data's order."""
        splits = self.each("SELECT split FROM good ORDER BY id")
        for (split,), stored in zip(splits, self.index.stored(self.ids()), strict=True):
            yield str(split), stored.row

    def refuse(self, faults: Iterable[tuple[int, str]]) -> None:
        """Note what is wrong with rows, which are no longer good."""
        self._database.executemany("INSERT OR IGNORE INTO faults VALUES (?, ?)", faults)
        self._remove()

    def judge(self) -> None:
        """Look at the pictures, and refuse rows that are not of their split's kind."""
        look_at_pictures(self.index, self._database)
        for question in (_DAMAGED, _ODD):
            self._database.execute(question)
            self._remove()

    def divide(self) -> None:
        """Divide the good rows that the data gives no split, as they would be divided alone."""
        ((self.divided,),) = self.ask("SELECT count(*) FROM good WHERE split = ?", [UNNAMED])
        if not self.divided:
            return
        found = parts(self.each, UNNAMED, self.index.reading, ROLES)
        for role, ids in found.items():
            values = ((role, int(number)) for number in ids)
            self._database.executemany("UPDATE good SET split = ? WHERE id = ?", values)
        if self.splits:
            marks = ",".join("?" * len(self.splits))
            self._database.execute(f"DELETE FROM good WHERE split NOT IN ({marks})", self.splits)
        self._database.commit()

    def faults(self) -> Iterator[Fault]:
        """Every fault: first of records that are no rows, then of rows, in the data's order."""
        for place, why in self.index.skipped:
            yield Fault(place, why)
        question = (
            "SELECT json_extract(every.row, '$.place'), why FROM faults JOIN main.rows AS every ON id = faults.row "
            "ORDER BY id"
        )
        for place, why in self.each(question):
            yield Fault(str(place), str(why))

    def _remove(self) -> None:
        self._database.execute("DELETE FROM good WHERE id IN (SELECT row FROM faults)")
        self._database.commit()


@contextmanager
def surveyed(folder: Path, reading: Reading, splits: Sequence[str] = ()) -> Iterator[Survey]:
    """A survey of a data set, for the block; with `splits` only of these.

    Raises UserError for a data set of no known form, a file that cannot be read as a whole, and a split that is not
    there.
    """
    index = open_index(folder, reading.model_copy(update={"errors": "list"}))
    with damage_told(index.file), closing(sqlite3.connect(index.file, timeout=60)) as database:
        yield Survey(index, database, splits)
