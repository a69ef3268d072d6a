"""What every store stands on: bytes by name, in a directory or in a bucket."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic_core import from_json

from lmmpress.errors import UserError
from lmmpress.store.kinds import BLOBS

Advance = Callable[[int], None]  # told of every few bytes that were moved
SMALL = 64 << 20  # bytes; no small object is larger, and none is read that is


@dataclass(frozen=True)
class Blob:
    """The bytes of a file, known by their sha256; `size` in bytes."""

    sha256: str
    size: int

    @property
    def name(self) -> str:
        return f"{BLOBS.folder}/{self.sha256[:2]}/{self.sha256}"


@dataclass(frozen=True)
class Found:
    """A small object as it was read. `tag` changes with every write; `modified` in seconds of the store's own clock."""

    data: bytes
    tag: str
    modified: float


@dataclass(frozen=True)
class Entry:
    """One line of a listing: bytes, and seconds of the store's own clock."""

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
    """The small object `name` is there, and is not what its name says: `fault` says why."""

    def __init__(self, address: str, name: str, fault: str) -> None:
        super().__init__(f"{address}: {name} {fault}; `lmmpress store verify --discard` sets aside what is damaged")
        self.name, self.fault = name, fault


def parse(data: bytes, address: str, name: str) -> dict[str, Any]:
    """The JSON object that a small object holds; UnreadableError where it holds something else."""
    try:
        value = from_json(data)  # unlike the standard library's it ends in ValueError however deep the lists are
    except ValueError as error:
        raise UnreadableError(address, name, f"is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise UnreadableError(address, name, "is no JSON object")
    return value


class ChangedError(Exception):
    """A small object is no longer what the writer took it for: read it again."""


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
    """Two kinds of things: small objects, read whole and written by compare-and-swap; and blobs, which never change.

    Every method may raise UserError where the place cannot be reached or is not allowed. What lies there may be
    damaged, or a stranger's: nothing is ever read, written or removed outside of the place.
    """

    address: str

    @property
    def workspace(self) -> Path:
        """A local folder on the disk where `fetch` puts files without copying them, where it can."""
        ...

    def now(self) -> float:
        """The time by the clock that `modified` is told in, whatever this machine's clock says."""
        ...

    def read(self, name: str) -> Found | None:
        """The small object of that name; None where there is none, UnreadableError where it is no small object."""
        ...

    def write(self, name: str, data: bytes, tag: str | None) -> None:
        """Write it if it still is what `tag` was read of, or `tag` is None and there is none; else ChangedError."""
        ...

    def delete(self, name: str) -> None:
        """Remove an object or blob; nothing happens where there is none."""
        ...

    def entries(self, prefix: str) -> Iterator[Entry]:
        """All objects whose names start so."""
        ...

    def holds(self, blob: Blob) -> bool:
        """Whether a blob of that name and size is there."""
        ...

    def send(self, path: Path, blob: Blob, advance: Advance) -> None:
        """Take in a file's bytes as a blob, whole or not at all; DamagedError where they do not match its name.

        A file in `workspace` is the store's from then on, and may not be changed afterwards; others are copied.
        """
        ...

    def fetch(self, blob: Blob, path: Path, advance: Advance) -> None:
        """Make the new file `path`, in `workspace`, with a blob's bytes; DamagedError or MissingError otherwise.

        The file may share its bytes with the store, so nobody may write to it.
        """
        ...

    def check(self, blob: Blob) -> None:
        """Read all of a blob; DamagedError or MissingError where it is not what its name says."""
        ...

    def leftovers(self) -> Iterator[Leftover]:
        """What killed writers left half-written."""
        ...
