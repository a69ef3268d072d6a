"""Objects come down from a bucket in ranges, several at a time. A fetch that broke off is carried on.

Beside a file that is being fetched lies its journal, `NAME.parts`: which ranges of the file are complete.
"""

import hashlib
import os
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from lmmpress.store.directory import match
from lmmpress.store.objects import Advance, Blob, DamagedError, MissingError
from lmmpress.store.parallel import finish
from lmmpress.store.retries import BucketRequests
from lmmpress.store.s3_calls import RequestError

_CHUNK = 1 << 18  # bytes: of a connection that breaks, at most so much is lost


@dataclass(frozen=True)
class _Range:
    """Bytes of a file: where they begin, and how many they are."""

    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length


@dataclass(frozen=True)
class _Source:
    """What is fetched: an object's name, the blob that its bytes should be, and the tag that it must still have."""

    name: str
    blob: Blob
    tag: str | None = None


class Downloader:
    """Fetches objects of a bucket in ranges of `part` bytes."""

    def __init__(self, requests: BucketRequests, pool: ThreadPoolExecutor, part: int) -> None:
        self._requests, self._pool, self._part = requests, pool, part

    def fetch(self, blob: Blob, path: Path, advance: Advance) -> None:
        """A blob's bytes as the file `path`. Ranges that an earlier fetch has left there are not asked for again.

        DamagedError, and no file, where the bytes do not match the blob's name; MissingError where there is none.
        """
        try:
            match(blob, self._fetch(_Source(blob.name, blob), path, advance), path.stat().st_size)
        except DamagedError:
            for left in (path, _Journal(path, self._part).path):
                left.unlink(missing_ok=True)
            raise

    def fetch_object(self, name: str, size: int, tag: str, path: Path, advance: Advance) -> str:
        """The bytes of any object as the file `path`; their sha256. DamagedError where it no longer has that tag."""
        return self._fetch(_Source(name, Blob("", size), tag), path, advance)

    def check(self, blob: Blob) -> None:
        """Read all of a blob; DamagedError or MissingError where it is not what its name says."""
        sha, position = hashlib.sha256(), 0

        def more(chunk: bytes) -> None:
            nonlocal position
            sha.update(chunk)
            position += len(chunk)

        self._stream(_Source(blob.name, blob), _Range(0, blob.size), more)
        match(blob, sha.hexdigest(), position)

    def _fetch(self, source: _Source, path: Path, advance: Advance) -> str:
        """All bytes of an object as the file `path`; their sha256."""
        size = source.blob.size
        ranges = [_Range(start, min(self._part, size - start)) for start in range(0, max(size, 1), self._part)]
        journal = _Journal(path, self._part)
        done = journal.begin()
        with path.open("r+b" if done else "wb") as file:
            if size and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)  # a full disk is noticed now, not after an hour
            jobs: dict[int, Future[None]] = {}
            for number, part in enumerate(ranges):
                if number in done:
                    advance(part.length)
                    continue

                def work(number: int = number, part: _Range = part) -> None:
                    self._write(source, part, file.fileno(), advance)
                    if len(ranges) > 1:
                        journal.note(number)

                jobs[number] = self._pool.submit(work)
            sha256 = finish(list(jobs.values()), lambda: _hash_behind(path, ranges, jobs))
        journal.path.unlink()
        return sha256

    def _write(self, source: _Source, part: _Range, handle: int, advance: Advance) -> None:
        """A range of an object into an open file."""
        position = part.start

        def write(chunk: bytes) -> None:
            nonlocal position
            os.pwrite(handle, chunk, position)
            position += len(chunk)
            advance(len(chunk))

        self._stream(source, part, write)

    def _stream(self, source: _Source, part: _Range, take: Callable[[bytes], None]) -> None:
        """Give the bytes of a range to `take` in order, asking again for the rest wherever the answer breaks off."""
        patience, position = self._requests.patience(), part.start
        while position < part.end or part.length == 0:
            try:
                with closing(self._answer(source, _Range(position, part.end - position))) as chunks:
                    for chunk in chunks:
                        take(chunk)
                        position += len(chunk)
                        self._requests.answered()
                        patience.moved()
                if part.length == 0:
                    return
            except RequestError as error:
                if error.code == "NoSuchKey":
                    raise MissingError(source.blob) from None
                if error.code == "PreconditionFailed":
                    raise DamagedError(source.blob, "it was replaced meanwhile") from None
                if error.code == "InvalidRange":
                    raise DamagedError(source.blob, "it is shorter than its name says") from None
                patience.failed(error)

    def _answer(self, source: _Source, part: _Range) -> Generator[bytes]:
        """The bytes of one answer to a request for a range, in chunks."""
        size, left = source.blob.size, part.length
        # a whole object is asked for without a range, so that an empty one can be
        asked = _Range(0, 0) if (part.start, part.length) == (0, size) else part
        key = self._requests.key(source.name)
        download = self._requests.of_object(
            source.name, lambda: self._requests.bucket.get(key, asked.start, asked.length, source.tag)
        )
        try:
            if download.size not in (None, size):
                raise DamagedError(source.blob, f"{download.size} bytes of {size}")
            while chunk := download.read(min(_CHUNK, left) or 1):
                left -= len(chunk)
                yield chunk
                if left == 0:
                    download.read()  # the end of the answer: only then the connection can be used again
                    break
        finally:
            download.release() if left == 0 else download.close()


class _Journal:
    """Which ranges of a file are complete, in a file beside it. One that was cut into other ranges does not count."""

    def __init__(self, file: Path, part: int) -> None:
        self.path = file.with_name(f"{file.name}.parts")
        self._file, self._head = file, f"part={part}"

    def begin(self) -> set[int]:
        """The numbers of the ranges that are there already, counted from 0; a new journal where there are none."""
        lines = self.path.read_text("utf-8").split() if self.path.is_file() and self._file.is_file() else []
        if lines[:1] == [self._head]:
            return {int(line) for line in lines[1:] if line.isdigit()}
        self.path.write_text(f"{self._head}\n", "utf-8")
        return set()

    def note(self, number: int) -> None:
        """Note that a range is complete."""
        with self.path.open("a", encoding="utf-8") as lines:
            lines.write(f"{number}\n")


def _hash_behind(path: Path, ranges: list[_Range], jobs: dict[int, Future[None]]) -> str:
    """The sha256 of a file whose ranges are still being written, each read as soon as it is there."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        for number, part in enumerate(ranges):
            if number in jobs:
                jobs[number].result()
            left = part.length
            while left:
                block = file.read(min(_CHUNK, left))
                if not block:
                    raise OSError(f"{path} is shorter than what was written to it")
                sha.update(block)
                left -= len(block)
    return sha.hexdigest()
