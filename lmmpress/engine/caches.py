"""The caches of a run: what its teacher, or an image side, makes of rows, in files of the store, within a budget."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from lmmpress.host.full_disk import is_full, system_says
from lmmpress.lmm.ragged_rows import NewFile, RaggedRows, open_either
from lmmpress.lmm.tensor_rows import TensorRows, save_rows
from lmmpress.printing.numbers import in_bytes
from lmmpress.progress import say, say_once
from lmmpress.settings.caches import CacheSettings
from lmmpress.store import Store
from lmmpress.store.objects import LostFileError
from lmmpress.store.records import Subjects

Kind = Literal["features", "states"]
Kept = TensorRows | RaggedRows
Compute = Callable[[NewFile], Kept | None]
"""Computes rows in a new file; None where there are none, as of images in rows of text."""

_WORDS: dict[Kind, str] = {"features": "visual features", "states": "teacher's states"}
_COSTS: dict[Kind, str] = {
    "features": "every step runs the image towers over all pictures",
    "states": "every step runs the teacher over all rows",
}


@dataclass(frozen=True)
class Wanted:
    """A cache: its kind, the name of its file, which says what it depends on, its number of rows, the name of their
    split, and what it is computed from."""

    kind: Kind
    name: str
    rows: int
    split: str
    of: Subjects


class _NoRoomError(Exception):
    """A file does not fit. The message says why."""


class Caches:
    """The caches of a run, which are made of `whole`: its teacher and all its rows. Each file is opened once in a
    process; its bytes are then compared with its digest. A process that `makes` none only reads those of others."""

    def __init__(self, store: Store, settings: CacheSettings, whole: Callable[[], Subjects], makes: bool) -> None:
        self._store, self._settings, self._whole, self._makes = store, settings, whole, makes
        self._memory = None if settings.memory == "auto" else settings.memory
        self._opened: dict[str, Kept | None] = {}

    def get(self, wanted: Wanted, compute: Compute) -> Kept | None:
        """The rows from the store; else computed, in the file that the store takes. None where there are none, or where
        there is no room for them, which a line says."""
        if wanted.name not in self._opened:
            found = self._opened[wanted.name] = self._found_or_made(wanted, compute)
            if found is not None and self._memory is not None:
                self._memory -= found.keep(self._memory)
        return self._opened[wanted.name]

    def _found_or_made(self, wanted: Wanted, compute: Compute) -> Kept | None:
        try:
            try:
                with self._store.tensor_file(wanted.name) as stored:
                    if stored is not None:
                        return _opened(stored, wanted)
            except LostFileError as error:
                say(f"{error.fault}; the {_WORDS[wanted.kind]} are computed anew")
                self._store.forget_tensors(wanted.name)
            return self._made(wanted, compute) if self._makes else None
        except _NoRoomError as error:
            why = str(error)
        except OSError as error:
            if not is_full(error):
                raise
            why = system_says(error, "resume the run to keep them")
        what, cost = _WORDS[wanted.kind], _COSTS[wanted.kind]
        say_once(f"the {what} of split {wanted.split} are not kept, so {cost}: {why}")
        return None

    def _made(self, wanted: Wanted, compute: Compute) -> Kept | None:
        with self._store.new_tensors(wanted.name, wanted.of) as path:
            free, used, most = shutil.disk_usage(path.parent).free, 0, self._settings.disk
            if most is not None:
                used = sum(self._store.sizes_of_tensors([f"{kind}-" for kind in _WORDS], self._whole()))

            def room(size: int) -> None:
                if most is not None and used + size > most:
                    others = f" beside {in_bytes(used)} of other caches" if used else ""
                    raise _NoRoomError(
                        f"they have {in_bytes(size)}{others}, and distillation.caches.disk is {in_bytes(most)}"
                    )
                if size > free:
                    raise _NoRoomError(f"they have {in_bytes(size)}, and {in_bytes(free)} are free on the store's disk")

            if (found := compute(NewFile(path, wanted.kind, dtype_named(self._settings.dtype), room))) is None:
                save_rows(path, {})
        return found


def _opened(stored: Path, wanted: Wanted) -> Kept | None:
    known = open_either(stored, wanted.kind)
    if wanted.rows != (0 if known is None else len(known)):
        raise ValueError(f"not {wanted.kind} of {wanted.rows} rows")
    return known


def dtype_named(name: str | None) -> torch.dtype | None:
    """The dtype of a plan's name for it."""
    return {"bfloat16": torch.bfloat16, "float32": torch.float32, None: None}[name]
