"""How many rows go through a model at once: half as many whenever the memory runs out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from lmmpress.errors import UserError
from lmmpress.progress import say_once

T = TypeVar("T")


@dataclass
class Remembered:
    """Rows at once by the work that is done with them: those to which they were `lowered`, and those `used` in one
    block."""

    lowered: dict[str, int] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)


_remembered: ContextVar[Remembered | None] = ContextVar("rows at once", default=None)


@contextmanager
def remembering(lowered: dict[str, int]) -> Iterator[dict[str, int]]:
    """In this block rows at once that were lowered stay so for the same work: `lowered` has them from earlier blocks,
    and gets them for later ones. Yields the rows at once of each work of the block, as they are in the end."""
    remembered = Remembered(lowered)
    token = _remembered.set(remembered)
    try:
        yield remembered.used
    finally:
        _remembered.reset(token)


class AtOnce:
    """How many rows go through a model at once in some `work`: at first `rows`, which a `setting` of the plan may have
    given. They are always as many if they are `fixed`, as where other processes wait for the same forward passes."""

    def __init__(self, rows: int, work: str, setting: str | None = None, fixed: bool = False) -> None:
        self._work, self._setting, self._fixed = work, setting, fixed
        self._remembered = _remembered.get() or Remembered()
        self.rows = rows if fixed else min(rows, self._remembered.lowered.get(work, rows))
        self._remembered.used[work] = self.rows

    def lower(self, rows: int) -> None:
        """Go on with at most so many rows at once."""
        if rows < self.rows:
            self.rows = self._remembered.lowered[self._work] = self._remembered.used[self._work] = rows

    def fit(self, work: Callable[[int], T], most: int) -> T:
        """The result of `work(rows)`, which lets at most `rows` of its rows through the model at once. It is begun anew
        with half as many whenever the memory runs out. It has no more than `most` rows that could be together.

        Raises UserError if the memory runs out with a single row, or with a number that is fixed. All other errors are
        those of `work`.
        """
        before = self.rows
        while True:
            try:
                result = work(self.rows)
            except RuntimeError as error:
                if not ran_out_of_memory(error):
                    raise
            else:
                self._tell(before)
                return result
            # here, since the error held what was computed
            tried = min(self.rows, most)
            if self._fixed and tried > 1:
                raise UserError(
                    f"{self._work}: the memory is too small for {tried} rows at once, and processes that share a model "
                    f"can only begin anew; set {self._setting} to a smaller number"
                )
            if tried <= 1:
                raise UserError(
                    f"{self._work}: the memory is too small for a single row; free some of it, or take a machine or "
                    "GPU that has more (what a run has done is kept: --resume goes on from there)"
                )
            self.lower(tried // 2)
            clear_device_cache(garbage_collection=True)

    def lower_and_tell(self, rows: int) -> None:
        """Go on with at most so many rows at once, and say so if they are fewer than before."""
        before = self.rows
        self.lower(rows)
        self._tell(before)

    def _tell(self, before: int) -> None:
        if self.rows < before:
            named = f" ({self._setting})" if self._setting else ""
            say_once(
                f"{self._work}: {self.rows} rows at once from here on, since more do not fit into the memory{named}"
            )


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed, on a CPU or an accelerator."""
    return isinstance(error, torch.OutOfMemoryError) or bool(should_reduce_batch_size(error))
