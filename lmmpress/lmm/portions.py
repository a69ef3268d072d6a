"""What is made of lists of rows: whole, or in portions that fit into the memory."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Generic, TypeVar, overload

from lmmpress.data.workers import by_workers
from lmmpress.lmm.at_once import AtOnce

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 1  # of each worker


class Portions(Sequence[T], Generic[T]):
    """What `make` makes of each list of rows of an `order`, and `ready` of that. Whoever goes over them has them made
    by threads ahead, as reading token ids and decoding pictures; they are made ready where they are taken."""

    def __init__(
        self, order: Sequence[list[int]], make: Callable[[list[int]], T], ready: Callable[[T], T] = lambda made: made
    ) -> None:
        self.order, self._make, self._ready = order, make, ready
        self._ahead: Iterator[T] = iter(())
        self._next: tuple[int, int] | None = None  # the place and the size of what comes next in `_ahead`

    def __len__(self) -> int:
        return len(self.order)

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> "Portions[T]": ...
    def __getitem__(self, place: int | slice) -> "T | Portions[T]":
        if isinstance(place, slice):
            return Portions(self.order[place], self._make, self._ready)
        return self._ready(self._make(self.order[place]))

    def __iter__(self) -> Iterator[T]:
        return map(self._ready, by_workers(self._make, self.order, _AHEAD))

    def of(self, place: int, size: int) -> Iterator[T]:
        """What is at a place, in portions of at most `size` rows. Take all of them, and one place after the other: then
        threads make them ahead."""
        if self._next != (place, size):
            later = (self.order[at] for at in range(place, len(self.order)))
            portions = (rows[at : at + size] for rows in later for at in range(0, len(rows), size))
            self._ahead = by_workers(self._make, portions, _AHEAD)
        self._next = place + 1, size
        return map(self._ready, islice(self._ahead, -(-len(self.order[place]) // size)))

    def fitting(self, work: Callable[[int, Iterator[T]], R], at_once: AtOnce) -> Iterator[R]:
        """Yield `work` of each place and its portions, which have `at_once.rows` rows. Where the memory runs out, the
        place is worked at anew, in smaller portions: `work` has to forget what it had done there. UserError if it runs
        out with a single row."""
        for place, rows in enumerate(self.order):
            yield at_once.fit(partial(self._worked, work, place), len(rows))

    def _worked(self, work: Callable[[int, Iterator[T]], R], place: int, size: int) -> R:
        return work(place, self.of(place, size))
