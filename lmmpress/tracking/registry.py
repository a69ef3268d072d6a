"""The MLflow registry: from the name of a model's version to the address of its checkpoint.

models:/Name/3  models:/Name@alias      beside the addresses that `lmmpress.store.address` lists

Every function and command that takes the address of a checkpoint looks it up here.
"""

import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from lmmpress import store
from lmmpress.errors import UserError
from lmmpress.host.extras import needs
from lmmpress.printing.credentials import without_credentials
from lmmpress.tracking.client import explained, open_client, resolving_models_in

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

TAG = "lmmpress.address"
_SCHEME, _LOGGED, _RUNS = "models:/", "models:/m-", "runs:/"
_MOST_REFERENCES = 8
_WITH_LOGIN = ("http", "https", "mlflow-artifacts")
"""The schemes of artifacts that MLflow asks for with its login: MLFLOW_TRACKING_USERNAME, _PASSWORD, _TOKEN."""
_fetched_into: dict[str, Path] = {}  # the folder of each checkpoint that was fetched, by its address


class FetchedInVainError(UserError):
    """What was fetched for a version, which may have taken long, is no checkpoint."""


def is_registered(address: str) -> bool:
    """Whether an address is a name in the registry: models:/Name/version or models:/Name@alias."""
    return address.startswith(_SCHEME)


def located(address: str) -> str:
    """The address of a registered model's checkpoint; any other address is returned unchanged."""
    return address_of(address) if is_registered(address) else address


def open_checkpoint(address: str, weights: bool = True) -> Path:
    """A local directory with the files of the checkpoint at an address, to be read only; a name in the registry is
    looked up first. Without `weights` only the small files need be there.

    Raises UserError if there is no checkpoint, or a damaged one.
    """
    return store.open_checkpoint(located(address), weights)


def name_of_compressed(model: str) -> str:
    """The name that a compressed model is registered under. It is never the registered name of its teacher: a service
    that compresses every new version of the teacher would compress the compressed model."""
    if is_registered(model):
        return f"{model.removeprefix(_SCHEME).split('@')[0].split('/')[0]}-compressed"
    return model.rstrip("/").rpartition("/")[2]


