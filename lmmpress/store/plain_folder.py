"""Directories that were copied into a bucket file by file, outside of any store: a checkpoint, or a data set."""

import hashlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lmmpress.errors import UserError
from lmmpress.host.extras import needs
from lmmpress.printing.credentials import address_holds_credentials, address_without_credentials
from lmmpress.progress import transfer
from lmmpress.store.cache_settings import cache_folder, cache_limit
from lmmpress.store.manifest import File, Manifest, parse_manifest, safe_names
from lmmpress.store.objects import Advance, DamagedError, MissingError, UnreadableError
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
    from lmmpress.store.cache import CachedObjects

    return CachedObjects(BucketObjects(address), cache_folder(), cache_limit())


def fetch_folder(
    address: str,
    landmark: str,
    what: str,
    wanted: Callable[[str], bool],
    only: Callable[[str], bool] | None = None,
) -> Path:
    """A local directory with the files of a directory in a bucket, those whose names are `wanted`; of these `only`
    some, if that is given.

    UserError where it does not hold the file `landmark`; `what` names it in errors.
    """
    folder = BucketFolder(address, landmark, what, wanted)
    folder.bring(name for name in folder.names if only is None or only(name))
    return folder.path


class BucketFolder:
    """A directory in a bucket whose files are fetched when they are asked for, into the local directory `path`.

    No sha256 is known of these files before they are fetched. Those that were computed then are noted, under a hash of
    the bucket's list of names, sizes and tags. As long as the list stays the same, files in the cache are used, and the
    list is the only request. `key` is that hash.
    """

    def __init__(self, address: str, landmark: str | None, what: str, wanted: Callable[[str], bool]) -> None:
        self.address = address
        self._objects = open_bucket(address)
        self._listed = {one.name: one for one in self._objects.remote.tagged("") if wanted(one.name)}
        if landmark is not None and landmark not in self._listed:
            raise UserError(f"{address}: there is no {what}: it has no {landmark}")
        if not self._listed:
            raise UserError(f"{address}: there is no {what}: no object has this prefix")
        try:
            safe_names(self._listed)
        except ValueError as error:
            raise UserError(f"{address} is not the folder of a {what}: {error}") from None
        content = [(one.name, one.size, one.tag) for one in self._listed.values()]
        self.key = hashlib.sha256(repr((address, content)).encode()).hexdigest()
        self._noted = self._objects.workspace.parent / "folders" / f"{self.key}.json"
        self._files: dict[str, File] = {}
        with suppress(FileNotFoundError, UnreadableError):
            self._files = parse_manifest(self._noted.read_bytes(), str(self._noted.parent), self._noted.name).files
        self._noting, self._noted_at = threading.Lock(), time.monotonic()
        self._brought: set[str] = set()
        self.path = Path(tempfile.mkdtemp(dir=own_folder(self._objects.workspace)))

    @property
    def names(self) -> list[str]:
        """The names of all files, in the order of the bucket's list."""
        return list(self._listed)

    def bring(self, names: Iterable[str]) -> None:
        """Fetch the files of these names that are not here yet; names that the bucket does not have are left out."""
        lacking = self._listed.keys() - self._brought
        missing = [self._listed[name] for name in dict.fromkeys(names) if name in lacking]
        if not missing:
            return
        with transfer("fetching", sum(one.size for one in missing)) as advance:
            try:
                each(lambda item: self._fetch(item, advance), missing)
            finally:
                self._note()

    def _fetch(self, item: "TaggedObject", advance: Advance) -> None:
        path, known = self.path / item.name, self._files.get(item.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if known and self._objects.take(known.blob, path):
            file = known
            advance(item.size)
        else:
            try:
                sha256 = self._objects.remote.fetch_object(item, path, advance)
            except (DamagedError, MissingError):
                raise UserError(f"{self.address}: {item.name} changed while it was being fetched; try again") from None
            file = File(sha256=sha256, size=item.size)
            self._objects.keep(path, file.blob)
        with self._noting:
            self._files[item.name] = file
            self._brought.add(item.name)
            if time.monotonic() - self._noted_at > _NOTE_EVERY:  # a process that is killed loses no more than this
                self._note()

    def _note(self) -> None:
        self._noted.parent.mkdir(exist_ok=True)
        aside = self._noted.with_name(f"{self._noted.name}.{self.path.name}")
        aside.write_text(Manifest(files=self._files).model_dump_json(), "utf-8")
        aside.replace(self._noted)
        self._noted_at = time.monotonic()
