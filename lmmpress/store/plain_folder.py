"""Directories that were copied into a bucket file by file, outside of any store: a checkpoint, or a data set."""

import hashlib
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lmmpress.errors import UserError
from lmmpress.host.extras import needs
from lmmpress.printing.credentials import address_holds_credentials, address_without_credentials
from lmmpress.progress import transfer
from lmmpress.store.manifest import File, Manifest, parse_manifest, safe_names
from lmmpress.store.objects import DamagedError, MissingError, UnreadableError
from lmmpress.store.parallel import each
from lmmpress.store.workspace import own_folder

if TYPE_CHECKING:
    from lmmpress.store.bucket import TaggedObject
    from lmmpress.store.cache import CachedObjects

_NOTE_EVERY = 2.0  # seconds


def refuse_credentials(address: str) -> None:
    if address_holds_credentials(address):
        raise UserError(
            f"{address_without_credentials(address)}: credentials are no part of an address; set them in the "
            "environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
        )


def open_bucket(address: str) -> "CachedObjects":
    """The objects at s3://bucket/prefix, kept in the node's cache. Raises UserError where minio is not installed."""
    needs("minio", address)
    from lmmpress.store.bucket import BucketObjects
    from lmmpress.store.cache import CachedObjects, cache_folder, cache_limit

    return CachedObjects(BucketObjects(address), cache_folder(), cache_limit())


def fetch_folder(address: str, landmark: str, what: str, wanted: Callable[[str], bool]) -> Path:
    """A local directory with the files of a directory in a bucket, those whose names are `wanted`.

    UserError where it does not hold the file `landmark`; `what` names it in errors.

    No sha256 is known of these files before they are fetched. Those that were computed then are noted, under a hash of
    the bucket's list of names, sizes and tags. As long as the list stays the same, files in the cache are used, and the
    list is the only request.
    """
    objects = open_bucket(address)
    listed = [one for one in objects.remote.tagged("") if wanted(one.name)]
    if not any(one.name == landmark for one in listed):
        raise UserError(f"{address}: there is no {what}: it has no {landmark}")
    try:
        safe_names(one.name for one in listed)
    except ValueError as error:
        raise UserError(f"{address} is not the folder of a {what}: {error}") from None
    content = [(one.name, one.size, one.tag) for one in listed]
    key = hashlib.sha256(repr((address, content)).encode()).hexdigest()
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

    def fetch(item: "TaggedObject") -> None:
        nonlocal noted_at
        name = item.name
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name in known and objects.take(known[name].blob, path):
            file = known[name]
            advance(item.size)
        else:
            try:
                sha256 = objects.remote.fetch_object(item, path, advance)
            except (DamagedError, MissingError):
                raise UserError(f"{address}: {name} changed while it was being fetched; try again") from None
            file = File(sha256=sha256, size=item.size)
            objects.keep(path, file.blob)
        with noting:
            files[name] = file
            if time.monotonic() - noted_at > _NOTE_EVERY:  # a process that is killed loses no more than these seconds
                note()
                noted_at = time.monotonic()

    with transfer("fetching", sum(one.size for one in listed)) as advance:
        try:
            each(fetch, listed)
        finally:
            note()
    return folder
