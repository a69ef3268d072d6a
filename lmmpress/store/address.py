"""Addresses: which store one names, and which checkpoint.

./dir  s3://bucket/prefix                                  a store; or a plain Hugging Face directory
./dir/checkpoints/DIGEST  s3://bucket/prefix/checkpoints/DIGEST    a checkpoint in a store
"""

import hashlib
import re
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from lmmpress.credentials import address_holds_credentials, address_without_credentials
from lmmpress.data import METADATA
from lmmpress.errors import UserError
from lmmpress.lmm.files import may_belong
from lmmpress.progress import transfer
from lmmpress.store.directory import DirectoryObjects
from lmmpress.store.manifest import File, Manifest, parse_manifest, safe_names
from lmmpress.store.objects import DamagedError, MissingError, UnreadableError
from lmmpress.store.parallel import each
from lmmpress.store.store import Store
from lmmpress.store.workspace import own_folder

if TYPE_CHECKING:
    from lmmpress.store.cache import CachedObjects

_CONFIG = "config.json"
_NOTE_EVERY = 2.0  # seconds
_IN_STORE = re.compile(r"(?P<root>.+)/checkpoints/(?P<digest>[0-9a-f]{64})/?", re.DOTALL)
_FOLDERS = ("blobs/", "checkpoints/", "records/", "runs/")


def open_store(address: str, make: bool = True) -> Store:
    """The store at an address: a directory, or s3://bucket/prefix, kept in the node's cache. With `make` a directory
    is made if need be; without, it is there, and may be one that cannot be written."""
    _refuse_credentials(address)
    if address.startswith("s3://"):
        return Store(_bucket(address))
    if "://" in address:
        scheme = address.partition("://")[0]
        raise UserError(f"store {scheme}://...: a store is a directory or s3://bucket/prefix")
    return Store(DirectoryObjects(Path(address), make))


def is_store(address: str) -> bool:
    """Whether there is a store at that address; nothing is made."""
    _refuse_credentials(address)
    if "://" in address:
        objects = open_store(address).objects
        return any(next(objects.entries(folder), None) for folder in _FOLDERS) and not holds_checkpoint(address)
    root = Path(address)
    # others have folders of that name too: the cache of Hugging Face is one
    known = any((root / folder).is_dir() for folder in (*_FOLDERS[1:], "tensors", "work"))
    return known and (root / "blobs").is_dir() and not holds_checkpoint(address)


def holds_checkpoint(address: str) -> bool:
    """Whether a plain Hugging Face directory lies at that address; nothing is made."""
    if "://" in address:
        return any(entry.name == _CONFIG for entry in open_store(address).objects.entries(_CONFIG))
    return (Path(address) / _CONFIG).is_file()


def existing_store(address: str) -> Store:
    """The store at an address, be it on a read-only disk; UserError where there is none yet."""
    if not is_store(address):
        raise UserError(f"{address}: there is no store")
    return open_store(address, make=False)


def lies_in(address: str, store: str) -> bool:
    """Whether an address is that of a checkpoint in the store at another."""
    found = _IN_STORE.fullmatch(address)
    if not found:
        return False
    if "://" in address or "://" in store:
        return found["root"].rstrip("/") == store.rstrip("/")
    return Path(found["root"]).resolve() == Path(store).resolve()


def open_checkpoint(address: str) -> Path:
    """A local directory with the files of the checkpoint at an address, to be read only.

    Raises UserError where there is none, or what is there is damaged.
    """
    _refuse_credentials(address)
    if "://" not in address and Path(address).is_dir():
        return Path(address)
    if found := _IN_STORE.fullmatch(address):
        root = found["root"]
        if "://" in root or Path(root).is_dir():
            return open_store(root, make=False).checkpoint(found["digest"])
    if address.startswith("s3://"):
        return _plain_folder(address, _CONFIG, "checkpoint", may_belong)
    if address.startswith("models:/"):
        raise UserError(f"{address}: names of the registry are looked up by `lmmpress run`, not here")
    raise UserError(
        f"{address}: there is no checkpoint; give a directory, s3://bucket/prefix or STORE/checkpoints/DIGEST"
    )


@lru_cache(maxsize=8)
def open_data(address: str) -> Path:
    """A local directory with the files of a data set, to be read only: a directory, or what lies at s3://bucket/prefix.

    Raises UserError where there is none.
    """
    _refuse_credentials(address)
    if not address.startswith("s3://"):
        return Path(address)
    return _plain_folder(address, METADATA, "data set", lambda name: True)


def _refuse_credentials(address: str) -> None:
    if address_holds_credentials(address):
        raise UserError(
            f"{address_without_credentials(address)}: credentials are no part of an address; give them in the "
            "environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
        )


def _bucket(address: str) -> "CachedObjects":
    from lmmpress.store.bucket import BucketObjects
    from lmmpress.store.cache import CachedObjects, cache_folder, cache_limit

    return CachedObjects(BucketObjects(address), cache_folder(), cache_limit())


def _plain_folder(address: str, landmark: str, what: str, wanted: Callable[[str], bool]) -> Path:
    """A directory that somebody put into a bucket as it is, if it holds the file `landmark`: the files whose names are
    `wanted`.

    Nothing there says what its bytes should be. So their sha256 are taken when they are fetched first, and noted under
    the bucket's own list of names, sizes and tags: as long as that stays the same, one request is all it takes.
    """
    objects = _bucket(address)
    listed = [item for item in objects.far.tagged("") if wanted(item[0])]
    if not any(name == landmark for name, _, _ in listed):
        raise UserError(f"{address}: there is no {what}: it has no {landmark}")
    try:
        safe_names(name for name, _, _ in listed)
    except ValueError as error:
        raise UserError(f"{address} is no folder of a {what}: {error}") from None
    key = hashlib.sha256(repr((address, sorted(listed))).encode()).hexdigest()
    noted = objects.workspace.parent / "folders" / f"{key}.json"
    folder = Path(tempfile.mkdtemp(dir=own_folder(objects.workspace)))
    known: dict[str, File] = {}
    with suppress(FileNotFoundError, UnreadableError):
        known = parse_manifest(noted.read_bytes(), str(noted.parent), noted.name).files
    files: dict[str, File] = {}
    noting = threading.Lock()
    noted_at = time.monotonic()

    def note() -> None:
        noted.parent.mkdir(exist_ok=True)
        aside = noted.with_name(f"{noted.name}.{folder.name}")
        aside.write_text(Manifest(files=files).model_dump_json(), "utf-8")
        aside.replace(noted)

    def fetch(item: tuple[str, int, str]) -> None:
        nonlocal noted_at
        name, size, tag = item
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name in known and objects.at_hand(known[name].blob, path):
            file = known[name]
            advance(size)
        else:
            try:
                sha256 = objects.far.fetch_object(name, size, path, advance, tag=tag)
            except (DamagedError, MissingError):
                raise UserError(f"{address}: {name} changed while it was being fetched; try again") from None
            file = File(sha256=sha256, size=size)
            objects.keep(path, file.blob)
        with noting:
            files[name] = file
            if time.monotonic() - noted_at > _NOTE_EVERY:  # so that being killed costs no more than that
                note()
                noted_at = time.monotonic()

    with transfer("fetching", sum(size for _, size, _ in listed)) as advance:
        try:
            each(fetch, listed)
        finally:
            note()
    return folder
