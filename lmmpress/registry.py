"""The MLflow registry: from the name of a model's version to where its checkpoint lies."""

import os

from lmmpress.errors import UserError
from lmmpress.lineage import explained, open_client

TAG = "lmmpress.address"
_SCHEME = "models:/"


def is_registered(address: str) -> bool:
    """Whether an address is a name in the registry: models:/Name/version or models:/Name@alias."""
    return address.startswith(_SCHEME)


def located(address: str) -> str:
    """An address as it is, or where the registry says that a registered model lies."""
    return address_of(address) if is_registered(address) else address


def name_of_compressed(model: str) -> str:
    """What a compressed model is registered as. Never the name that its teacher is registered as: whoever watches for
    new versions of that would compress the compressed one."""
    if is_registered(model):
        return f"{model.removeprefix(_SCHEME).split('@')[0].split('/')[0]}-compressed"
    return model.rstrip("/").rpartition("/")[2]


def address_of(name: str, tracking_uri: str | None = None) -> str:
    """The address of a registered model's checkpoint: what lmmpress noted in its tags, else where it was taken from.

    The registry is the one of MLFLOW_TRACKING_URI. Raises UserError where it has no such version, or the version does
    not say where a checkpoint lies.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise UserError(f"{name}: say in MLFLOW_TRACKING_URI where the registry is")
    model, alias, version = _parsed(name)
    with explained(uri):
        client = open_client(uri)
        found = client.get_model_version_by_alias(model, alias) if alias else client.get_model_version(model, version)
    if address := found.tags.get(TAG):
        return str(address)
    source = str(found.source or "").removeprefix("file://")
    if source.startswith("s3://") or os.path.isdir(source):
        return source
    raise UserError(f"{name} does not say where its checkpoint lies: set its tag {TAG} to a directory or s3:// address")


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
