"""The MLflow registry: from the name of a model's version to where its checkpoint lies.

models:/Name/3  models:/Name@alias      beside the addresses that `lmmpress.store.address` lists

Whatever takes the address of a checkpoint has it looked up here.
"""

import os
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


def is_registered(address: str) -> bool:
    """Whether an address is a name in the registry: models:/Name/version or models:/Name@alias."""
    return address.startswith(_SCHEME)


def located(address: str) -> str:
    """An address as it is, or where the registry says that a registered model lies."""
    return address_of(address) if is_registered(address) else address


def open_checkpoint(address: str) -> Path:
    """A local directory with the files of the checkpoint at an address, to be read only; a name in the registry is
    looked up first.

    Raises UserError where there is none, or what is there is damaged.
    """
    return store.open_checkpoint(located(address))


def name_of_compressed(model: str) -> str:
    """What a compressed model is registered as. Never the name that its teacher is registered as: whoever watches for
    new versions of that would compress the compressed one."""
    if is_registered(model):
        return f"{model.removeprefix(_SCHEME).split('@')[0].split('/')[0]}-compressed"
    return model.rstrip("/").rpartition("/")[2]


def address_of(name: str, tracking_uri: str | None = None) -> str:
    """The address of a registered model's checkpoint: what lmmpress noted in its tags, else where its source leads.

    A source may be a directory, s3://bucket/prefix, another registered model, a logged model or a run's artifacts.
    Artifacts that only MLflow can reach are fetched, into a folder that lives as long as this process. The registry is
    the one of MLFLOW_TRACKING_URI. Raises UserError where it has no such version, or no checkpoint lies there.
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
    """Where the artifacts lie that a version was made of."""
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
    return str(_checkpoint_in(_fetched(client, name, place), name))


def _fetched(client: "MlflowClient", name: str, place: str) -> Path:
    """A local folder with artifacts that MLflow keeps elsewhere, or hands out itself."""
    import mlflow

    from lmmpress.store.cache import cache_folder
    from lmmpress.store.store import own_folder

    workspace, otherwise = cache_folder() / "work", f"set the tag {TAG} of {name} to where it can be read"
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        folder = str(own_folder(workspace))
        with explained(place, otherwise), resolving_models_in(client):
            fetched = mlflow.artifacts.download_artifacts(
                artifact_uri=place, dst_path=folder, tracking_uri=client.tracking_uri
            )
    except UserError:
        raise
    except Exception as error:  # whatever an odd address makes MLflow raise is the address' fault
        raise UserError(f"{name} cannot be fetched from {without_credentials(place)}: {error}; {otherwise}") from error
    return Path(fetched)


def _checkpoint_in(folder: Path, name: str) -> Path:
    """The directory below a version's artifacts that is a checkpoint: itself, or `model`, where MLflow's transformers
    flavor copies one."""
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
