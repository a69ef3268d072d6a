"""The digests of a split's pictures: by their names, and read anew where their files have changed."""

from array import array
from collections.abc import ItemsView, Iterator, Mapping
from functools import cached_property, partial

import numpy as np

from lmmpress.data.address import bring, shown
from lmmpress.data.first_use import by_first_use
from lmmpress.data.images import Images, Names, images_of
from lmmpress.data.index import Ids, Index, Picture
from lmmpress.data.picture_files import UPDATE, in_parts, read_file, stamp_of
from lmmpress.data.stored_rows import Rows
from lmmpress.data.workers import by_workers
from lmmpress.errors import UserError
from lmmpress.files.bounded import check_file


class Pictures(Mapping[str, str]):
    """The sha256 of each picture of some rows by its name, in order of first use."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    @cached_property
    def images(self) -> Images:
        """The pictures by their numbers."""
        return images_of(self.rows)

    def __getitem__(self, name: str) -> str:
        return self.about(name)[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self.images.names)

    def __len__(self) -> int:
        return len(self.images.names)

    def items(self) -> ItemsView[str, str]:
        """Names and sha256, a part of them at a time in memory."""
        return _Items(self)

    def about(self, name: str) -> tuple[str, bool]:
        """The sha256 of a picture, and whether it is plain (see `lmmpress.data.pictures.is_plain`)."""
        found = self.rows.source.ask("SELECT sha256, plain FROM pictures WHERE name = ?", [name])
        if not found:
            raise KeyError(name)
        return str(found[0][0]), bool(found[0][1])


class _Items(ItemsView[str, str]):
    def __init__(self, pictures: Pictures) -> None:
        super().__init__(pictures)
        self._pictures = pictures

    def __iter__(self) -> Iterator[tuple[str, str]]:
        names = self._pictures.images.names
        assert isinstance(names, Names)  # as those of an index are
        return ((one.name, one.sha256) for one in names.source.pictures(names.ids))


def read_pictures(index: Index, ids: Ids) -> bool:
    """Read the picture files of rows that are new or have changed, and note their digests. Returns whether one that was
    known has changed. UserError, which names the first row that shows it, for a file that cannot be read."""
    if not index.has_files():
        return False
    ids = np.sort(ids)
    pictures = index.shown(ids)[1]
    pictures = pictures[by_first_use(pictures)[1]]
    bring(index.folder, (one.name for one in index.pictures(pictures) if one.is_file))
    new, was_known = array("i"), False
    for one in index.pictures(pictures):
        if one.is_file and not (one.stamp and stamp_of(index.folder, one.name) == one.stamp):
            _check(index, ids, one)
            new.append(one.number)
            was_known |= bool(one.stamp)
    for part in in_parts(np.array(new, np.int32)):
        names = [one.name for one in index.pictures(part)]
        found = by_workers(partial(read_file, index.folder), names)
        index.note(UPDATE, [(*one, name) for name, one in zip(names, found, strict=True)])
    return was_known


def _check(index: Index, ids: Ids, picture: Picture) -> None:
    try:
        check_file(index.folder, picture.name)
    except UserError as error:
        hint = "; write / between folders" if "\\" in picture.name else ""
        rows = np.array(index.ask("SELECT row FROM shown WHERE picture = ?", [picture.number]), np.int64)
        (stored,) = index.stored(np.intersect1d(rows, ids)[:1])
        raise UserError(f"{shown(index.folder)}/{stored.row.place}: image {error}{hint}") from None
