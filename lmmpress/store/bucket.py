"""Objects in an S3 bucket, through the `minio` client.

Blobs above one part go up in parts, several at a time, and come down in ranges; both carry on where they were cut off.
Writes on condition, single parts and lists of uploads are not in the client's public interface: its names with an
underscore are used here and in probe.py alone, and tests/store/test_bucket.py holds them to what is expected of them.
"""

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from minio.datatypes import Part
from minio.error import S3Error, ServerError

from lmmpress.errors import UserError
from lmmpress.store.connection import FAILURES, SILENCE, Patience, connect
from lmmpress.store.directory import match
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

T = TypeVar("T")

PART = 64 << 20  # bytes
_MOST_PARTS = 10_000
_AT_A_TIME = 4  # parts in memory or under way
_CHUNK = 1 << 18  # of a connection that breaks, at most so much is lost
_FIRST_PATIENCE = 10.0  # seconds for the first answer ever: a wrong address should not take a minute to be told
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class BucketObjects:
    """Objects of a bucket whose names start with a prefix: all but a workspace, which `cache.CachedObjects` adds.

    `part` in bytes, at least 5 MiB as S3 asks for. A request that hears nothing for `silence` seconds is made again,
    and so is one that failed, until nothing has moved for `patience` seconds.
    """

    def __init__(self, address: str, part: int = PART, patience: float = 60.0, silence: float = SILENCE) -> None:
        self.address = address.rstrip("/")
        self._bucket, _, prefix = self.address.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        if "@" in address or not _BUCKET.fullmatch(self._bucket):
            # not repeated: what stands before an @ may be a password
            raise UserError("a store in a bucket is written s3://bucket/prefix; credentials come from the environment")
        self._part, self._seconds = part, patience
        self._client = connect(silence)
        self._answered = False
        self._quote = '"'
        self._ahead: float | None = None  # seconds that the server's clock is before ours
        self._pool = ThreadPoolExecutor(_AT_A_TIME, "store")
        self._slots = threading.BoundedSemaphore(_AT_A_TIME)

    def now(self) -> float:
        if self._ahead is None:
            self.read("clock")  # there is none, and the answer says so with a date
        return time.time() + (self._ahead or 0.0)

    def read(self, name: str) -> Found | None:
        def get() -> Found:
            response = self._there(name, lambda: self._client.get_object(self._bucket, self._prefix + name))
            if int(response.headers.get("Content-Length", 0)) > SMALL:
                response.close()
                raise UnreadableError(self.address, name, f"has more than {SMALL} bytes, and none has")
            try:
                data = response.read()
            finally:
                response.release_conn()
            self._note_clock(response.headers)
            modified = parsedate_to_datetime(response.headers["Last-Modified"]).timestamp()
            return Found(data, response.headers["ETag"].strip('"'), modified)

        try:
            return self._ask(get)
        except S3Error as error:
            self._note_clock(error.response.headers)
            if error.code == "NoSuchKey":
                return None
            raise self._unexpected(error) from error

    def write(self, name: str, data: bytes, tag: str | None) -> None:
        condition = {"If-None-Match": "*"} if tag is None else {"If-Match": self._quote + tag + self._quote}
        headers = {"Content-Type": "application/json"} | condition
        try:
            self._ask(lambda: self._client._put_object(self._bucket, self._prefix + name, data, dict(headers)))
        except S3Error as error:
            if error.code not in ("PreconditionFailed", "NoSuchKey"):
                raise self._unexpected(error) from error
            # an answer that was lost on its way makes the second try fail on what the first has written
            found = self.read(name)
            if found is not None and found.data == data:
                return
            if found is None or found.tag != tag or not self._quote:
                raise ChangedError(name) from None
            # refused though nothing has changed: a server (older Ceph) that takes the quotes for a part of the tag
            self._quote = ""
            self.write(name, data, tag)

    def delete(self, name: str) -> None:
        self._request(lambda: self._client.remove_object(self._bucket, self._prefix + name), ("NoSuchKey",))

    def entries(self, prefix: str) -> Iterator[Entry]:
        for name, item in self._listed(prefix):
            yield Entry(name, item.size or 0, item.last_modified.timestamp())

    def tagged(self, prefix: str) -> list[tuple[str, int, str]]:
        """Names, sizes and tags of all objects whose names start so, in order."""
        return sorted((name, item.size or 0, item.etag or "") for name, item in self._listed(prefix))

    def holds(self, blob: Blob) -> bool:
        name = self._prefix + blob.name
        found = self._request(
            lambda: self._there(blob.name, lambda: self._client.stat_object(self._bucket, name)), ("NoSuchKey",)
        )
        return found is not None and found.size == blob.size

    def expect(self, blob: Blob) -> None:
        """Ask whether a blob of more than one part has the size that it should; DamagedError or MissingError if not."""
        if blob.size <= self._part:  # so much may be made room for without asking
            return
        name = self._prefix + blob.name
        found = self._request(lambda: self._client.stat_object(self._bucket, name), ("NoSuchKey",))
        if found is None:
            raise MissingError(blob)
        if found.size != blob.size:
            raise DamagedError(blob, f"{found.size} bytes of {blob.size}")

    def send(self, path: Path, blob: Blob, advance: Advance) -> None:
        if blob.size > self._part:
            self._send_in_parts(path, blob, advance)
            return
        data = path.read_bytes()
        match(blob, hashlib.sha256(data).hexdigest(), len(data))
        name = self._prefix + blob.name
        headers = {"Content-Type": "application/octet-stream"}
        self._request(lambda: self._client._put_object(self._bucket, name, data, dict(headers)))
        advance(blob.size)

    def fetch(self, blob: Blob, path: Path, advance: Advance) -> None:
        """Ranges that are there already, of a fetch that was cut off, are not asked for again."""
        try:
            match(blob, self.fetch_object(blob.name, blob.size, path, advance, blob), path.stat().st_size)
        except DamagedError:
            for left in (path, _journal(path)):
                left.unlink(missing_ok=True)
            raise

    def fetch_object(
        self, name: str, size: int, path: Path, advance: Advance, blob: Blob | None = None, tag: str | None = None
    ) -> str:
        """Any object's bytes as the file `path`; their sha256. DamagedError where it no longer has that tag."""
        blob = blob or Blob("", size)
        parts = [(start, min(self._part, size - start)) for start in range(0, max(size, 1), self._part)]
        journal, done = _read_parts(path, self._part)
        with path.open("r+b" if done else "wb") as file:
            if size and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)  # a full disk is told now, not after an hour
            jobs: dict[int, Future[None]] = {}
            for number, (start, length) in enumerate(parts):
                if number in done:
                    advance(length)
                    continue

                def work(number: int = number, start: int = start, length: int = length) -> None:
                    self._fetch_range(name, blob, file.fileno(), start, length, advance, tag)
                    if len(parts) > 1:
                        with journal.open("a", encoding="utf-8") as lines:
                            lines.write(f"{number}\n")

                jobs[number] = self._pool.submit(work)
            sha256 = _finished(list(jobs.values()), lambda: _hash_behind(path, parts, jobs))
        journal.unlink()
        return sha256

    def check(self, blob: Blob) -> None:
        sha, position = hashlib.sha256(), 0

        def more(chunk: bytes) -> None:
            nonlocal position
            sha.update(chunk)
            position += len(chunk)

        self._stream(blob.name, blob, 0, blob.size, more)
        match(blob, sha.hexdigest(), position)

    def leftovers(self) -> Iterator[Leftover]:
        # of blobs alone: nothing else of ours goes up in parts, and a bucket may have other users
        for upload in self._uploads(self._prefix + BLOBS.prefix):
            key = upload.object_name
            name = f"uploads/{upload.upload_id}/{key}"
            yield Leftover(name, 0, upload.initiated_time.timestamp(), partial(self._abort, key, upload.upload_id))

    def _abort(self, key: str, upload: str) -> None:
        self._request(lambda: self._client._abort_multipart_upload(self._bucket, key, upload), ("NoSuchUpload",))

    def _send_in_parts(self, path: Path, blob: Blob, advance: Advance, again: bool = True) -> None:
        size = max(self._part, -(-blob.size // _MOST_PARTS))
        name = self._prefix + blob.name
        upload, there = self._open_upload(name, size)
        tags: dict[int, str] = {}
        jobs: list[Future[None]] = []
        sha, read = hashlib.sha256(), 0

        def put(number: int, data: bytes) -> None:
            if number in there and there[number] == (len(data), _md5(data)):
                tags[number] = there[number][1]
            else:
                tags[number] = self._request(
                    lambda: self._client._upload_part(self._bucket, name, data, None, upload, number)
                )
            advance(len(data))

        def read_all() -> None:
            nonlocal read
            with path.open("rb") as file:
                for number in range(1, -(-blob.size // size) + 1):
                    self._slots.acquire()
                    if any(job.done() and job.exception() for job in jobs):
                        self._slots.release()
                        return
                    data = file.read(size)
                    sha.update(data)
                    read += len(data)
                    try:
                        jobs.append(self._pool.submit(put, number, data))
                    except BaseException:
                        self._slots.release()
                        raise
                    jobs[-1].add_done_callback(lambda _: self._slots.release())

        try:
            _finished(jobs, read_all)
            match(blob, sha.hexdigest(), read)
            parts = [Part(number, tags[number]) for number in sorted(tags)]
            self._ask(lambda: self._complete(blob, name, upload, parts))
        except S3Error as error:
            # another writer of the same bytes was first, or the answer to our own completion was lost
            if error.code in ("NoSuchUpload", "InvalidPart") and self.holds(blob):
                return
            if error.code == "NoSuchUpload" and again:  # the server forgot it: once more from the start
                self._send_in_parts(path, blob, lambda _: None, again=False)
                return
            raise self._unexpected(error) from error

    def _complete(self, blob: Blob, name: str, upload: str, parts: list[Part]) -> None:
        """Make one object of the parts. A server may begin to answer 200 and end with an error."""
        result = self._client._complete_multipart_upload(self._bucket, name, upload, parts)
        if not result.etag and not self.holds(blob):
            raise ServerError("the upload was not completed", 500)

    def _open_upload(self, name: str, size: int) -> tuple[str, dict[int, tuple[int, str]]]:
        """An upload of that object: one that was begun and never ended, with the parts it has, or a new one."""
        for upload in self._uploads(name):
            if upload.object_name == name:
                listed = self._request(
                    partial(self._client._list_parts, self._bucket, name, upload.upload_id, max_parts=_MOST_PARTS),
                    ("NoSuchUpload", "NoSuchKey"),
                )
                parts = {
                    part.part_number: (part.size, part.etag.strip('"')) for part in (listed.parts if listed else ())
                }
                # parts of another size would not end where ours begin
                if all(length == size for number, (length, _) in parts.items() if number < max(parts)):
                    return upload.upload_id, parts
        headers = {"Content-Type": "application/octet-stream"}
        return self._request(lambda: self._client._create_multipart_upload(self._bucket, name, dict(headers))), {}

    def _listed(self, prefix: str) -> list[tuple[str, Any]]:
        """What the server lists, by its names here. What consoles put there to show a folder is no object of ours."""
        under = self._prefix + prefix
        listed = self._request(lambda: list(self._client.list_objects(self._bucket, under, recursive=True)))
        named = [(item.object_name.removeprefix(self._prefix), item) for item in listed]
        return [(name, item) for name, item in named if name and not name.endswith("/")]

    def _uploads(self, prefix: str) -> list[Any]:
        listed = self._request(lambda: self._client._list_multipart_uploads(self._bucket, prefix=prefix))
        return list(listed.uploads)

    def _fetch_range(
        self, name: str, blob: Blob, handle: int, start: int, length: int, advance: Advance, tag: str | None
    ) -> None:
        position = start

        def write(chunk: bytes) -> None:
            nonlocal position
            os.pwrite(handle, chunk, position)
            position += len(chunk)
            advance(len(chunk))

        self._stream(name, blob, start, length, write, tag)

    def _stream(
        self, name: str, blob: Blob, start: int, length: int, take: Callable[[bytes], None], tag: str | None = None
    ) -> None:
        """Hand the bytes of a range to `take` in order, asking again for the rest wherever the answer breaks off."""
        patience, position, end = self._patience(), start, start + length
        while position < end or length == 0:
            try:
                # a whole object is asked for without a range, so that an empty one can be
                whole = position == 0 and length == blob.size
                ask = partial(
                    self._client.get_object,
                    self._bucket,
                    self._prefix + name,
                    offset=0 if whole else position,
                    length=0 if whole else end - position,
                    request_headers={"If-Match": f'"{tag}"'} if tag else None,
                )
                response = self._there(name, ask)
                try:
                    held = response.headers.get("Content-Range", "").rpartition("/")[2]
                    held = held or response.headers.get("Content-Length", "")
                    if held and int(held) != blob.size:
                        raise DamagedError(blob, f"{held} bytes of {blob.size}")
                    while chunk := response.read(min(_CHUNK, end - position) or 1):
                        take(chunk)
                        position += len(chunk)
                        self._answered = True
                        patience.moved()
                        if position == end:
                            break
                    if length == 0:
                        return
                    if position == end:
                        response.read()
                finally:
                    response.release_conn() if position == end else response.close()
            except S3Error as error:
                if error.code == "NoSuchKey":
                    raise MissingError(blob) from None
                if error.code == "PreconditionFailed":
                    raise DamagedError(blob, "it was replaced meanwhile") from None
                if error.code == "InvalidRange":
                    raise DamagedError(blob, "it is shorter than its name says") from None
                patience.failed(error)
            except FAILURES as error:
                patience.failed(error)

    def _there(self, name: str, request: Callable[[], T]) -> T:
        """The answer to a request for an object; S3Error NoSuchKey where there is none.

        Where keys may list under their prefix alone, Ceph before version 21 answers AccessDenied for what is not there.
        Then the list of that one name, which they may have, tells which of the two it is.
        """
        try:
            return request()
        except S3Error as error:
            if error.code != "AccessDenied" or self._may_be_there(name):
                raise
            raise error.copy("NoSuchKey", "no such key") from None

    def _may_be_there(self, name: str) -> bool:
        wanted = self._prefix + name
        try:
            # the name itself comes before all that begin with it
            first = next(iter(self._client.list_objects(self._bucket, wanted, recursive=True)), None)
        except S3Error:
            return True
        return first is not None and first.object_name == wanted

    def _patience(self) -> Patience:
        return Patience(self._seconds if self._answered else min(_FIRST_PATIENCE, self._seconds), self.address)

    def _ask(self, request: Callable[[], T]) -> T:
        try:
            answer = self._patience().ask(request)
        except S3Error:
            self._answered = True
            raise
        self._answered = True
        return answer

    def _request(self, request: Callable[[], Any], absent: tuple[str, ...] = ()) -> Any:
        """The answer; None where the server says that what was asked for is not there, in one of these words.

        NoSuchUpload comes out as it is where it is not expected.
        """
        try:
            return self._ask(request)
        except S3Error as error:
            if error.code in absent:
                return None
            if error.code == "NoSuchUpload":
                raise
            raise self._unexpected(error) from error

    def _unexpected(self, error: S3Error) -> UserError:
        return UserError(f"{self.address}: the server answers {error.code}")

    def _note_clock(self, headers: Any) -> None:
        if date := headers.get("Date"):
            self._ahead = parsedate_to_datetime(date).timestamp() - time.time()


def _journal(path: Path) -> Path:
    return path.with_name(f"{path.name}.parts")


def _read_parts(path: Path, part: int) -> tuple[Path, set[int]]:
    """The ranges of a file that are there already; none where they were cut otherwise."""
    journal = _journal(path)
    lines = journal.read_text("utf-8").split() if journal.is_file() and path.is_file() else []
    if lines[:1] == [f"part={part}"]:
        return journal, {int(line) for line in lines[1:] if line.isdigit()}
    journal.write_text(f"part={part}\n", "utf-8")
    return journal, set()


def _hash_behind(path: Path, parts: list[tuple[int, int]], jobs: dict[int, Future[None]]) -> str:
    """The sha256 of a file whose parts are still being written, each read as soon as it is there."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        for number, (_, length) in enumerate(parts):
            if number in jobs:
                jobs[number].result()
            left = length
            while left:
                block = file.read(min(_CHUNK, left))
                if not block:
                    raise OSError(f"{path} is shorter than what was written to it")
                sha.update(block)
                left -= len(block)
    return sha.hexdigest()


def _finished(jobs: list[Future[None]], work: Callable[[], T]) -> T:
    """What `work` gives, once it and all jobs have ended; where one fails, those not begun never begin."""
    try:
        result = work()
        wait(jobs, return_when=FIRST_EXCEPTION)
    except BaseException:
        for job in jobs:
            job.cancel()
        wait(jobs)
        raise
    for job in jobs:
        if job.done() and job.exception():
            for other in jobs:
                other.cancel()
            wait(jobs)
            job.result()
    return result


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
