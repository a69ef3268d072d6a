"""Files go up into a bucket as blobs; large ones in parts, several at a time. An upload that was cut off is carried on
by whoever sends the same bytes next."""

import hashlib
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lmmpress.store.directory import match
from lmmpress.store.objects import Advance, Blob
from lmmpress.store.parallel import finish
from lmmpress.store.retries import BucketRequests, user_error
from lmmpress.store.s3_calls import MOST_PARTS, RequestError, SentPart

_BYTES = "application/octet-stream"
_NO_UPLOAD = "NoSuchUpload"


@dataclass(frozen=True)
class _Upload:
    """An upload that was begun, and the parts that the server has, by number."""

    identifier: str
    parts: dict[int, SentPart]


class Uploader:
    """Sends files to a bucket, in parts of `part` bytes, of which `at_a_time` are in memory or under way."""

    def __init__(self, requests: BucketRequests, pool: ThreadPoolExecutor, part: int, at_a_time: int) -> None:
        self._requests, self._bucket = requests, requests.bucket
        self._pool, self._part = pool, part
        self._slots = threading.BoundedSemaphore(at_a_time)

    def send(self, path: Path, blob: Blob, advance: Advance) -> None:
        """A file's bytes as a blob, whole or not at all; DamagedError where they do not match its name."""
        if blob.size > self._part:
            self._send_in_parts(path, blob, advance)
            return
        data = path.read_bytes()
        match(blob, hashlib.sha256(data).hexdigest(), len(data))
        key = self._requests.key(blob.name)
        self._requests.ask(lambda: self._bucket.put(key, data, _BYTES))
        advance(blob.size)

    def _send_in_parts(self, path: Path, blob: Blob, advance: Advance, again: bool = True) -> None:
        size = max(self._part, -(-blob.size // MOST_PARTS))
        key = self._requests.key(blob.name)
        upload = self._open(key, size)
        tags: dict[int, str] = {}
        jobs: list[Future[None]] = []
        sha, read = hashlib.sha256(), 0

        def put(number: int, data: bytes) -> None:
            if upload.parts.get(number) == SentPart(number, len(data), _md5(data)):
                tags[number] = upload.parts[number].tag
            else:
                tags[number] = self._requests.ask(
                    lambda: self._bucket.put_part(key, upload.identifier, number, data), expected=(_NO_UPLOAD,)
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
            finish(jobs, read_all)
            match(blob, sha.hexdigest(), read)
            self._requests.ask(
                lambda: self._complete(blob, upload.identifier, tags), expected=(_NO_UPLOAD, "InvalidPart")
            )
        except RequestError as error:
            # another process was first with the same bytes, or the answer to our own completion was lost
            if self._requests.size_of(blob.name) == blob.size:
                return
            if error.code == _NO_UPLOAD and again:  # the server no longer has it: once more from the start
                self._send_in_parts(path, blob, lambda _: None, again=False)
                return
            raise user_error(error, self._requests.address) from error

    def _complete(self, blob: Blob, upload: str, tags: dict[int, str]) -> None:
        """Make one object of the parts."""
        key = self._requests.key(blob.name)
        if not self._bucket.complete_upload(key, upload, tags) and self._requests.size_of(blob.name) != blob.size:
            raise RequestError("", "the server did not complete the upload", may_pass=True)

    def _open(self, key: str, size: int) -> _Upload:
        """An upload of that object: an unfinished one with its parts, or a new one."""
        for begun in self._requests.ask(lambda: self._bucket.uploads(key)):
            if begun.name == key:
                parts = self._parts(key, begun.identifier)
                # parts of another size would not end where ours begin
                if all(part.size == size for number, part in parts.items() if number < max(parts)):
                    return _Upload(begun.identifier, parts)
        return _Upload(self._requests.ask(lambda: self._bucket.begin_upload(key, _BYTES)), {})

    def _parts(self, key: str, upload: str) -> dict[int, SentPart]:
        listed = self._requests.ask_for(lambda: self._bucket.parts(key, upload), absent=(_NO_UPLOAD, "NoSuchKey")) or []
        return {part.number: part for part in listed}


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
