"""MLflow's client: it prints nothing, gives up within seconds if no server answers, and reports a fault in one line."""

import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from lmmpress.errors import UserError
from lmmpress.host.extras import needs
from lmmpress.printing.credentials import without_credentials
from lmmpress.tracking.database import make_ready, path_of, schema_fault, uri_for_mlflow, uri_of

if TYPE_CHECKING:  # MLflow takes seconds to import, and most commands never need it
    from mlflow import MlflowClient

_THEIRS = {"mlflow", "sqlalchemy", "alembic", "requests", "urllib3", "sqlite3", "psycopg2", "pymysql"}
"""The packages whose errors are reported as MLflow's."""
_DATABASES = ("postgresql", "mysql", "mssql", "sqlite")
_CONNECT, _ANSWER = 10.0, 30.0  # seconds
_PAUSES = (1.0, 2.0)  # seconds between tries
_LONGEST = 600  # characters of a message that is not ours
_QUIET = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": f"{_ANSWER:.0f}",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "PGCONNECT_TIMEOUT": f"{_CONNECT:.0f}",
}


def local_store(folder: Path) -> str:
    """The tracking URI of the sqlite store in `folder`; MLflow writes all its files into that folder too."""
    return uri_of(folder.resolve() / "mlflow.db")


def open_client(tracking_uri: str, create: bool = False, advice: str = "") -> "MlflowClient":
    """A quiet MLflow client that gives up on a server in seconds and reports usage to nobody.

    Variables that the environment already sets stay. With `create`, a missing sqlite file is created with its folder;
    without, nothing is written. Raises UserError, with `advice` at its end, if the store cannot be opened.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    for name, level in (
        ("mlflow.store.db.utils", logging.CRITICAL),  # logs the traceback of what it raises
        ("mlflow.store.model_registry.abstract_store", logging.WARNING),
        ("alembic", logging.WARNING),
        ("mlflow.utils.databricks_utils", logging.ERROR),
        ("urllib3.connectionpool", logging.ERROR),
    ):
        logging.getLogger(name).setLevel(level)
    needs("mlflow", f"MLflow at {without_credentials(tracking_uri)}")
    import mlflow

    path = path_of(tracking_uri)
    if path is not None:
        make_ready(path, create)
    try:
        scheme = _scheme(tracking_uri)
        if scheme in ("http", "https"):
            _ask(tracking_uri)
        elif scheme in _DATABASES and path is None:
            _connect(tracking_uri)
        elif scheme in ("", "file") and not create:
            _look_for(tracking_uri)
        return mlflow.MlflowClient(uri_for_mlflow(path) if path else tracking_uri)
    except UserError:
        raise
    except Exception as error:  # any error means that the address, or the store at it, is wrong
        raise UserError(_fault(tracking_uri, error, advice)) from error


@contextmanager
def explained(tracking_uri: str, advice: str = "") -> Iterator[None]:
    """Turn exceptions of MLflow and its database into one line for a person, with `advice` at its end."""
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


def time_of(tracking_uri: str) -> float | None:
    """The time of a server's own clock, in seconds since the epoch and to the second, as its answers say it; None for a
    database, which has none. UserError if the server does not answer, or does not say it."""
    if _scheme(tracking_uri) not in ("http", "https"):
        return None
    needs("mlflow", f"MLflow at {without_credentials(tracking_uri)}")
    import requests

    with explained(tracking_uri):
        answer = requests.head(tracking_uri, timeout=(_CONNECT, _ANSWER), allow_redirects=False)
    try:
        return parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (KeyError, ValueError):
        raise UserError(f"MLflow at {without_credentials(tracking_uri)} does not say what time it is") from None


def _ask(tracking_uri: str) -> None:
    """Raise if a server does not answer; MLflow's client would wait for minutes, and print a long message."""
    import requests

    for pause in (*_PAUSES, None):
        try:
            requests.head(tracking_uri, timeout=(_CONNECT, _ANSWER), allow_redirects=False)
            return
        except requests.exceptions.ConnectTimeout:
            raise UnansweredError(f"no answer within {_CONNECT:.0f} s") from None
        except requests.exceptions.ReadTimeout:
            raise UnansweredError(f"connected, and no answer within {_ANSWER:.0f} s") from None
        except (requests.exceptions.SSLError, requests.exceptions.ProxyError):
            return  # MLflow's client has settings of its own for these
        except requests.exceptions.ConnectionError as error:
            if pause is None:
                reason = re.search(r"\[Errno -?\d+\] ([\w ]+)", str(error))
                raise UnansweredError(f"no answer{f' ({reason[1]})' if reason else ''}") from None
            time.sleep(pause)  # it may be starting again
        except Exception:
            return  # no address at all: MLflow's client says so


class UnansweredError(Exception):
    """No server answers at the address."""

    def __str__(self) -> str:
        return f"{self.args[0]}: is the server up, is the address right, does a firewall or proxy stand before it?"


def _connect(tracking_uri: str) -> None:
    """Raise if there is no connection to the database; MLflow would retry for more than a minute."""
    from mlflow.store.db.utils import create_sqlalchemy_engine

    engine = create_sqlalchemy_engine(tracking_uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def _look_for(tracking_uri: str) -> None:
    """Raise UserError if there is no folder of that name: MLflow would create it."""
    folder = Path(unquote(urlsplit(tracking_uri).path) if tracking_uri.startswith("file:") else tracking_uri)
    if not folder.is_dir() and tracking_uri not in ("databricks", "databricks-uc", "uc"):
        raise UserError(
            f"MLFLOW_TRACKING_URI names {folder}, and there is no such folder; the address of a server begins with "
            "http:// or https://"
        )


def _fault(tracking_uri: str, error: BaseException, advice: str = "") -> str:
    said = _said(error)
    if isinstance(error, ImportError):
        said = f"the driver of this database is not installed ({said}): install it, or name an MLflow server"
    elif type(error).__name__ == "UnsupportedModelRegistryStoreURIException":
        said = "MLflow knows no such address; write it as http://HOST:PORT, postgresql://HOST/NAME or sqlite:///PATH"
    elif found := re.search(r"found version (\w+), but expected|Can't locate revision identified by '(\w+)'", said):
        revision = found[1] or found[2]
        said = schema_fault(None if revision == "None" else revision, without_credentials(tracking_uri))
    said = without_credentials(said.splitlines()[0])
    if len(said) > _LONGEST:
        said = f"{said[:_LONGEST].rpartition(' ')[0]} ..."
    return f"MLflow at {without_credentials(tracking_uri)}: {said}" + (f"; {advice}" if advice else "")


def _said(error: BaseException) -> str:
    """The message of an exception. If the database's driver raised first, its message, because SQLAlchemy puts its own
    text before that."""
    behind: BaseException | None = error
    while behind is not None:
        if driver := getattr(behind, "orig", None):
            return str(driver).strip() or type(driver).__name__
        behind = behind.__cause__
    return str(error).strip() or type(error).__name__


def _scheme(tracking_uri: str) -> str:
    """The text before the first colon, without the name of a driver; empty for a path."""
    found = re.match(r"([A-Za-z][A-Za-z0-9.-]*)(\+\w+)?:", tracking_uri)
    return found[1].lower() if found else ""
