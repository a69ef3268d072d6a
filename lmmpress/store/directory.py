"""Objects in a local directory.

A file is written under another name, forced to the disk, and renamed. Small objects are compared under a file lock.
"""

import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lmmpress.errors import UserError
from lmmpress.files.digest import sha256_of
from lmmpress.store.file_locks import lock_of
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
from lmmpress.store.workspace import until_exit

_BLOCK = 1 << 22
_ASIDE = "aside-"  # how the names of files begin that are being written
_PRIVATE = ("work", "lock")  # names in the folder that are not objects
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class DirectoryObjects:
    """Each object is a file of its name. `work/` holds files that are being written, `lock` is for compare-and-swap.

    The root may be a link; nothing below it may be one. With `make` a missing folder is made.
    """

    def __init__(self, root: Path, make: bool = True) -> None:
        self._root = root.absolute()
        self.address = str(self._root)
        self._elsewhere: Path | None = None
        if make:
            try:
                self._path("work/").mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError):
                raise UserError(f"store {root}: there is a file of that name") from None

    @property
    def workspace(self) -> Path:
        """`work/`; where that cannot be written, as on a read-only disk, a temporary folder of this process."""
        work = self._path("work/")
        if self._elsewhere is None:
            try:
                work.mkdir(exist_ok=True)
            except OSError as error:
                if error.errno not in _READ_ONLY:
                    raise
            if os.access(work, os.W_OK | os.X_OK):
                return work
            self._elsewhere = Path(tempfile.mkdtemp(prefix="lmmpress-"))
            until_exit(self._elsewhere)
        return self._elsewhere

    def now(self) -> float:
        # a shared disk may have another clock than this machine: write a file and read its time
        handle, name = tempfile.mkstemp(prefix=_ASIDE, dir=self.workspace)
        os.close(handle)
        seconds = Path(name).stat().st_mtime
        Path(name).unlink()
        return seconds

    def read(self, name: str) -> Found | None:
        path = self._path(name)
        state = _state(path)
        if state is None:
            return None
        if not stat.S_ISREG(state.st_mode):
            raise UnreadableError(self.address, name, "is no regular file")
        if state.st_size > SMALL:
            raise UnreadableError(self.address, name, f"has {state.st_size} bytes, too many for such an object")
        try:
            with path.open("rb") as file:
                data, modified = file.read(), os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return None
        return Found(data, hashlib.sha256(data).hexdigest(), modified)

    def write(self, name: str, data: bytes, tag: str | None) -> None:
        with self._aside() as aside:
            aside.write_bytes(data)
            with lock_of(self._root / "lock"):
                found = self.read(name)
                if (found.tag if found else None) != tag:
                    raise ChangedError(name)
                _publish(aside, self._path(name))

    def delete(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def entries(self, prefix: str) -> Iterator[Entry]:
        head = prefix.rpartition("/")[0]
        folder = self._path(f"{head}/") if head else self._root
        for path in sorted(_below(folder)):
            name = path.relative_to(self._root).as_posix()
            if name.startswith(prefix) and name.split("/")[0] not in _PRIVATE and (state := _state(path)):
                yield Entry(name, state.st_size, state.st_mtime)

    def holds(self, blob: Blob) -> bool:
        state = _state(self._path(blob.name))
        return state is not None and stat.S_ISREG(state.st_mode) and state.st_size == blob.size

    def send(self, path: Path, blob: Blob, advance: Advance) -> None:
        target = self._path(blob.name)
        with self._aside() as aside:
            if path.is_relative_to(self.workspace) and link(path, aside):
                advance(blob.size)
            else:
                copy_checked(path, aside, blob, advance)
            aside.chmod(0o444)  # so that nobody edits a blob by accident
            _publish(aside, target)

    def fetch(self, blob: Blob, path: Path, advance: Advance) -> None:
        source = self._blob(blob)
        if link(source, path):
            check_file(path, blob)
            advance(blob.size)
        else:
            copy_checked(source, path, blob, advance)

    def check(self, blob: Blob) -> None:
        check_file(self._blob(blob), blob)

    def leftovers(self) -> Iterator[Leftover]:
        for path in sorted(self._path("work/").glob(f"{_ASIDE}*")):
            if state := _state(path):
                name = f"work/{path.name}"
                yield Leftover(name, state.st_size, state.st_mtime, partial(self.delete, name))

    def _blob(self, blob: Blob) -> Path:
        """The path of a blob; MissingError where there is none, DamagedError where it is no regular file."""
        path = self._path(blob.name)
        state = _state(path)
        if state is None:
            raise MissingError(blob)
        if not stat.S_ISREG(state.st_mode):
            raise DamagedError(blob, "it is no regular file")
        return path

    def _path(self, name: str) -> Path:
        """The path of an object. UserError where it would be outside of the store, by its name or by a link."""
        *folders, last = name.split("/")
        if name.startswith("/") or "\0" in name or ".." in (*folders, last):
            raise UserError(f"{self.address}: {name} lies outside of the store")
        path = self._root
        for folder in folders:
            path = path / folder
            if path.is_symlink():
                raise UserError(f"{path} is a link; a store has no links below its own folder")
        return self._root / name

    def _aside(self) -> "_Aside":
        return _Aside(self.workspace)


def _state(path: Path) -> os.stat_result | None:
    """The `lstat` of a file: of a link itself, not of its target. None where there is no file."""
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None
        raise


def _below(folder: Path) -> Iterator[Path]:
    """All files below a folder. Links are listed like files, and are not followed."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error  # a folder that cannot be listed may hold anything

    for parent, folders, files in os.walk(folder, onerror=refuse):
        linked = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        yield from (Path(parent, name) for name in (*files, *linked))


class _Aside:
    """The path of a new file that will be renamed. If it was not renamed, it is removed at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Path:
        handle, name = tempfile.mkstemp(prefix=_ASIDE, dir=self._folder)
        os.close(handle)
        self._path = Path(name)
        return self._path

    def __exit__(self, *_: object) -> None:
        self._path.unlink(missing_ok=True)


def match(blob: Blob, sha256: str, size: int) -> None:
    """DamagedError where bytes that were read, of that sha256 and size, are not the blob's."""
    if size != blob.size:
        raise DamagedError(blob, f"{size} bytes of {blob.size}")
    if sha256 != blob.sha256:
        raise DamagedError(blob, f"its bytes have the sha256 {sha256[:12]}")


def check_file(path: Path, blob: Blob) -> None:
    """Read a file; DamagedError where its bytes are not the blob's."""
    if (size := path.stat().st_size) != blob.size:
        raise DamagedError(blob, f"{size} bytes of {blob.size}")
    match(blob, sha256_of(path), size)


def link(source: Path, target: Path) -> bool:
    """Make `target` another name of the file `source`; False where the disk cannot."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        return False
    return True


def sync(path: Path) -> None:
    """Return when a file, or a folder's list of names, has been written to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def copy_checked(source: Path, target: Path, blob: Blob, advance: Advance) -> None:
    """Copy a file. DamagedError, and no copy, where its bytes are not the blob's."""
    sha, size = hashlib.sha256(), 0
    with source.open("rb") as reader, target.open("wb") as writer:
        while block := reader.read(_BLOCK):
            sha.update(block)
            size += len(block)
            writer.write(block)
            advance(len(block))
    try:
        match(blob, sha.hexdigest(), size)
    except DamagedError:
        target.unlink()
        raise


def _publish(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    sync(source)
    source.replace(target)
    sync(target.parent)
