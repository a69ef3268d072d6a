"""Addresses of stores and of checkpoints.

./dir  s3://bucket/prefix                                  a store; or a plain Hugging Face directory
./dir/checkpoints/DIGEST  s3://bucket/prefix/checkpoints/DIGEST    a checkpoint in a store
"""

import re
from pathlib import Path

from lmmpress.errors import UserError
from lmmpress.files.allow_list import is_small, may_belong
from lmmpress.store.directory import DirectoryObjects
from lmmpress.store.kinds import BLOBS, CHECKPOINTS, RECORDS, RUNS, TENSORS
from lmmpress.store.plain_folder import fetch_folder, open_bucket, refuse_credentials
from lmmpress.store.store import Store

_CONFIG = "config.json"
_IN_STORE = re.compile(r"(?P<root>.+)/checkpoints/(?P<digest>[0-9a-f]{64})/?", re.DOTALL)
_KINDS = (BLOBS, CHECKPOINTS, RECORDS, RUNS)
_BESIDE_BLOBS = (CHECKPOINTS.folder, RECORDS.folder, RUNS.folder, TENSORS.folder, "work")


def open_store(address: str, make: bool = True) -> Store:
    """The store at an address: a directory, or s3://bucket/prefix behind this machine's cache.

    With `make` a missing directory is made. Without, the directory must be there, and may be read-only.
    """
    refuse_credentials(address)
    if address.startswith("s3://"):
        return Store(open_bucket(address))
    if address.startswith("models:/"):
        raise UserError(f"{address} is a model of the registry; a store is a directory or s3://bucket/prefix")
    if "://" in address:
        scheme = address.partition("://")[0]
        raise UserError(f"store {scheme}://...: a store is a directory or s3://bucket/prefix")
    return Store(DirectoryObjects(Path(address), make))


def is_store(address: str) -> bool:
    """Whether there is a store at that address. Makes nothing."""
    refuse_credentials(address)
    if "://" in address:
        objects = open_store(address).objects
        return any(next(objects.entries(kind.prefix), None) for kind in _KINDS) and not holds_checkpoint(address)
    root = Path(address)
    # `blobs` alone is not enough: Hugging Face's cache has such folders too
    known = any((root / folder).is_dir() for folder in _BESIDE_BLOBS)
    return known and (root / BLOBS.folder).is_dir() and not holds_checkpoint(address)


def holds_checkpoint(address: str) -> bool:
    """Whether there is a plain Hugging Face directory at that address. Makes nothing."""
    if "://" in address:
        return any(entry.name == _CONFIG for entry in open_store(address).objects.entries(_CONFIG))
    return (Path(address) / _CONFIG).is_file()


def existing_store(address: str) -> Store:
    """The store at an address, which may be on a read-only disk. UserError where there is none."""
    if not is_store(address):
        raise UserError(f"{address}: there is no store")
    return open_store(address, make=False)


def lies_in(address: str, store: str) -> bool:
    """Whether `address` names a checkpoint in the store at the address `store`."""
    found = _IN_STORE.fullmatch(address)
    if not found:
        return False
    if "://" in address or "://" in store:
        return found["root"].rstrip("/") == store.rstrip("/")
    return Path(found["root"]).resolve() == Path(store).resolve()


def open_checkpoint(address: str, weights: bool = True) -> Path:
    """A local directory with the files of the checkpoint at an address. Only read it.

    Without `weights` only the small files are fetched: config, tokenizer, processor.
    Raises UserError where there is no checkpoint, or where it is damaged.
    """
    refuse_credentials(address)
    if "://" not in address and Path(address).is_dir():
        return Path(address)
    if found := _IN_STORE.fullmatch(address):
        root = found["root"]
        if "://" in root or Path(root).is_dir():
            return open_store(root, make=False).checkpoint(found["digest"], weights)
    if address.startswith("s3://"):
        return fetch_folder(address, _CONFIG, "checkpoint", may_belong, None if weights else is_small)
    if address.startswith("models:/"):
        raise UserError(f"{address}: the store knows no names of the registry; look it up with lmmpress.locate first")
    raise UserError(
        f"{address}: there is no checkpoint; give a directory, s3://bucket/prefix or STORE/checkpoints/DIGEST"
    )
