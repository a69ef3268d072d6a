"""Opens the address of a data set. Of one in a bucket, only what is used is fetched."""

import os
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from lmmpress.errors import UserError
from lmmpress.store.plain_folder import BucketFolder, refuse_credentials

_MOST_FILES = 20_000_000

_from_buckets: dict[Path, BucketFolder] = {}
"""The data sets of this process that are in buckets, by their local directories."""


@lru_cache(maxsize=8)
def open_data(address: str) -> Path:
    """A local directory for the files of a data set, for reading only: of a data set in a bucket, the files with its
    rows once they are read, and the images of each split once `read_split` has read it.

    `address` is a directory or s3://bucket/prefix. Raises UserError if there is nothing.
    """
    refuse_credentials(address)
    if not address.startswith("s3://"):
        return Path(address)
    folder = BucketFolder(address, None, "data set", lambda name: True)
    _from_buckets[folder.path] = folder
    return folder.path


def bring(folder: Path, names: Iterable[str]) -> None:
    """Fetch files of a data set that are not in its local directory yet."""
    if folder in _from_buckets:
        _from_buckets[folder].bring(names)


def home_of(folder: Path) -> str:
    """What a data set is known by on this machine: its directory, or the address and list of a bucket's."""
    return _from_buckets[folder].key if folder in _from_buckets else str(folder.resolve())


def shown(folder: Path) -> str:
    """A data set's address, for messages."""
    return _from_buckets[folder].address if folder in _from_buckets else str(folder)


def names_of(folder: Path, deep: bool) -> Sequence[str]:
    """The names of a data set's files, sorted; those in its subfolders only if `deep`."""
    if folder in _from_buckets:
        return sorted(name for name in _from_buckets[folder].names if deep or "/" not in name)
    if not folder.is_dir():
        raise UserError(f"{folder} is no data set: there is no such directory")
    names: list[str] = []
    for place, folders, files in os.walk(folder):
        if not deep:
            folders.clear()
        prefix = "" if place == str(folder) else f"{os.path.relpath(place, folder)}/"
        names += (f"{prefix}{name}" for name in files)
        if len(names) > _MOST_FILES:
            raise UserError(f"{folder} has more than {_MOST_FILES:,} files; put them into tar shards")
    return sorted(names)
