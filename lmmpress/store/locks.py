"""Locks of files: one process at a time, given back by the system when a process ends, however it ends."""

from pathlib import Path

from filelock import FileLock

from lmmpress.errors import UserError


def lock_of(path: Path) -> FileLock:
    """The lock that a file stands for. Raises UserError where the file is a link: whoever put it there would choose
    which file is opened for writing.

    A link that appears after this look is refused by filelock itself, which does not follow any (from 3.20.1 on; before
    that it emptied what the link led to).
    """
    if path.is_symlink():
        raise UserError(f"{path}: is a link, where a store has a file of its own; remove it")
    return FileLock(path)
