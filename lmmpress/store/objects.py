"""The interface below every store: bytes by name, in a directory or in a bucket."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic_core import from_json

from lmmpress.errors import UserError
from lmmpress.store.kinds import BLOBS

Advance = Callable[[int], None]
"""Called again and again while bytes move, with the number of bytes since the last call."""
SMALL = 64 << 20
"""The most bytes of a small object. Larger ones are not read."""


@dataclass(frozen=True)
class Blob:
    """The bytes of a file, identified by their sha256; `size` in bytes."""

    sha256: str
    size: int

    @property
    def name(self) -> str:
        return f"{BLOBS.folder}/{self.sha256[:2]}/{self.sha256}"


@dataclass(frozen=True)
class Found:
    """A small object that was read. `tag` changes with every write; `modified` in seconds of the store's own clock."""

    data: bytes
    tag: str
    modified: float


@dataclass(frozen=True)
class Entry:
    """One line of a listing: `size` in bytes, `modified` in seconds of the store's own clock."""

    name: str
    size: int
    modified: float


@dataclass(frozen=True)
class Leftover(Entry):
    """Something that a killed writer left half-written. `remove` removes it; nothing happens where it is gone."""

    remove: Callable[[], None] = field(compare=False, repr=False)


class DeniedError(UserError):
    """The store's server denies a request: the keys lack a right."""


class UnreadableError(UserError):
    """There is a small object `name`, but its content is not what belongs under that name. `fault` says why."""

    def __init__(self, address: str, name: str, fault: str) -> None:
        super().__init__(f"{address}: {name} {fault}; `lmmpress store verify --discard` sets aside what is damaged")
        self.name, self.fault = name, fault


class LostFileError(UserError):
    """A file that a manifest lists is missing or damaged. `fault` says which one, and how."""

    def __init__(self, fault: str) -> None:
        super().__init__(f"{fault}; `lmmpress store verify` lists all such files")
        self.fault = fault


def parse(data: bytes, address: str, name: str) -> dict[str, Any]:
    """The JSON object that a small object holds; UnreadableError where it holds something else."""
    try:
        value = from_json(data)  # for lists of any depth it raises ValueError; the standard library's does not
    except ValueError as error:
        raise UnreadableError(address, name, f"is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise UnreadableError(address, name, "is no JSON object")
    return value


class ChangedError(Exception):
    """Another process has changed a small object since it was read: read it again."""


class DamagedError(Exception):
    """A blob's bytes do not match its name."""

    def __init__(self, blob: Blob, why: str) -> None:
        super().__init__(f"blob {blob.sha256[:12]} is damaged: {why}")
        self.blob = blob


class MissingError(Exception):
    """There is no such blob."""

    def __init__(self, blob: Blob) -> None:
        super().__init__(f"blob {blob.sha256[:12]} is missing")
        self.blob = blob


class Objects(Protocol):
    """Small objects, which are read whole and written by compare-and-swap; and blobs, which never change.

    Every method may raise UserError where the directory or bucket cannot be reached, or access is denied. The objects
    may be damaged, or come from a stranger: nothing outside of the store is ever read, written or removed.
    """

    address: str

    @property
    def workspace(self) -> Path:
        """A local folder. Where it can, `fetch` puts files there without copying them."""
        ...

    def now(self) -> float:
        """The time of the store's own clock, as in `modified`. This machine's clock may differ."""
        ...

    def read(self, name: str) -> Found | None:
        """The small object of that name; None where there is none, UnreadableError where it is too large, or a link."""
        ...

    def write(self, name: str, data: bytes, tag: str | None) -> None:
        """Write a small object if it still has that tag; with None, if there is no such object. Else ChangedError."""
        ...

    def delete(self, name: str) -> None:
        """Remove an object or blob; nothing happens where there is none."""
        ...

    def entries(self, prefix: str) -> Iterator[Entry]:
        """All objects whose names start with `prefix`."""
        ...

    def holds(self, blob: Blob) -> bool:
        """Whether a blob of that name and size is there."""
        ...

    def send(self, path: Path, blob: Blob, advance: Advance) -> None:
        """Store a file's bytes as a blob, whole or not at all; DamagedError where they do not match its name.

        A file in `workspace` belongs to the store afterwards: do not change it any more. Other files are copied.
        """
        ...

    def fetch(self, blob: Blob, path: Path, advance: Advance) -> None:
        """Make the new file `path`, in `workspace`, with a blob's bytes; DamagedError or MissingError otherwise.

        The file may share its bytes with the store: do not write to it.
        """
        ...

    def check(self, blob: Blob) -> None:
        """Read all bytes of a blob; DamagedError where they do not match its name, MissingError where it is gone."""
        ...

    def leftovers(self) -> Iterator[Leftover]:
        """What killed writers left half-written."""
        ...
