"""Folders of one process beside a store. They are removed when the process ends."""

import atexit
import os
import shutil
import uuid
from pathlib import Path

from filelock import FileLock, Timeout

from lmmpress.store.file_locks import lock_of

_locks: list[FileLock] = []  # held until this process ends, however it ends


def own_folder(workspace: Path) -> Path:
    """A new folder in `workspace`, removed when this process ends. Folders of killed processes are removed now."""
    with lock_of(workspace / "opening.lock"):
        for left in workspace.glob("own-*.lock"):
            lock = lock_of(left)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            shutil.rmtree(left.with_suffix(""), ignore_errors=True)
            lock.release()
            left.unlink(missing_ok=True)
        folder = workspace / f"own-{uuid.uuid4().hex[:12]}"
        lock = lock_of(folder.with_suffix(".lock"))
        lock.acquire()  # before the folder is made: a folder without a lock would never be removed
        _locks.append(lock)
        folder.mkdir()
    until_exit(folder, folder.with_suffix(".lock"))
    return folder


def until_exit(*paths: Path) -> None:
    """Remove folders and files when this process ends."""
    atexit.register(_remove, paths, os.getpid())


def _remove(paths: tuple[Path, ...], pid: int) -> None:
    if os.getpid() != pid:  # a child process, which inherits the list of functions to call at exit
        return
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
