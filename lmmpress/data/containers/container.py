"""What a container of rows is, and what it gives for each of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Held:
    """A picture that is inside of a container's file: its bytes, or where in which file they are.

    `name` is unique in the data set and is shown in messages. `path` is relative to the data set's folder.
    """

    name: str
    raw: bytes | None = None
    path: str = ""
    offset: int = 0
    size: int = 0


@dataclass(frozen=True)
class Record:
    """One record of a container, before any of its values is checked.

    `values` are the values by the names of their columns: what JSON can hold, and `Held` for pictures; a picture that
    is a file of its own is its path, relative to the data set's folder. `place` says where it was read, as in
    "metadata.jsonl, line 3", and `line` is its number there. `split` is what the container's file names say, if they
    name a split. `fault` says what is wrong with a record whose values cannot be read, although the records behind it
    can; it then has no values.
    """

    values: dict[str, object]
    place: str
    line: int
    split: str | None = None
    fault: str = ""


@dataclass(frozen=True)
class Container:
    """A form of data sets.

    `files` picks from the names of all files of a folder those that hold the rows; none if the folder is not of this
    form. `records` reads them one by one. It raises UserError with the place where nothing behind it can be read
    either.
    """

    name: str
    files: Callable[[Sequence[str]], list[str]]
    records: Callable[[Path, Sequence[str]], Iterator[Record]]
