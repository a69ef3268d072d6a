"""A folder on this machine's disk that keeps what was fetched from a bucket, so that it is fetched once.

Several processes share it: one fetches a blob while the others wait for it, and a file that somebody uses is never
removed under him, because every user has a name of his own for it (a hard link).
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
from lmmpress.store.kinds import BLOBS
from lmmpress.store.locks import lock_of
from lmmpress.store.objects import Advance, Blob, DamagedError, Entry, Found, Leftover

_DEFAULT_GIGABYTES = 200.0
_ABANDONED = 86400.0  # seconds
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SHARERS = 16
"""So many processes may fill what is free before each looks at the whole cache again."""
_MARGIN = 64
"""Where something has to go, this part of the limit goes with it, so that not every file after it looks again."""


def cache_folder() -> Path:
    """LMMPRESS_CACHE, or lmmpress in the user's cache folder."""
    if told := os.environ.get("LMMPRESS_CACHE"):
        return Path(told)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lmmpress"


def cache_limit() -> int:
    """The bytes that the cache may hold: LMMPRESS_CACHE_GB, in 10^9 bytes."""
    told = os.environ.get("LMMPRESS_CACHE_GB", str(_DEFAULT_GIGABYTES))
    try:
        return int(float(told) * 1e9)
    except (ValueError, OverflowError):
        raise UserError(f"LMMPRESS_CACHE_GB={told} is no number of gigabytes") from None


class CachedObjects:
    """A bucket's objects, with `blobs/` that were fetched or sent, `partial/`, `locks/` and `work/` in a folder."""

    def __init__(self, far: BucketObjects, folder: Path, limit: int) -> None:
        self.far, self.address = far, far.address
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
        return self.far.now()

    def read(self, name: str) -> Found | None:
        return self.far.read(name)

    def write(self, name: str, data: bytes, tag: str | None) -> None:
        self.far.write(name, data, tag)

    def delete(self, name: str) -> None:
        self.far.delete(name)

    def entries(self, prefix: str) -> Iterator[Entry]:
        return self.far.entries(prefix)

    def holds(self, blob: Blob) -> bool:
        return self.far.holds(blob)

    def check(self, blob: Blob) -> None:
        self.far.check(blob)

    def leftovers(self) -> Iterator[Leftover]:
        return self.far.leftovers()

    def send(self, path: Path, blob: Blob, advance: Advance) -> None:
        self.far.send(path, blob, advance)
        self.keep(path, blob)

    def fetch(self, blob: Blob, path: Path, advance: Advance) -> None:
        if self.at_hand(blob, path):
            advance(blob.size)
            return
        kept = self._folder / blob.name
        with self._alone(blob):
            if self.at_hand(blob, path):  # another has fetched it while this one waited
                advance(blob.size)
            else:
                self._fetch(blob, kept, path, advance)

    def at_hand(self, blob: Blob, path: Path) -> bool:
        """Make the new file `path` of a blob if the cache has it; no request."""
        kept = self._folder / blob.name
        if not _whole(kept, blob):
            return False
        try:
            os.utime(kept)
            _take(kept, path)
            check_file(path, blob)
        except FileNotFoundError:  # removed for want of space meanwhile
            return False
        except DamagedError:  # the disk has changed it: it is fetched again
            path.unlink()
            kept.unlink(missing_ok=True)
            return False
        return True

    def keep(self, path: Path, blob: Blob) -> None:
        """Have a file that was just sent at hand; nothing happens where the disk is full."""
        kept = self._folder / blob.name
        if _whole(kept, blob):
            return
        aside = self.workspace / f"aside-{uuid.uuid4().hex}"
        try:
            self._make_room(blob.size)
            kept.parent.mkdir(exist_ok=True)
            if path.is_relative_to(self.workspace):
                _take(path, aside)
            else:
                copy_checked(path, aside, blob, lambda _: None)
            aside.replace(kept)
            kept.chmod(0o444)
        except DamagedError:  # the user has changed his file since it was sent
            pass
        except OSError as error:
            if error.errno not in _FULL:
                raise
        finally:
            aside.unlink(missing_ok=True)

    def _fetch(self, blob: Blob, kept: Path, path: Path, advance: Advance) -> None:
        """From the bucket into the cache and to `path`; a damaged answer is asked for again before it is believed."""
        partial = self._folder / "partial" / blob.sha256
        self.far.expect(blob)  # before others make room for a size that a stranger may have written down
        try:
            self._make_room(blob.size)
            try:
                self.far.fetch(blob, partial, advance)
            except DamagedError:
                self.far.fetch(blob, partial, lambda _: None)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                self._make_room(blob.size, limit=0)
                self.far.fetch(blob, partial, lambda _: None)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            for left in (partial, partial.with_name(f"{partial.name}.parts")):
                left.unlink(missing_ok=True)
            raise UserError(
                f"the cache {self._folder} is full: {blob.size / 1e9:.2f} GB are needed and nothing in it can go; free "
                "some space on that disk, or name another folder in LMMPRESS_CACHE"
            ) from None
        _take(partial, path)
        kept.parent.mkdir(exist_ok=True)
        partial.replace(kept)
        with suppress(FileNotFoundError):  # removed for want of space already
            kept.chmod(0o444)

    def _make_room(self, size: int, limit: int | None = None) -> None:
        """Remove the files used longest ago, of those that nobody uses, until `size` bytes more fit into the limit.

        All files are looked at only where this process has used its share of what was free the last time: a data set
        has thousands.
        """
        with self._counting:
            if limit is None and size <= self._spare:
                self._spare -= size
                return
        limit = self._limit if limit is None else limit
        with lock_of(self._folder / "locks" / "room"):
            for left in (*self._folder.glob("partial/*"), *self.workspace.glob("aside-*")):
                with suppress(FileNotFoundError):
                    if time.time() - left.stat().st_mtime > _ABANDONED:  # nobody came back for it
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


def _whole(path: Path, blob: Blob) -> bool:
    try:
        return path.stat().st_size == blob.size
    except FileNotFoundError:
        return False


def _take(source: Path, target: Path) -> None:
    if not link(source, target):
        shutil.copyfile(source, target)
