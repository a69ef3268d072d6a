"""Opens the address of a data set. Of one in a bucket, only what is used is fetched."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from lmmpress.store.plain_folder import BucketFolder, refuse_credentials

METADATA = "metadata.jsonl"

_from_buckets: dict[Path, BucketFolder] = {}
"""The data sets of this process that are in buckets, by their local directories."""


@lru_cache(maxsize=8)
def open_data(address: str) -> Path:
    """A local directory for the files of a data set, for reading only: of a data set in a bucket, its metadata.jsonl,
    and the images of each split once `read_split` has read it.

    `address` is a directory or s3://bucket/prefix. Raises UserError if there is no data set.
    """
    refuse_credentials(address)
    if not address.startswith("s3://"):
        return Path(address)
    folder = BucketFolder(address, METADATA, "data set", lambda name: True)
    folder.bring([METADATA])
    _from_buckets[folder.path] = folder
    return folder.path


def bring(folder: Path, names: Iterable[str]) -> None:
    """Fetch files of a data set that are not in its local directory yet."""
    if folder in _from_buckets:
        _from_buckets[folder].bring(names)
