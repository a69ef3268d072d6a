"""Reads files of a data set: only regular files inside its folder, and only up to a size limit."""

import os
import stat
from functools import lru_cache
from pathlib import Path

from lmmpress.errors import UserError

# the first bytes of the pointer file that stands for a file which git-lfs has not fetched
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"

_CACHED = ("datasets--", "models--", "spaces--")  # prefixes of folders in the Hugging Face cache


def check_file(folder: Path, name: str) -> None:
    """Raise UserError unless `name` is a regular file inside `folder`, or a blob of the Hugging Face cache that holds
    the snapshot `folder`.

    The error says what is wrong with the file. The caller adds where its name was read.
    """
    root, blobs = _roots(folder)
    path = root / name
    if os.path.normpath(path) != str(path) and not _is_inside(Path(os.path.normpath(path)), root):
        raise UserError(f"{name!r} points outside of the data set")
    try:
        target = path.resolve()
        mode = os.stat(target).st_mode
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink() and not _is_inside(path.resolve(), root):
            raise UserError(f"{name!r} is a link that points outside of the data set") from None
        raise UserError(f"{name!r} is missing") from None
    except (OSError, RuntimeError, ValueError) as error:  # the name is too long, symlinks form a loop, no permission
        raise UserError(f"{name!r} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not _is_inside(target, root) and not (blobs and _is_inside(target, blobs)):
        through_link = _is_inside(path, root)
        how = "is or lies behind a link that points outside of the data set" if through_link else "points outside"
        raise UserError(f"{name!r} {how}; copy the file into the data set")
    if not stat.S_ISREG(mode):
        raise UserError(f"{name!r} is no regular file")


def read_bytes(folder: Path, name: str, limit: int) -> bytes:
    """The bytes of a file of a data set. Raises UserError as `check_file` does, and if it has more than `limit`."""
    check_file(folder, name)
    try:
        # the file may have become a FIFO since the check: opening a FIFO must not wait for a writer
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"{name!r} is no regular file")
            if status.st_size > limit:
                raise UserError(f"{name!r} has {status.st_size:,} bytes, more than {limit:,}")
            return file.read(limit)
    except OSError as error:
        raise UserError(f"{name!r} cannot be read: {error.strerror}") from None


@lru_cache(maxsize=32)
def _roots(folder: Path) -> tuple[Path, Path | None]:
    """The real path of a data set's folder. If it is a snapshot in a Hugging Face cache
    (datasets--NAME/snapshots/REVISION), also the folder of blobs that its symlinks may point to."""
    root = folder.resolve()
    for ancestor in (root, *root.parents):
        if ancestor.parent.name == "snapshots" and ancestor.parent.parent.name.startswith(_CACHED):
            return root, ancestor.parent.parent / "blobs"
    return root, None


def _is_inside(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder) and path != folder
