"""MLflow's client, opened with an eye on people: quiet, soon told where nobody answers, and one line for a fault."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lmmpress.errors import UserError
from lmmpress.tracking.database import make_ready, path_of, schema_fault, uri_for_mlflow, uri_of

if TYPE_CHECKING:  # MLflow takes seconds to import, and most commands never need it
    from mlflow import MlflowClient

_THEIRS = {"mlflow", "sqlalchemy", "alembic", "requests", "urllib3", "sqlite3", "psycopg2", "pymysql"}
"""Whose errors are told as MLflow's."""
_DATABASES = ("postgresql", "mysql", "mssql", "sqlite")
_CONNECT, _ANSWER = 10.0, 30.0  # seconds
_LONGEST = 600  # characters of somebody else's message
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "PGCONNECT_TIMEOUT": f"{_CONNECT:.0f}",
}


def local_store(folder: Path) -> str:
    """The tracking URI of the sqlite store in `folder`; all that MLflow writes lies in that folder too."""
    return uri_of(folder.resolve() / "mlflow.db")


def open_client(tracking_uri: str, create: bool = False) -> "MlflowClient":
    """A quiet MLflow client that gives up on a server in seconds and reports usage to nobody.

    What the environment sets already stays. With `create` a sqlite file that does not exist yet is made, with its
    folder; without, nothing is written. Raises UserError where the store cannot be opened or made.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    for name, level in (
        ("mlflow.store.db.utils", logging.CRITICAL),  # logs the traceback of what it raises
        ("mlflow.store.model_registry.abstract_store", logging.WARNING),
        ("alembic", logging.WARNING),
        ("urllib3.connectionpool", logging.ERROR),
    ):
        logging.getLogger(name).setLevel(level)
    scheme = _scheme(tracking_uri)
    path = path_of(tracking_uri)
    if path is not None:
        make_ready(path, create)
        return _client(tracking_uri, uri_for_mlflow(path))
    if scheme in ("http", "https"):
        _ask(tracking_uri)
    elif scheme in _DATABASES:
        _connect(tracking_uri)
    elif scheme in ("", "file") and not create:
        folder = Path(tracking_uri.removeprefix("file://").removeprefix("file:"))
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder; check the address in MLFLOW_TRACKING_URI")
    return _client(tracking_uri, tracking_uri)


@contextmanager
def explained(tracking_uri: str, advice: str = "") -> Iterator[None]:
    """Turn what MLflow and its database raise into one line for a person, with `advice` at its end."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _THEIRS:
            raise
        raise UserError(_fault(tracking_uri, error, advice)) from error


@contextmanager
def resolving_models_in(client: "MlflowClient") -> Iterator[None]:
    """Point MLflow's global tracking URI at the client's store: a database store looks `models:/m-...` up there, not in
    its own tables, and would otherwise create an empty database in the working directory."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(client.tracking_uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None unsets it


def _client(tracking_uri: str, for_mlflow: str) -> "MlflowClient":
    import mlflow

    try:
        return mlflow.MlflowClient(for_mlflow)
    except Exception as error:  # whatever it is, it is the address or what lies there
        raise UserError(_fault(tracking_uri, error)) from error


def _ask(tracking_uri: str) -> None:
    """UserError where a server is not heard of; MLflow's client would wait for it for minutes."""
    import requests

    try:
        requests.head(tracking_uri, timeout=(_CONNECT, _ANSWER), allow_redirects=False)
    except requests.exceptions.Timeout as error:
        waited = _CONNECT if isinstance(error, requests.exceptions.ConnectTimeout) else _ANSWER
        raise UserError(
            f"MLflow at {_without_password(tracking_uri)}: no answer within {waited:.0f} s; is the server up, and does "
            "a firewall or proxy stand before it?"
        ) from error
    except Exception:  # MLflow's client has settings of its own for what goes wrong here, or says what it is
        return


def _connect(tracking_uri: str) -> None:
    """UserError where a database cannot be connected to; MLflow would try again and again, for more than a minute."""
    try:
        from mlflow.store.db.utils import create_sqlalchemy_engine

        engine = create_sqlalchemy_engine(tracking_uri)
        try:
            engine.connect().close()
        finally:
            engine.dispose()
    except Exception as error:
        raise UserError(_fault(tracking_uri, error)) from error


def _fault(tracking_uri: str, error: BaseException, advice: str = "") -> str:
    said = str(error).strip() or type(error).__name__
    if isinstance(error, ImportError):
        said = f"the driver of this database is not installed ({said}): install it, or name an MLflow server"
    elif found := re.search(r"found version (\w+), but expected|Can't locate revision identified by '(\w+)'", said):
        said = schema_fault(None if found[1] == "None" else found[1] or found[2])
    elif _scheme(tracking_uri) not in ("", "file", "http", "https", "databricks", "uc", *_DATABASES):
        said = f"{said.splitlines()[0]} Write it as http://HOST:PORT or sqlite:///PATH"
    said = _without_password(said.splitlines()[0])
    if len(said) > _LONGEST:
        said = f"{said[:_LONGEST].rpartition(' ')[0]} ..."
    return f"MLflow at {_without_password(tracking_uri)}: {said}" + (f"; {advice}" if advice else "")


def _scheme(tracking_uri: str) -> str:
    """What comes before the first colon, without the name of a driver; of a path it is empty."""
    found = re.match(r"([A-Za-z][A-Za-z0-9.-]*)(\+\w+)?:", tracking_uri)
    return found[1].lower() if found else tracking_uri if tracking_uri in ("databricks", "uc") else ""


def _without_password(text: str) -> str:
    return re.sub(r"://[^/@\s]+@", "://", text)
