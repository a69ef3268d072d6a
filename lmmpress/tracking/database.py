"""The sqlite file of an MLflow store: its address, how it is created, and which MLflow can read it.

MLflow creates its tables in hundreds of small changes, and a file that is stopped in between can never be opened again.
So a new file is created elsewhere and moved into place when it is complete.
"""

import hashlib
import os
import shutil
import sqlite3
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from lmmpress.errors import UserError

_FIRST_TABLES = {"experiments", "runs", "tags", "params", "metrics"}
"""What MLflow creates before everything else."""
_NOBODYS = {"alembic_version", "workspaces"}
"""Tables into which MLflow itself writes when it creates them."""
_DEFAULT_EXPERIMENT = 0
_PATIENCE = 20.0  # seconds that another process may hold the file

_plain_names: dict[str, str] = {}


def uri_of(path: Path) -> str:
    """The address of a database file. Only characters with a special meaning in an address are escaped."""
    return f"sqlite:///{_escaped(path)}"


def path_of(uri: str) -> Path | None:
    """The database file that an address names; None where it names another database, or one in memory."""
    scheme, separator, rest = uri.partition(":///")
    if not separator or scheme.partition("+")[0] != "sqlite":
        return None
    name = unquote(rest.partition("?")[0], errors="surrogateescape")
    return None if name in ("", ":memory:") or name.startswith("file:") else Path(name).absolute()


def uri_for_mlflow(path: Path) -> str:
    """The address to give to MLflow. MLflow and the versions of SQLAlchemy do not agree on how `?` and `%` are written
    in it; a path with one of them gets a plain name, and SQLite opens the file under that name."""
    if _escaped(path) == str(path) and _is_utf8(str(path)):
        return f"sqlite:///{path}"
    name = f"{path.anchor}lmmpress-{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}.db"
    if not _plain_names:
        import sqlalchemy.event
        from sqlalchemy.engine import Engine

        sqlalchemy.event.listen(Engine, "do_connect", _connect_to_file)
    _plain_names[name] = str(path)
    return f"sqlite:///{name}"


def make_ready(path: Path, create: bool) -> None:
    """Check that this MLflow can open the file. With `create`, a missing or incomplete file is created; without,
    nothing is written.

    Raises UserError if the file cannot be created, or is no store that this MLflow can read.
    """
    try:
        if create:
            _make_folder(path.parent)
            with _alone_in(path.parent):
                if not path.exists() or _holds_nothing(path):
                    _make(path)
        elif not path.exists():
            raise UserError(f"{path}: there is no such MLflow database; check the address in MLFLOW_TRACKING_URI")
    except OSError as error:
        raise UserError(f"{path}: cannot be used as an MLflow database: {error.strerror}") from None
    revision = _revision(path)
    verdict = None if revision == newest_revision() else schema_fault(revision, uri_of(path))
    # MLflow itself upgrades the file of an older version if it can, but not for a client that only reads
    if verdict and (not create or not _is_known(revision)):
        raise UserError(f"{path}: {verdict}")


def schema_fault(revision: str | None, address: str) -> str:
    """What to do if the schema of the database at an address is not that of this MLflow."""
    from mlflow.version import VERSION

    if _is_known(revision):
        return (
            f"an older MLflow made this database (schema {revision}; MLflow {VERSION} here needs {newest_revision()}); "
            f"back it up, then run: mlflow db upgrade '{address}'"
        )
    return (
        f"a newer MLflow than the {VERSION} here made this database (schema {revision}, not known here); "
        "install that version or a newer one: pip install --upgrade mlflow"
    )


@lru_cache(maxsize=1)
def newest_revision() -> str:
    """The schema of the MLflow that is installed."""
    return str(_scripts().get_current_head())


def _is_known(revision: str | None) -> bool:
    from alembic.util.exc import CommandError

    if revision is None:
        return True  # older than the first numbered schema, or stopped before it got its number
    with suppress(CommandError):
        return _scripts().get_revision(revision) is not None
    return False


