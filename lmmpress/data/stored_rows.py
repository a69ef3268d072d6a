"""Rows of an index as a sequence."""

from collections.abc import Iterator, Sequence
from typing import overload

from lmmpress.data.index import Ids, Index
from lmmpress.data.row import Row


class Rows(Sequence[Row]):
    """Rows of the index `source`, which are read when they are asked for; `ids` are their numbers there."""

    def __init__(self, index: Index, ids: Ids) -> None:
        self.source, self.ids = index, ids

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> "Rows": ...
    def __getitem__(self, place: int | slice) -> "Row | Rows":
        if isinstance(place, slice):
            return Rows(self.source, self.ids[place])
        (stored,) = self.source.stored(self.ids[[place]])
        return stored.row

    def some_chat(self) -> bool:
        """Whether some rows were written as messages."""
        return self.source.some_chat(self.ids)

    def __iter__(self) -> Iterator[Row]:
        return (stored.row for stored in self.source.stored(self.ids))
