"""What the trigger reads of MLflow's registry: the version of a model that is to be compressed, and its digest."""

import os
import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lmmpress.data import files_with_rows, paths_with_rows
from lmmpress.errors import UserError
from lmmpress.files.allow_list import may_belong
from lmmpress.files.digest import digest_checkpoint, sha256_of
from lmmpress.plan import digest_of
from lmmpress.store import Store
from lmmpress.store.address import holds_checkpoint
from lmmpress.store.bucket import TaggedObject
from lmmpress.store.objects import UnreadableError
from lmmpress.store.plain_folder import open_bucket
from lmmpress.tracking.client import explained, open_client
from lmmpress.tracking.registry import TAG, FetchedInVainError, address_of, forget

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_IN_STORE = re.compile(r".+/checkpoints/([0-9a-f]{64})/?", re.DOTALL)
_READY = "READY"
_NONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""How MLflow says that there is no such model or alias."""
_AGAIN = 600.0  # seconds until a version is fetched again that was no checkpoint
_MOST_FILES = 10_000  # below the folder of a checkpoint
_LAST = 20  # versions that are looked at for the newest one that is ready


@dataclass(frozen=True)
class Release:
    """A version of a registered model: where its checkpoint is, the digest of that, and when it was registered."""

    model: str
    version: str
    address: str
    digest: str
    created: datetime | None = None


@dataclass(frozen=True)
class Version:
    """A version of a registered model, as people see it."""

    version: str
    created: datetime | None = None


class _NoVersionError(UserError):
    """A model has no version that is ready."""


class Registry(Protocol):
    """A registry. Both methods raise UserError if it does not answer, or has no such model, version or checkpoint."""

    def release(self, model: str, alias: str | None) -> Release:
        """The version that the alias names, or without an alias the newest version that is ready."""
        ...

    def look_up(self, model: str, alias: str | None) -> Version | None:
        """As `release`, without looking at the checkpoint. None if there is no such model or version; UserError if the
        registry does not answer."""
        ...

    def data_digest(self, data: str) -> str:
        """The digest of the rows of a data set, which changes with every row."""
        ...


@dataclass
class MlflowRegistry:
    """MLflow's registry at a tracking URI. `store` remembers the digests of directories, since to compute one all bytes
    are read."""

    tracking: str
    store: Store
    _client: "MlflowClient | None" = field(default=None, repr=False)
    _addresses: dict[tuple[Any, ...], str] = field(default_factory=dict, repr=False)
    _digests: dict[str, str] = field(default_factory=dict, repr=False)
    _in_vain: dict[str, tuple[tuple[Any, ...], tuple[str, ...], float]] = field(default_factory=dict, repr=False)

    def release(self, model: str, alias: str | None) -> Release:
        """See `Registry`. The digest is that of the checkpoint, if it is in a store or a directory; of a folder in a
        bucket, that of the list of names, sizes and tags, so that nothing is fetched."""
        version = self._version(model, alias)
        number, name = str(version.version), f"models:/{model}/{version.version}"
        tags, created = dict(version.tags), version.creation_timestamp
        identity = (model, number, created, version.source, tags.get(TAG))
        if identity not in self._addresses:
            self._addresses[identity] = self._address_of(name, identity)
            for old in [one for one in list(self._addresses) if one[0] == model and one != identity]:
                forget(self._addresses.pop(old))  # a server sees many versions, and a model is large
        address = self._addresses[identity]
        return Release(model, number, address, self._digest(address, name), _time(created))

    def _address_of(self, name: str, identity: tuple[Any, ...]) -> str:
        """Where a version is. What was fetched in vain is not fetched again for a while, since that would keep the
        trigger from all other models."""
        before, lines, until = self._in_vain.get(identity[0], (None, (), 0.0))
        if before == identity and time.monotonic() < until:
            raise UserError(*lines)
        try:
            return address_of(name, self.tracking)
        except FetchedInVainError as error:
            self._in_vain[identity[0]] = identity, error.lines, time.monotonic() + _AGAIN
            raise

    def look_up(self, model: str, alias: str | None) -> Version | None:
        """See `Registry`."""
        try:
            found = self._version(model, alias)
        except UserError as error:
            if isinstance(error, _NoVersionError) or getattr(error.__cause__, "error_code", "") in _NONE:
                return None
            raise
        return Version(str(found.version), _time(found.creation_timestamp))

    def data_digest(self, data: str) -> str:
        """See `Registry`. Pictures that change under the same name are not seen."""
        if data.startswith("s3://"):
            listed = [[one.size, one.tag] for one in _with_rows(data)]
            return digest_of(listed[0] if len(listed) == 1 else listed)
        digests = [self._file_digest(path) for path in paths_with_rows(Path(data))]
        return digests[0] if len(digests) == 1 else digest_of(digests)

    def _file_digest(self, path: Path) -> str:
        try:
            state = path.stat()
            known = digest_of([str(path), state.st_size, state.st_mtime_ns])
            if known not in self._digests:
                self._digests[known] = sha256_of(path)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from None
        return self._digests[known]

    def _version(self, model: str, alias: str | None) -> "ModelVersion":
        if self._client is None:
            self._client = open_client(self.tracking)
        with explained(self.tracking):
            if alias is not None:
                return self._client.get_model_version_by_alias(model, alias)
            quote = '"' if "'" in model else "'"
            order = ["version_number DESC"]
            found = self._client.search_model_versions(f"name={quote}{model}{quote}", _LAST, order)
        ready = [version for version in found if version.status == _READY]
        if not ready:
            raise _NoVersionError(f"model {model!r} has no version that is ready in the registry")
        return max(ready, key=lambda version: int(version.version))

    def _digest(self, address: str, name: str) -> str:
        if found := _IN_STORE.fullmatch(address):
            return found[1]
        if address.startswith("s3://"):
            if not holds_checkpoint(address):  # before all is listed: the address may be that of any bucket
                raise UserError(f"{name}: there is no checkpoint at {address}: it has no config.json")
            listed = [one for one in open_bucket(address).remote.tagged("") if may_belong(one.name)]
            return digest_of(sorted([one.name, one.size, one.tag] for one in listed))
        files = _files(Path(address), name)
        known = digest_of([address, files])
        if known not in self._digests:
            self._digests[known] = self._remembered(known, Path(address))
        return self._digests[known]

    def _remembered(self, known: str, folder: Path) -> str:
        record = f"digest-{known}"
        try:
            found = (self.store.read_record(record) or {}).get("digest")
            if isinstance(found, str):
                return found
        except UnreadableError:
            return digest_checkpoint(folder)
        return str(self.store.write_record(record, {"digest": digest_checkpoint(folder)})["digest"])


def _with_rows(data: str) -> list[TaggedObject]:
    """The objects with the rows of a data set in a bucket. All are listed only if the first list has none."""
    for prefix in ("metadata.", ""):
        listed = {one.name: one for one in open_bucket(data).remote.tagged(prefix)}
        if files := files_with_rows(sorted(listed)):
            return [listed[name] for name in files]
    raise UserError(
        f"{data}: there is no data set: it has no metadata.jsonl, nor files of another form; see docs/data.md"
    )


def _time(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None


def _files(folder: Path, name: str) -> list[list[Any]]:
    """The names, sizes and times of all files below a folder. UserError where it is no checkpoint: its address comes
    from whoever registered the version, and may be that of a whole disk."""
    found: list[list[Any]] = []
    if not (folder / "config.json").is_file():
        raise UserError(f"{name}: there is no checkpoint at {folder}: it has no config.json")
    try:
        for parent, _, files in os.walk(folder):
            if len(found) + len(files) > _MOST_FILES:
                raise UserError(f"{name}: {folder} has more than {_MOST_FILES} files, too many for a checkpoint")
            for file in files:
                state = Path(parent, file).stat()
                found.append([os.path.relpath(os.path.join(parent, file), folder), state.st_size, state.st_mtime_ns])
    except OSError as error:
        raise UserError(f"{name}: {folder} cannot be read: {error.strerror}") from None
    return sorted(found)
