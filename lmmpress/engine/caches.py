"""The caches of a run: what its teacher, or an image side, makes of rows, in files of the store."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lmmpress.lmm.ragged_rows import NewFile, RaggedRows, open_either
from lmmpress.lmm.tensor_rows import TensorRows, save_rows
from lmmpress.store import Store
from lmmpress.store.records import Subjects

Kind = Literal["features", "states"]
Kept = TensorRows | RaggedRows
Compute = Callable[[NewFile], Kept | None]
"""Computes rows in a new file; None where there are none, as of images in rows of text."""


@dataclass(frozen=True)
class Wanted:
    """A cache: its kind, the name of its file, which says what it depends on, its number of rows, and what it is
    computed from."""

    kind: Kind
    name: str
    rows: int
    of: Subjects


class Caches:
    """The caches of one run. Each file is opened once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._opened: dict[str, Kept | None] = {}

    def get(self, wanted: Wanted, compute: Compute) -> Kept | None:
        """The rows from the store; else computed, in the file that the store takes. None where there are none."""
        if wanted.name not in self._opened:
            self._opened[wanted.name] = self._found_or_made(wanted, compute)
        return self._opened[wanted.name]

    def _found_or_made(self, wanted: Wanted, compute: Compute) -> Kept | None:
        with self._store.tensor_file(wanted.name) as stored:
            if stored is not None:
                known = open_either(stored, wanted.kind)
                if wanted.rows != (0 if known is None else len(known)):
                    raise ValueError(f"not {wanted.kind} of {wanted.rows} rows")
                return known
        with self._store.new_tensors(wanted.name, wanted.of) as path:
            if (found := compute(NewFile(path, wanted.kind))) is None:
                save_rows(path, {})
        return found
