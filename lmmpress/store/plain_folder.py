"""What somebody put into a bucket as it is, not into a store: a checkpoint's directory, or a data set's."""

import hashlib
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lmmpress.errors import UserError
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
            f"{address_without_credentials(address)}: credentials are no part of an address; give them in the "
            "environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
        )


def open_bucket(address: str) -> "CachedObjects":
    from lmmpress.store.bucket import BucketObjects
    from lmmpress.store.cache import CachedObjects, cache_folder, cache_limit

    return CachedObjects(BucketObjects(address), cache_folder(), cache_limit())


def fetch_folder(address: str, landmark: str, what: str, wanted: Callable[[str], bool]) -> Path:
    """A directory that somebody put into a bucket as it is, if it holds the file `landmark`: the files whose names are
    `wanted`.

    Nothing there says what its bytes should be. So their sha256 are taken when they are fetched first, and noted under
    the bucket's own list of names, sizes and tags: as long as that stays the same, one request is all it takes.
    """
    objects = open_bucket(address)
    listed = [one for one in objects.far.tagged("") if wanted(one.name)]
    if not any(one.name == landmark for one in listed):
        raise UserError(f"{address}: there is no {what}: it has no {landmark}")
    try:
        safe_names(one.name for one in listed)
    except ValueError as error:
        raise UserError(f"{address} is no folder of a {what}: {error}") from None
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
        if name in known and objects.at_hand(known[name].blob, path):
            file = known[name]
            advance(item.size)
        else:
            try:
                sha256 = objects.far.fetch_object(item, path, advance)
            except (DamagedError, MissingError):
                raise UserError(f"{address}: {name} changed while it was being fetched; try again") from None
            file = File(sha256=sha256, size=item.size)
            objects.keep(path, file.blob)
        with noting:
            files[name] = file
            if time.monotonic() - noted_at > _NOTE_EVERY:  # so that being killed costs no more than that
                note()
                noted_at = time.monotonic()

    with transfer("fetching", sum(one.size for one in listed)) as advance:
        try:
            each(fetch, listed)
        finally:
            note()
    return folder