@lru_cache(maxsize=1)
def _scripts() -> Any:
    import mlflow
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))


def _escaped(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3F")


def _is_utf8(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def _connect_to_file(_dialect: object, _record: object, arguments: list[Any], _named: dict[str, Any]) -> None:
    """Called by SQLAlchemy before it connects; a changed first argument is the file that is opened."""
    if arguments and arguments[0] in _plain_names:
        arguments[0] = _plain_names[arguments[0]]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot hold the lineage store: {error.strerror}") from None


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let one process at a time create a database in a folder, if its file system has locks."""
    import fcntl

    opened = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def _make(path: Path) -> None:
    """Create a file with MLflow's tables, complete or not at all."""
    import mlflow

    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.new")
    try:
        with tempfile.TemporaryDirectory(prefix="lmmpress-", ignore_cleanup_errors=True) as folder:
            made = Path(folder) / "mlflow.db"
            try:
                with _closed_afterwards():
                    mlflow.MlflowClient(uri_for_mlflow(made))
            except Exception as error:
                fault = str(error).strip().splitlines() or [type(error).__name__]
                raise UserError(f"{folder}: MLflow cannot make a new database there: {fault[0]}; set TMPDIR") from error
            shutil.copyfile(made, aside)
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        for leftover in ("-journal", "-wal", "-shm"):  # the previous file's journal: SQLite would apply it
            path.with_name(path.name + leftover).unlink(missing_ok=True)
        aside.replace(path)
    except OSError as error:
        raise UserError(f"{path.parent}: cannot hold the lineage store: {error.strerror}") from None
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


@contextmanager
def _closed_afterwards() -> Iterator[None]:
    """Close SQLite's connections of this block at its end. They do not wait for the disk, because MLflow would wait at
    each of its hundreds of changes."""
    import sqlalchemy.event
    from sqlalchemy.engine import Engine

    opened: list[sqlite3.Connection] = []

    def relax(connection: object, _record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")
            opened.append(connection)

    sqlalchemy.event.listen(Engine, "connect", relax)
    try:
        yield
    finally:
        sqlalchemy.event.remove(Engine, "connect", relax)
        for connection in opened:
            with suppress(sqlite3.ProgrammingError):  # closed meanwhile
                connection.close()


def _holds_nothing(path: Path) -> bool:
    """Whether a file has neither MLflow's whole schema nor data of a user: a process was stopped while it created the
    file."""
    with _opened(path, "rw") as database:  # not `ro`: SQLite first rolls back an interrupted change
        revision = _revision_in(database)
        if revision == newest_revision() or not _is_known(revision):
            return False
        for name in _tables(database) - _NOBODYS:
            wanted = f'SELECT EXISTS (SELECT 1 FROM "{name}"'
            if name == "experiments":
                wanted += f" WHERE experiment_id != {_DEFAULT_EXPERIMENT}"
            if database.execute(f"{wanted})").fetchone()[0]:
                return False
    return True


def _revision(path: Path) -> str | None:
    with _opened(path, "ro") as database:
        return _revision_in(database)


def _revision_in(database: sqlite3.Connection) -> str | None:
    if "alembic_version" not in _tables(database):
        return None
    found = database.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(found[0]) if found else None


def _tables(database: sqlite3.Connection) -> set[str]:
    return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


@contextmanager
def _opened(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """An existing database; UserError if the file is no database, is not MLflow's, or cannot be opened."""
    if not path.is_file():
        raise UserError(f"{path}: this is no file, and so no MLflow database; move it away, or name another address")
    place = f"file:{quote(os.fsencode(path))}?mode={mode}"
    try:
        with closing(sqlite3.connect(place, timeout=_PATIENCE, uri=True)) as database:
            tables = _tables(database)
            if tables - _NOBODYS and not tables & _FIRST_TABLES:
                raise UserError(f"{path}: this database is not MLflow's: it has no table of runs; name another address")
            yield database
    except sqlite3.Error as error:
        raise UserError(f"{path}: cannot be used as an MLflow database: {error}") from None