def address_of(name: str, tracking_uri: str | None = None) -> str:
    """The address of a registered model's checkpoint: from the tag that lmmpress wrote, else from its source.

    A source may be a directory, s3://bucket/prefix, another registered model, a logged model or a run's artifacts.
    Artifacts that only MLflow can reach are fetched, into a folder that lives as long as this process. The registry is
    the one of MLFLOW_TRACKING_URI. Raises UserError if it has no such version, or the version has no checkpoint.
    """
    needs("mlflow", name)
    uri = (tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")).strip()
    if not uri:
        raise UserError(f"{name}: say in MLFLOW_TRACKING_URI where the registry is")
    asked = name
    _parsed(name)
    client = open_client(uri)
    with explained(uri):
        for _ in range(_MOST_REFERENCES):
            version = _version(client, name)
            if address := version.tags.get(TAG):
                return str(address)
            source = str(version.source or "")
            if not is_registered(source) or source.startswith(_LOGGED):
                return _followed(client, asked, source)
            name = source
    raise UserError(f"{asked} leads from one registered model to another, and to no checkpoint; set its tag {TAG}")


def _version(client: "MlflowClient", name: str) -> "ModelVersion":
    model, alias, version = _parsed(name)
    return client.get_model_version_by_alias(model, alias) if alias else client.get_model_version(model, version)


def _parsed(name: str) -> tuple[str, str, str]:
    """Model, alias, version; one of the last two is empty."""
    rest = name.removeprefix(_SCHEME).strip("/")
    if "@" in rest:
        model, _, alias = rest.partition("@")
        version = ""
    else:
        model, _, version = rest.rpartition("/")
        alias = ""
    if not model or not (alias or version.isdigit()):
        raise UserError(f"{name}: write a registered model as models:/Name/3 or models:/Name@alias")
    return model, alias, version


def _followed(client: "MlflowClient", name: str, source: str) -> str:
    """The address of the artifacts that a version was made of."""
    if source.startswith(_LOGGED):
        model = client.get_logged_model(source.removeprefix(_SCHEME).split("/")[0])
        if address := model.tags.get(TAG):
            return str(address)
        place = str(model.artifact_location)
    elif source.startswith(_RUNS):
        run, _, path = source.removeprefix(_RUNS).partition("/")
        place = f"{str(client.get_run(run).info.artifact_uri).rstrip('/')}/{path}"
    else:
        place = source
    if place.startswith("s3://"):
        return place
    if place.startswith("file:") or ("://" not in place and ":/" not in place):
        folder = Path(unquote(urlsplit(place).path) if place.startswith("file:") else place)
        if not folder.is_dir():
            leads = f"its source {without_credentials(source)} is no directory here" if source else "it has no source"
            raise UserError(
                f"{name} does not say where its checkpoint lies: {leads}; set its tag {TAG} to a directory or s3:// "
                "address"
            )
        return str(_checkpoint_in(folder, name))
    return str(_fetched(client, name, place))


def forget(address: str) -> None:
    """Remove a checkpoint that `address_of` has fetched; nothing happens for any other address."""
    if folder := _fetched_into.pop(address, None):
        shutil.rmtree(folder, ignore_errors=True)


def _fetched(client: "MlflowClient", name: str, place: str) -> Path:
    """A local folder with the checkpoint among artifacts that MLflow keeps elsewhere, or serves itself. Where there is
    none, nothing that was fetched stays: a service asks again and again."""
    import mlflow

    from lmmpress.store.cache_settings import cache_folder

    _refuse_other_server(client, name, place)
    otherwise = f"set the tag {TAG} of {name} to where it can be read"
    folder: Path | None = None
    try:
        folder = Path(tempfile.mkdtemp(dir=_own(cache_folder() / "work", os.getpid())))
        with explained(place, otherwise), resolving_models_in(client):
            fetched = mlflow.artifacts.download_artifacts(
                artifact_uri=place, dst_path=str(folder), tracking_uri=client.tracking_uri
            )
        try:
            found = _checkpoint_in(Path(fetched), name)
        except UserError as error:
            raise FetchedInVainError(*error.lines) from None
    except BaseException as error:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, UserError) or not isinstance(error, Exception):
            raise
        # any exception of MLflow means that the address is wrong
        raise UserError(f"{name} cannot be fetched from {without_credentials(place)}: {error}; {otherwise}") from error
    _fetched_into[str(found)] = folder
    return found


@lru_cache(maxsize=8)
def _own(workspace: Path, pid: int) -> Path:
    """The one folder of this process for what it fetches; each folder of a process keeps a lock open."""
    from lmmpress.store.store import own_folder

    workspace.mkdir(parents=True, exist_ok=True)
    return own_folder(workspace)


def _refuse_other_server(client: "MlflowClient", name: str, place: str) -> None:
    """UserError where MLflow would send its login to another server: whoever registers a version names the place."""
    there, here = urlsplit(place), urlsplit(client.tracking_uri)
    if there.scheme in ("models", "runs"):  # artifacts are not; MLflow would follow it to any server
        raise UserError(f"{name} leads from {without_credentials(place)} to elsewhere; set its tag {TAG}")
    if there.scheme not in _WITH_LOGIN or (there.scheme == "mlflow-artifacts" and not there.netloc):
        return
    if there.netloc != here.netloc or there.scheme not in ("mlflow-artifacts", here.scheme):
        raise UserError(
            f"{name} is said to be at {without_credentials(place)}, which is not the registry's own server; it is not "
            f"asked, because it would get the login of MLflow: set the tag {TAG} to a directory or s3:// address"
        )


def _checkpoint_in(folder: Path, name: str) -> Path:
    """The checkpoint directory of a version's artifacts: their folder itself, or `model` in it, where MLflow's
    transformers flavor copies one."""
    parts = folder / "model"
    if (folder / "config.json").is_file():
        return folder
    if (parts / "config.json").is_file() and not (folder / "components").is_dir():
        return parts
    if (folder / "MLmodel").is_file():
        raise UserError(
            f"{name} is stored in MLflow's own form, its parts in folders of their own; register the directory that "
            f"save_pretrained writes instead, or set the version's tag {TAG} to it"
        )
    raise UserError(f"{name} leads to {folder}, which is no checkpoint: it has no config.json")
