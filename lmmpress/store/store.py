"""The store: checkpoints, tensors, records and the states of runs, over any `Objects`. kinds.py lists what it holds."""

import errno
import json
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmpress.errors import UserError
from lmmpress.files.allow_list import choose, is_small, say_what_is_left
from lmmpress.files.digest import sha256_of
from lmmpress.progress import transfer
from lmmpress.store.kinds import CHECKPOINTS, HOUSEKEEPING, RECORDS, RUNS, TENSORS, stem
from lmmpress.store.manifest import File, Manifest, parse_manifest
from lmmpress.store.objects import (
    SMALL,
    Blob,
    ChangedError,
    DamagedError,
    LostFileError,
    MissingError,
    Objects,
    UnreadableError,
    parse,
)
from lmmpress.store.parallel import each
from lmmpress.store.records import OF, Subjects, fault_of, subjects_of
from lmmpress.store.run_state import DIGEST, RunState, hold, is_live, read_state
from lmmpress.store.workspace import own_folder

if TYPE_CHECKING:
    import torch

_TENSORS = "tensors.safetensors"


class Store:
    """A store: whatever it holds is there as a whole or not at all, even where a writer is killed at any moment.

    The name of an object is computed from the inputs of its content, so no object ever replaces a different one.
    """

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self._own: Path | None = None
        self._trees: dict[str, Path] = {}
        self._opening = threading.RLock()

    @property
    def root_address(self) -> str:
        """The address with which `open_store` opens this store, on any machine that reaches it."""
        return self.objects.address

    def address(self, digest: str) -> str:
        """The address of a checkpoint, which lineage records and `open_checkpoint` takes."""
        return f"{self.objects.address}/{CHECKPOINTS.folder}/{digest}"

    def run_state(self, key: str, holder: str | None = None) -> AbstractContextManager[RunState]:
        """The state of a run, under a lease that only this process holds, or in turn all processes of one `holder`.
        UserError where another process works on the run."""
        return self.working(RUNS.name(key), holder)

    def history(self, key: str) -> list[dict[str, Any]]:
        """The decisions of a run so far, without a lease."""
        return read_state(self.objects, RUNS.name(key)).stored.history

    @contextmanager
    def working(self, name: str, holder: str | None = None) -> Iterator[RunState]:
        """Hold the state of that name. No housekeeping removes anything meanwhile."""
        with hold(self.objects, name, holder=holder) as state:
            # housekeeping takes its lease first, and then looks for ours: one of the two sees the other
            if is_live(self.objects, read_state(self.objects, HOUSEKEEPING)):
                raise UserError(f"{self.objects.address} is being cleaned up; try again when that has ended")
            yield state

    @contextmanager
    def cleaning(self) -> Iterator[RunState]:
        """Hold the lease of housekeeping while objects are removed: no run begins meanwhile. The files of killed
        processes in the workspace are removed too."""
        with hold(self.objects, HOUSEKEEPING) as lease, self.scratch():
            yield lease

    def read_record(self, name: str) -> dict[str, Any] | None:
        """The record of that name; None where there is none, UnreadableError where its content does not belong under
        that name."""
        found = self.objects.read(RECORDS.name(name))
        if found is None:
            return None
        record = parse(found.data, self.objects.address, RECORDS.name(name))
        if fault := fault_of(name, record):
            raise UnreadableError(self.objects.address, RECORDS.name(name), fault)
        return record

    def write_record(self, name: str, record: dict[str, Any]) -> dict[str, Any]:
        """Write a record, unless there is one of that name already; the record that has that name now. UserError for
        one that would be too large to be read again."""
        data = json.dumps(record, indent=1, sort_keys=True).encode()
        if len(data) > SMALL:
            raise UserError(
                f"{self.objects.address}: the record {name} would have {len(data):,} bytes, and at most {SMALL:,} are "
                "read; measure on fewer rows"
            )
        try:
            self.objects.write(RECORDS.name(name), data, None)
        except ChangedError:
            return self.read_record(name) or record
        return record

    @contextmanager
    def tensor_file(self, name: str) -> Iterator[Path | None]:
        """The safetensors file of the tensors of that name; None where there are none, LostFileError where it is
        missing or damaged. Where the block finds by a KeyError or a ValueError that it holds something else, that is an
        UnreadableError."""
        where = TENSORS.name(name)
        manifest = self._read_manifest(where)
        if manifest is None:
            yield None
            return
        if manifest.files.keys() != {_TENSORS}:
            raise UnreadableError(self.objects.address, where, f"does not list the one file {_TENSORS}")
        path = self._tree(f"tensors {name}", manifest) / _TENSORS
        try:
            yield path
        except (KeyError, ValueError) as error:
            raise UnreadableError(self.objects.address, where, f"holds no tensors: {error}") from None

    def read_tensors(self, name: str) -> dict[str, "torch.Tensor"] | None:
        """The tensors of that name; None where there are none."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        with self.tensor_file(name) as path:
            try:
                return None if path is None else load_file(path)
            except SafetensorError as error:
                raise ValueError(error) from None

    @contextmanager
    def new_tensors(self, name: str, of: Subjects | None = None) -> Iterator[Path]:
        """A path at which the block writes a safetensors file, and a folder of its own around it. Afterwards the store
        has these tensors, unless it had some of that name already. `of` names what they were computed from, where no
        record of the same name does."""
        with self.scratch() as folder:
            yield folder / _TENSORS
            manifest = self._send({_TENSORS: folder / _TENSORS})
            if of is not None:
                self.write_record(name, {OF: of.model_dump()})
            self._write_manifest(TENSORS.name(name), manifest)

    def write_tensors(self, name: str, tensors: dict[str, "torch.Tensor"], of: Subjects | None = None) -> None:
        """Write tensors, as `new_tensors` does."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        with self.new_tensors(name, of) as path:
            try:
                save_file({key: value.contiguous() for key, value in tensors.items()}, path)
            except SafetensorError as error:  # it hides the error number of the system in its text
                if "StorageFull" in str(error) or "No space left" in str(error):
                    raise OSError(errno.ENOSPC, "No space left on device", str(path)) from None
                raise OSError(errno.EIO, str(error), str(path)) from None

    def forget_tensors(self, name: str) -> None:
        """Remove tensors whose file is missing or damaged, so that they can be written again. Where two processes do
        both at once, what one has written may be lost again, and is then missing for the next."""
        manifest = self._read_manifest(TENSORS.name(name))
        self.objects.delete(TENSORS.name(name))
        for file in manifest.files.values() if manifest else ():
            self.objects.delete(file.blob.name)

    def sizes_of_tensors(self, beginnings: Iterable[str], of: Subjects) -> Iterator[int]:
        """The bytes of each file of tensors whose name begins so, and which was computed from some of these alone."""
        for beginning in beginnings:
            for entry in self.objects.entries(f"{TENSORS.prefix}{beginning}"):
                record, manifest = self.read_record(stem(entry.name)), self._read_manifest(entry.name)
                subjects = subjects_of(record) if record else None
                if manifest and subjects and of.cover(subjects):
                    yield manifest.size

    def add_checkpoint(self, directory: Path) -> str:
        """Store the checkpoint in a directory; its digest. Files that the store has already are not sent again.

        Files that the allow list leaves out are not stored, and one line says so. A directory from `scratch` belongs to
        the store afterwards: do not change it any more.
        """
        files = choose(directory)
        say_what_is_left(directory, files)
        with self.scratch() as folder:
            for name, data in files.rewritten.items():
                (folder / name).write_bytes(data)
            manifest = self._send(files.taken | {name: folder / name for name in files.rewritten})
        self._write_manifest(CHECKPOINTS.name(manifest.digest), manifest)
        return manifest.digest

    def holds(self, digest: str) -> bool:
        """Whether the store has a checkpoint. UserError where its list of files is damaged."""
        return bool(DIGEST.fullmatch(digest)) and self._read_manifest(CHECKPOINTS.name(digest)) is not None

    def manifest(self, digest: str) -> Manifest:
        """The files of a checkpoint; UserError where the store has none of that digest."""
        name = CHECKPOINTS.name(digest)
        manifest = self._read_manifest(name) if DIGEST.fullmatch(digest) else None
        if manifest is None:
            raise UserError(f"{self.objects.address} holds no checkpoint {digest[:12]}")
        if manifest.digest != digest:
            raise UnreadableError(self.objects.address, name, "lists files of another checkpoint")
        return manifest

    def checkpoint(self, digest: str, weights: bool = True) -> Path:
        """A local directory with the files of a checkpoint, which exists until this process ends. Only read it.

        Without `weights` only the small files are fetched: config, tokenizer, processor. UserError where the store has
        none of that digest, or a file of it is missing or damaged.
        """
        manifest = self.manifest(digest)
        if not weights:
            small = {name: file for name, file in manifest.files.items() if is_small(name)}
            manifest = Manifest(files=small)
        return self._tree(f"checkpoint {digest[:12]}", manifest)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A new empty folder on the store's own disk, removed at the end."""
        folder = Path(tempfile.mkdtemp(prefix="new-", dir=self._own_folder()))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _send(self, files: dict[str, Path]) -> Manifest:
        """Send files; their manifest. While some are sent, the sha256 of the next is computed."""
        listed: dict[str, File] = {}

        def named() -> Iterator[tuple[Path, Blob]]:
            for name, path in files.items():
                listed[name] = File(sha256=sha256_of(path), size=path.stat().st_size)
                yield path, listed[name].blob

        def send(item: tuple[Path, Blob]) -> None:
            path, blob = item
            if self.objects.holds(blob):
                advance(blob.size)
                return
            try:
                self.objects.send(path, blob, advance)
            except DamagedError:
                raise UserError(f"{path} changed while it was being sent") from None

        with transfer("sending", sum(path.stat().st_size for path in files.values())) as advance:
            each(send, named())
        return Manifest(files=listed)

    def _tree(self, what: str, manifest: Manifest) -> Path:
        """A folder of this process with the files of a manifest. `what` names them in errors."""

        def fetch(item: tuple[str, File]) -> None:
            name, file = item
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                self.objects.fetch(file.blob, folder / name, advance)
            except (DamagedError, MissingError) as error:
                raise LostFileError(f"{self.objects.address}: {what}: {name}: {error}") from None

        with self._opening:
            key = f"{what} {manifest.model_dump_json()}"
            if key not in self._trees:
                folder = Path(tempfile.mkdtemp(prefix="tree-", dir=self._own_folder()))
                with transfer("fetching", manifest.size) as advance:
                    each(fetch, manifest.files.items())
                self._trees[key] = folder
            return self._trees[key]

    def _read_manifest(self, name: str) -> Manifest | None:
        found = self.objects.read(name)
        return None if found is None else parse_manifest(found.data, self.objects.address, name)

    def _write_manifest(self, name: str, manifest: Manifest) -> None:
        try:
            self.objects.write(name, manifest.model_dump_json(indent=1).encode(), None)
        except ChangedError:
            self._read_manifest(name)  # another process was first with the same files; raises where it is damaged

    def _own_folder(self) -> Path:
        """The folder of this process in the workspace."""
        with self._opening:
            if self._own is None or not self._own.is_dir():
                self._own = own_folder(self.objects.workspace)
            return self._own
