"""Files of a data set: regular ones, inside of its folder, and no larger than what they may be."""

import os
import stat
from functools import lru_cache
from pathlib import Path

from lmmpress.errors import UserError

# how the file begins that git leaves in place of one that git-lfs has not fetched
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"

_CACHED = ("datasets--", "models--", "spaces--")  # how folders of the Hugging Face cache begin


def check_file(folder: Path, name: str) -> None:
    """Raise UserError unless `name` is a regular file that lies inside of `folder`, or among the blobs of the Hugging
    Face cache that `folder` is a snapshot of.

    The error says what is wrong with the name, and nothing of where the name stands.
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
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, links in a circle, no access
        raise UserError(f"{name!r} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not _is_inside(target, root) and not (blobs and _is_inside(target, blobs)):
        through_link = _is_inside(path, root)
        how = "is or lies behind a link that points outside of the data set" if through_link else "points outside"
        raise UserError(f"{name!r} {how}; copy the file into the data set")
    if not stat.S_ISREG(mode):
        raise UserError(f"{name!r} is no regular file")


def read_bytes(folder: Path, name: str, limit: int) -> bytes:
    """What a file of a data set holds, at most `limit` bytes; raises UserError as `check_file` does, and for more."""
    check_file(folder, name)
    try:
        # a name may have become a FIFO since it was looked at: opening one must not wait for a writer
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise UserError(f"{name!r} is no regular file")
            if found.st_size > limit:
                raise UserError(f"{name!r} has {found.st_size:,} bytes, more than {limit:,}")
            return file.read(limit)
    except OSError as error:
        raise UserError(f"{name!r} cannot be read: {error.strerror}") from None


@lru_cache(maxsize=32)
def _roots(folder: Path) -> tuple[Path, Path | None]:
    """The real path of a data set's folder and, where it is a snapshot in a Hugging Face cache
    (datasets--NAME/snapshots/REVISION), of the blobs that its links may point to."""
    root = folder.resolve()
    for place in (root, *root.parents):
        if place.parent.name == "snapshots" and place.parent.parent.name.startswith(_CACHED):
            return root, place.parent.parent / "blobs"
    return root, None


def _is_inside(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder) and path != folder
