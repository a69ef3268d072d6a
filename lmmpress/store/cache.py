"""The cache: a folder on this machine's disk that keeps what was fetched from a bucket.

The processes of a machine share it. While one of them fetches a blob, the others wait for it. A file that a process
uses is never removed: each process has a hard link of its own to it, so the file has more than one link.
"""

import errno
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from lmmpress.errors import UserError
from lmmpress.store.bucket import BucketObjects
from lmmpress.store.directory import check_file, copy_checked, link
from lmmpress.store.file_locks import lock_of
from lmmpress.store.kinds import BLOBS
from lmmpress.store.objects import Advance, Blob, DamagedError, Entry, Found, Leftover

_ABANDONED = 86400.0  # seconds
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SHARERS = 16
"""Each process may use this fraction (1/16) of the free space before it lists the whole cache again."""
_MARGIN = 64
"""Where files have to be removed, this fraction (1/64) of the limit is freed too, so that the next file need not list
the cache again."""


class CachedObjects:
    """A bucket's objects behind a cache in `folder`, of `limit` bytes.

    The folder holds `blobs/` that were fetched or sent, `partial/` of what is being fetched, `locks/` and `work/`.
    """

    def __init__(self, remote: BucketObjects, folder: Path, limit: int) -> None:
        self.remote, self.address = remote, remote.address
        self._folder, self._limit = folder.absolute(), limit
        self._spare, self._counting = 0, threading.Lock()
        try:
            for name in (BLOBS.folder, "partial", "locks", "work"):
                (self._folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"the cache {folder} cannot be used: {error.strerror}; set LMMPRESS_CACHE") from None

    @property
    def workspace(self) -> Path:
        return self._folder / "work"

    def now(self) -> float:
        return self.remote.now()

    def read(self, name: str) -> Found | None:
        return self.remote.read(name)

    def write(self, name: str, data: bytes, tag: str | None) -> None:
        self.remote.write(name, data, tag)

    def delete(self, name: str) -> None:
        self.remote.delete(name)

    def entries(self, prefix: str) -> Iterator[Entry]:
        return self.remote.entries(prefix)

    def holds(self, blob: Blob) -> bool:
        return self.remote.holds(blob)

    def check(self, blob: Blob) -> None:
        self.remote.check(blob)

    def leftovers(self) -> Iterator[Leftover]:
        return self.remote.leftovers()

    def send(self, path: Path, blob: Blob, advance: Advance) -> None:
        self.remote.send(path, blob, advance)
        self.keep(path, blob)

    def fetch(self, blob: Blob, path: Path, advance: Advance) -> None:
        if self.take(blob, path):
            advance(blob.size)
            return
        kept = self._folder / blob.name
        with self._alone(blob):
            if self.take(blob, path):  # another process has fetched it while this one waited
                advance(blob.size)
            else:
                self._fetch(blob, kept, path, advance)

    def take(self, blob: Blob, path: Path) -> bool:
        """Make the new file `path` with a blob's bytes, if the cache has them. Sends no request."""
        kept = self._folder / blob.name
        if not _has_size_of(kept, blob):
            return False
        try:
            os.utime(kept)
            _link_or_copy(kept, path)
            check_file(path, blob)
        except FileNotFoundError:  # removed meanwhile, to make room
            return False
        except DamagedError:  # the disk has changed the bytes: fetch them again
            path.unlink()
            kept.unlink(missing_ok=True)
            return False
        return True

    def keep(self, path: Path, blob: Blob) -> None:
        """Put a file that was just sent or fetched into the cache. Nothing happens where the disk is full."""
        kept = self._folder / blob.name
        if _has_size_of(kept, blob):
            return
        aside = self.workspace / f"aside-{uuid.uuid4().hex}"
        try:
            self._make_room(blob.size)
            kept.parent.mkdir(exist_ok=True)
            if path.is_relative_to(self.workspace):
                _link_or_copy(path, aside)
            else:
                copy_checked(path, aside, blob, lambda _: None)
            aside.replace(kept)
            kept.chmod(0o444)
        except DamagedError:  # the user has changed the file since it was sent
            pass
        except OSError as error:
            if error.errno not in _FULL:
                raise
        finally:
            aside.unlink(missing_ok=True)

    def _fetch(self, blob: Blob, kept: Path, path: Path, advance: Advance) -> None:
        """Fetch a blob into the cache and to `path`. Bytes that arrive damaged are fetched once more."""
        partial = self._folder / "partial" / blob.sha256
        self.remote.expect(blob)  # first: a stranger may have written a false size, and files would go to make room
        try:
            self._make_room(blob.size)
            try:
                self.remote.fetch(blob, partial, advance)
            except DamagedError:
                self.remote.fetch(blob, partial, lambda _: None)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                self._make_room(blob.size, limit=0)
                self.remote.fetch(blob, partial, lambda _: None)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            for left in (partial, partial.with_name(f"{partial.name}.parts")):
                left.unlink(missing_ok=True)
            raise UserError(
                f"the cache {self._folder} is full: {blob.size / 1e9:.2f} GB are needed and no file in it can be "
                "removed; free some space on that disk, or name another folder in LMMPRESS_CACHE"
            ) from None
        _link_or_copy(partial, path)
        kept.parent.mkdir(exist_ok=True)
        partial.replace(kept)
        with suppress(FileNotFoundError):  # removed already, to make room
            kept.chmod(0o444)

    def _make_room(self, size: int, limit: int | None = None) -> None:
        """Remove files that no process uses, those used longest ago first, until `size` more bytes fit into the limit.

        The cache may have many thousands of files, so it is not listed each time. A process lists it when it has used
        up its share of the space that was free the last time.
        """
        with self._counting:
            if limit is None and size <= self._spare:
                self._spare -= size
                return
        limit = self._limit if limit is None else limit
        with lock_of(self._folder / "locks" / "room"):
            for left in (*self._folder.glob("partial/*"), *self.workspace.glob("aside-*")):
                with suppress(FileNotFoundError):
                    if time.time() - left.stat().st_mtime > _ABANDONED:  # no process has carried it on
                        left.unlink()
            held = []
            for path in self._folder.glob(f"{BLOBS.folder}/*/*"):
                with suppress(FileNotFoundError):
                    held.append((path.stat(), path))
            total = sum(state.st_size for state, _ in held)
            aim = limit if total + size <= limit else limit - limit // _MARGIN
            for state, path in sorted(held, key=lambda pair: pair[0].st_mtime):
                if total + size <= aim:
                    break
                if state.st_nlink == 1:
                    path.unlink(missing_ok=True)
                    total -= state.st_size
            with self._counting:
                self._spare = max(0, limit - total - size) // _SHARERS

    def _alone(self, blob: Blob) -> FileLock:
        return lock_of(self._folder / "locks" / blob.sha256[:2])


def _has_size_of(path: Path, blob: Blob) -> bool:
    try:
        return path.stat().st_size == blob.size
    except FileNotFoundError:
        return False


def _link_or_copy(source: Path, target: Path) -> None:
    if not link(source, target):
        shutil.copyfile(source, target)
