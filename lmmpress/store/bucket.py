"""Objects in an S3 bucket."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lmmpress.errors import UserError
from lmmpress.host.patience import first_patience
from lmmpress.host.patience import patience as usual_patience
from lmmpress.store.connection import SILENCE, connect
from lmmpress.store.download import Downloader
from lmmpress.store.kinds import BLOBS
from lmmpress.store.objects import (
    SMALL,
    Advance,
    Blob,
    ChangedError,
    DamagedError,
    Entry,
    Found,
    Leftover,
    MissingError,
    UnreadableError,
)
from lmmpress.store.retries import BucketRequests
from lmmpress.store.s3_calls import Listed, RequestError, S3Bucket
from lmmpress.store.upload import Uploader

PART = 64 << 20  # bytes
_AT_A_TIME = 4  # parts in memory or under way
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_JSON = "application/json"


@dataclass(frozen=True, order=True)
class TaggedObject:
    """An object of a bucket: its name below the prefix, its bytes, and a tag that changes with every write."""

    name: str
    size: int
    tag: str


class BucketObjects:
    """Objects of a bucket whose names start with a prefix: all but a workspace, which `cache.CachedObjects` adds.

    `part` in bytes, at least 5 MiB as S3 asks for. A request that hears nothing for `silence` seconds is made again,
    and so is one that failed, until nothing has moved for `patience` seconds; see lmmpress.host.patience.
    """

    def __init__(self, address: str, part: int = PART, patience: float | None = None, silence: float = SILENCE) -> None:
        self.address = address.rstrip("/")
        bucket, _, prefix = self.address.removeprefix("s3://").partition("/")
        if "@" in address or not _BUCKET.fullmatch(bucket):
            # the address is not repeated: the part before an @ may be a password
            raise UserError("a store in a bucket is written s3://bucket/prefix; credentials come from the environment")
        self._part = part
        self._bucket = S3Bucket(connect(silence), bucket)
        seconds = usual_patience() if patience is None else patience
        self._requests = BucketRequests(
            self._bucket, self.address, f"{prefix}/" if prefix else "", seconds, first_patience()
        )
        self._quote = '"'
        pool = ThreadPoolExecutor(_AT_A_TIME, "store")
        self._uploader = Uploader(self._requests, pool, part, _AT_A_TIME)
        self._downloader = Downloader(self._requests, pool, part)

    def now(self) -> float:
        if self._requests.seconds_ahead is None:
            self.read("clock")  # there is no such object, but every answer has a date
        return time.time() + (self._requests.seconds_ahead or 0.0)

    def read(self, name: str) -> Found | None:
        def get() -> Found:
            download = self._requests.of_object(name, lambda: self._bucket.get(self._requests.key(name)))
            if (download.size or 0) > SMALL:
                download.close()
                raise UnreadableError(self.address, name, f"has more than {SMALL} bytes: too many for such an object")
            try:
                data = download.read()
            finally:
                download.release()
            self._requests.answered(download.date)
            return Found(data, download.tag, download.modified)

        return self._requests.ask_for(get, absent=("NoSuchKey",))

    def write(self, name: str, data: bytes, tag: str | None) -> None:
        key, match = self._requests.key(name), None if tag is None else self._quote + tag + self._quote
        refused = ("PreconditionFailed", "NoSuchKey")
        try:
            self._requests.ask(lambda: self._bucket.put_if(key, data, _JSON, match), expected=refused)
        except RequestError:
            # if the answer to a write was lost, the second try fails because the first has succeeded
            found = self.read(name)
            if found is not None and found.data == data:
                return
            if found is None or found.tag != tag or not self._quote:
                raise ChangedError(name) from None
            # refused though the object has this tag: older Ceph takes the quotes for a part of the tag
            self._quote = ""
            self.write(name, data, tag)

    def delete(self, name: str) -> None:
        self._requests.ask_for(lambda: self._bucket.remove(self._requests.key(name)), absent=("NoSuchKey",))

    def entries(self, prefix: str) -> Iterator[Entry]:
        for name, listed in self._listed(prefix).items():
            yield Entry(name, listed.size, listed.modified)

    def tagged(self, prefix: str) -> list[TaggedObject]:
        """All objects whose names start so, in order."""
        return sorted(TaggedObject(name, listed.size, listed.tag) for name, listed in self._listed(prefix).items())

    def holds(self, blob: Blob) -> bool:
        return self._requests.size_of(blob.name) == blob.size

    def expect(self, blob: Blob) -> None:
        """Check the size of a blob of more than one part; DamagedError or MissingError where it is wrong.

        A smaller blob is not asked for: the cache may make room for one part without knowing.
        """
        if blob.size <= self._part:
            return
        size = self._requests.size_of(blob.name)
        if size is None:
            raise MissingError(blob)
        if size != blob.size:
            raise DamagedError(blob, f"{size} bytes of {blob.size}")

    def send(self, path: Path, blob: Blob, advance: Advance) -> None:
        self._uploader.send(path, blob, advance)

    def fetch(self, blob: Blob, path: Path, advance: Advance) -> None:
        """Ranges that are there already, of a fetch that was cut off, are not asked for again."""
        self._downloader.fetch(blob, path, advance)

    def fetch_object(self, wanted: TaggedObject, path: Path, advance: Advance) -> str:
        """The bytes of any object as the file `path`; their sha256. DamagedError where it has another tag by now."""
        return self._downloader.fetch_object(wanted.name, wanted.size, wanted.tag, path, advance)

    def check(self, blob: Blob) -> None:
        self._downloader.check(blob)

    def leftovers(self) -> Iterator[Leftover]:
        # only of blobs: nothing else is sent in parts, and a bucket may have other users
        prefix = self._requests.key(BLOBS.prefix)
        for upload in self._requests.ask(lambda: self._bucket.uploads(prefix)):
            name = f"uploads/{upload.identifier}/{upload.name}"
            yield Leftover(name, 0, upload.begun, partial(self._abort, upload.name, upload.identifier))

    def _abort(self, key: str, upload: str) -> None:
        self._requests.ask_for(lambda: self._bucket.abort_upload(key, upload), absent=("NoSuchUpload",))

    def _listed(self, prefix: str) -> dict[str, Listed]:
        """What the server lists, by the names without the prefix. The objects with which consoles show folders, whose
        names end with a slash, are left out."""
        under = self._requests.key(prefix)
        listed = self._requests.ask(lambda: list(self._bucket.listed(under)))
        named = {one.name.removeprefix(self._requests.prefix): one for one in listed}
        return {name: one for name, one in named.items() if name and not name.endswith("/")}
