"""The store in a local directory: everything is written aside, forced to the disk, and renamed into place."""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from lmmpress.errors import UserError
from lmmpress.lmm.checkpoint import digest_checkpoint
from lmmpress.store.interface import Store


class DirectoryStore:
    """`records/`, `tensors/` and `checkpoints/` by name, `scratch/` for what is being written, `locks/`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("records", "tensors", "checkpoints", "scratch", "locks"):
            (root / folder).mkdir(parents=True, exist_ok=True)

    @property
    def root_address(self) -> str:
        return str(self.root.resolve())

    def read_record(self, name: str) -> dict[str, Any] | None:
        path = self.root / "records" / f"{name}.json"
        if not path.is_file():
            return None
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return record

    def write_record(self, name: str, record: dict[str, Any]) -> None:
        with self.scratch() as folder:
            (folder / "record").write_text(json.dumps(record, indent=1, sort_keys=True), "utf-8")
            _publish(folder / "record", self.root / "records" / f"{name}.json")

    def read_tensors(self, name: str) -> dict[str, torch.Tensor] | None:
        path = self.root / "tensors" / f"{name}.safetensors"
        return load_file(path) if path.is_file() else None

    def write_tensors(self, name: str, tensors: dict[str, torch.Tensor]) -> None:
        with self.scratch() as folder:
            save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "tensors")
            _publish(folder / "tensors", self.root / "tensors" / f"{name}.safetensors")

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(dir=self.root / "scratch"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def add_checkpoint(self, directory: Path) -> str:
        digest = digest_checkpoint(directory)
        target = self.root / "checkpoints" / digest
        if not target.is_dir():
            for path in sorted(directory.rglob("*")):
                _sync(path)
            directory.rename(target)
            _sync(target.parent)
        return digest

    def checkpoint(self, digest: str) -> Path:
        path = self.root / "checkpoints" / digest
        if not path.is_dir():
            raise UserError(f"{self.root} holds no checkpoint {digest[:12]}")
        return path

    def address(self, digest: str) -> str:
        return str((self.root / "checkpoints" / digest).resolve())

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        with (self.root / "locks" / name).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{self.root}: another process works on this run; wait for it or end it") from None
            # what a killed process left half-written is nobody's now
            for left in (self.root / "scratch").iterdir():
                shutil.rmtree(left, ignore_errors=True)
            yield


def open_store(address: str) -> Store:
    """The store at an address: a directory, made if need be."""
    if "://" in address:
        raise UserError(f"store {address}: only directories can be a store; give a path")
    try:
        return DirectoryStore(Path(address))
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"store {address}: there is a file of that name") from None


def _publish(source: Path, target: Path) -> None:
    _sync(source)
    source.replace(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
