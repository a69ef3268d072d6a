"""Opens the address of a data set."""

from functools import lru_cache
from pathlib import Path

from lmmpress.data.rows import METADATA
from lmmpress.store.plain_folder import fetch_folder, refuse_credentials


@lru_cache(maxsize=8)
def open_data(address: str) -> Path:
    """A local directory with the files of a data set, for reading only.

    `address` is a directory or s3://bucket/prefix. Raises UserError if there is no data set.
    """
    refuse_credentials(address)
    if not address.startswith("s3://"):
        return Path(address)
    return fetch_folder(address, METADATA, "data set", lambda name: True)
