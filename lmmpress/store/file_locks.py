"""File locks. One process at a time holds a lock; the system releases it when the process ends, however it ends."""

from pathlib import Path

from filelock import FileLock

from lmmpress.errors import UserError


def lock_of(path: Path) -> FileLock:
    """The lock of the file `path`. Raises UserError where it is a link: the file is opened for writing, and a link
    may lead to any file.

    A link that appears after this check is refused by filelock, which follows no links since 3.20.1. Earlier releases
    emptied the file that the link leads to.
    """
    if path.is_symlink():
        raise UserError(f"{path}: is a link, where a store has a file of its own; remove it")
    return FileLock(path)
