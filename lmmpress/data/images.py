"""The distinct images of rows, by their numbers, so that many rows take little memory."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from lmmpress.data.first_use import by_first_use
from lmmpress.data.index import Index
from lmmpress.data.row import Row
from lmmpress.data.stored_rows import Rows


@dataclass(frozen=True)
class Images:
    """The distinct images of a split, in order of first use.

    `counts` [rows] are the numbers of images of the rows. `numbers` [sum of counts] say for each place of each row, row
    by row, which of `names` it is.
    """

    names: Sequence[str]
    counts: NDArray[np.int32]
    numbers: NDArray[np.int32]


class Names(Sequence[str]):
    """The names of pictures of an index, which are read from it when they are asked for; `ids` [names] are the
    pictures' numbers there."""

    def __init__(self, source: Index, ids: NDArray[np.int32]) -> None:
        self.source, self.ids = source, ids

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> "Names": ...
    def __getitem__(self, place: int | slice) -> "str | Names":
        if isinstance(place, slice):
            return Names(self.source, self.ids[place])
        (found,) = self.source.pictures(self.ids[[place]])
        return found.name

    def __iter__(self) -> Iterator[str]:
        return (found.name for found in self.source.pictures(self.ids))


def images_of(rows: Sequence[Row]) -> Images:
    """The images of rows."""
    if isinstance(rows, Rows):
        counts, shown = rows.source.shown(rows.ids)
        numbers, firsts = by_first_use(shown)
        return Images(Names(rows.source, shown[firsts]), counts, numbers)
    of_name: dict[str, int] = {}
    found = [of_name.setdefault(name, len(of_name)) for row in rows for name in row.pictures]
    return Images(
        tuple(of_name), np.array([len(row.pictures) for row in rows], np.int32), np.array(found, dtype=np.int32)
    )


def distinct_images(several: Iterable[Images]) -> int:
    """How many different names the images of several splits have together."""
    names = [images.names for images in several]
    lazy = [one for one in names if isinstance(one, Names)]
    if len(lazy) == len(names) and len({id(one.source) for one in lazy}) == 1:
        return len(np.unique(np.concatenate([one.ids for one in lazy])))
    return len({name for one in names for name in one})
