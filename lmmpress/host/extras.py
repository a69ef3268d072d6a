"""Packages that only some users need, and the extra of lmmpress that installs each."""

import importlib
import importlib.util

from lmmpress.errors import UserError

EXTRA_OF = {
    "apprise": "trigger",
    "authlib": "trigger",
    "cronsim": "trigger",
    "fastapi": "trigger",
    "hera": "argo",
    "jiwer": "metrics",
    "kfp": "kubeflow",
    "kubernetes": "kubeflow",
    "minio": "s3",
    "mlflow": "mlflow",
    "prometheus_client": "trigger",
    "pyarrow": "parquet",
    "pydantic_settings": "trigger",
    "rapidfuzz": "metrics",
    "torchao": "memory",
    "uvicorn": "trigger",
}


def is_installed(package: str) -> bool:
    """Whether a package is installed. It is not imported."""
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:
        return False


def needs(package: str, what: str, *modules: str) -> None:
    """Raise UserError where a package cannot be imported that `what` needs, or one of its `modules`."""
    try:
        for name in modules or (package,):
            importlib.import_module(name)
    except ImportError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise missing(package, what, f" ({reason})" if is_installed(package) else "") from None


def missing(package: str, what: str, reason: str = "") -> UserError:
    """The line for a person: what to install for `what`."""
    return UserError(f"{what} needs the package {package}{reason}: pip install 'lmmpress[{EXTRA_OF[package]}]'")
