"""The sqlite file of an MLflow store, read back with MLflow's own client."""

import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy.event
from mlflow import MlflowClient
from sqlalchemy.engine import Engine
from support.files import nameable
from support.mlflow_server import new_database

from lmmpress.errors import UserError
from lmmpress.tracking.client import local_store, open_client
from lmmpress.tracking.database import newest_revision, path_of, uri_of

NAMES = nameable(
    ["run?x=1", "100%25 done", "50%", "a#b", "a b", "ü", "new\nline", "bytes\udcff", ":memory:", "a?b/%20"]
)
OLDER = "400f98739977"  # the schema that MLflow 3.0 added logged models to


@pytest.mark.parametrize("name", NAMES)
def test_a_path_of_a_database_may_have_any_characters(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / name
    folder.mkdir(parents=True)
    new_database(folder / "mlflow.db")
    written = open_client(local_store(folder), create=True)
    written.create_experiment("mine", artifact_location="/nowhere")
    assert [path.name for path in folder.iterdir()] == ["mlflow.db"]
    assert [path.name for path in tmp_path.iterdir()] == ["runs"], "nor anything beside it"
    assert os.listdir(tmp_path / "runs") == [name.split("/")[0]]
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        assert ("mine",) in database.execute("SELECT name FROM experiments").fetchall()
    assert path_of(local_store(folder)) == folder / "mlflow.db"


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("sqlite:////a/b.db", "/a/b.db"),
        ("sqlite:////a/b.db?timeout=3", "/a/b.db"),
        ("sqlite:////a%3Fb/50%25.db", "/a?b/50%.db"),
        ("sqlite+pysqlite:////a/b.db", "/a/b.db"),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("sqlite:///file:x?uri=true", None),
        ("postgresql://host/x", None),
        ("http://host:5000", None),
        ("/a/b", None),
    ],
)
def test_the_file_that_an_address_names(uri: str, path: str | None) -> None:
    assert path_of(uri) == (Path(path) if path else None)


DYING = """
import os, signal, sys, sqlalchemy.event
from sqlalchemy.engine import Engine
from lmmpress.tracking.client import open_client

def die(connection, cursor, statement, *_):
    if "CREATE TABLE webhooks" in statement:
        os.kill(os.getpid(), signal.SIGKILL)

sqlalchemy.event.listen(Engine, "after_cursor_execute", die)
open_client(sys.argv[1], create=True)
"""


def test_a_process_killed_while_it_makes_a_store_leaves_nothing_half_made(tmp_path: Path) -> None:
    folder, aside = tmp_path / "run", tmp_path / "aside"
    aside.mkdir()
    ended = subprocess.run([sys.executable, "-c", DYING, local_store(folder)], env=os.environ | {"TMPDIR": str(aside)})
    assert ended.returncode == -signal.SIGKILL
    assert list(folder.iterdir()) == []
    assert open_client(local_store(folder), create=True).search_runs(["0"]) == []
    assert [path.name for path in folder.iterdir()] == ["mlflow.db"]


class StopError(Exception):
    pass


def test_a_half_made_database_is_made_anew(tmp_path: Path) -> None:
    """As an earlier lmmpress left it: MLflow's tables were made in place, and only some of them."""

    def stop(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "CREATE TABLE webhooks" in statement:
            raise StopError

    half_made = tmp_path / "half-made.db"
    sqlalchemy.event.listen(Engine, "after_cursor_execute", stop)
    try:
        with pytest.raises(StopError):
            MlflowClient(uri_of(half_made))
    finally:
        sqlalchemy.event.remove(Engine, "after_cursor_execute", stop)
    path = Path(shutil.copy(half_made, tmp_path / "mlflow.db"))
    with pytest.raises(UserError, match="an older MLflow made this database"):
        open_client(uri_of(path))
    assert path.read_bytes() == half_made.read_bytes(), "who only reads changes nothing"

    path.with_name("mlflow.db-journal").write_bytes(b"")
    client = open_client(uri_of(path), create=True)
    assert [experiment.name for experiment in client.search_experiments()] == ["Default"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["half-made.db", "mlflow.db"]


def test_an_empty_file_is_made_a_store(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.touch()
    assert open_client(uri_of(path), create=True).search_runs(["0"]) == []


TELLING = """
import sys
from lmmpress.tracking.client import open_client
open_client(sys.argv[1], create=True).create_experiment(sys.argv[2])
"""


def test_two_processes_that_begin_at_once_share_one_store(tmp_path: Path) -> None:
    both = [
        subprocess.Popen([sys.executable, "-c", TELLING, local_store(tmp_path), name], cwd=tmp_path) for name in "ab"
    ]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    known = open_client(local_store(tmp_path)).search_experiments()
    assert {experiment.name for experiment in known} == {"Default", "a", "b"}


def with_revision(path: Path, revision: str, *more: str) -> Path:
    new_database(path)
    with closing(sqlite3.connect(path)) as database, database:
        for statement in (f"UPDATE alembic_version SET version_num = '{revision}'", *more):
            database.execute(statement)
    return path


def test_the_error_for_a_database_of_a_newer_mlflow_says_so(tmp_path: Path) -> None:
    path = with_revision(tmp_path / "mlflow.db", "ffffffffffff")
    for create in (False, True):
        with pytest.raises(UserError) as caught:
            open_client(uri_of(path), create=create)
        (line,) = caught.value.lines
        assert "a newer MLflow than the " in line
        assert "schema ffffffffffff" in line
        assert line.endswith("pip install --upgrade mlflow")
        assert "db upgrade" not in line


def test_the_error_for_a_database_of_an_older_mlflow_says_how_to_upgrade(tmp_path: Path) -> None:
    written = "INSERT INTO experiments (experiment_id, name, workspace) VALUES (7, 'mine', 'default')"
    path = with_revision(tmp_path / "mlflow.db", OLDER, written)
    for create in (False, True):
        with pytest.raises(UserError) as caught:
            open_client(uri_of(path), create=create)
        (line,) = caught.value.lines
        assert f"an older MLflow made this database (schema {OLDER};" in line
        assert f"needs {newest_revision()}" in line
        assert line.endswith(f"mlflow db upgrade '{uri_of(path)}'")


def test_a_file_that_is_not_an_mlflow_database_is_left_alone(tmp_path: Path) -> None:
    folder, text, foreign = tmp_path / "folder", tmp_path / "text", tmp_path / "foreign"
    folder.mkdir()
    text.write_text("a text, and no database " * 100, "utf-8")
    with closing(sqlite3.connect(foreign)) as database:
        database.execute("CREATE TABLE songs (title TEXT)")
    before = text.read_bytes(), foreign.read_bytes()
    for path, said in ((folder, "this is no file"), (text, "not a database"), (foreign, "this database is not MLflow")):
        for create in (False, True):
            with pytest.raises(UserError, match=said) as caught:
                open_client(uri_of(path), create=create)
            assert str(caught.value).startswith(f"{path}: ")
    assert (text.read_bytes(), foreign.read_bytes()) == before


def test_reading_makes_no_database(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nope/x\.db: there is no such MLflow database"):
        open_client(uri_of(tmp_path / "nope" / "x.db"))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_source: Path, target: Path) -> None:
        target.write_bytes(b"the first few bytes")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    folder = tmp_path / "run"
    monkeypatch.setattr("lmmpress.tracking.database.shutil.copyfile", full)
    with pytest.raises(UserError, match=f"{folder}: cannot hold the lineage store: No space left on device"):
        open_client(local_store(folder), create=True)
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(UserError, match="cannot hold the lineage store: Not a directory"):
        open_client(local_store(tmp_path / "file" / "folder"), create=True)


def test_a_name_that_no_disk_accepts_is_reported(tmp_path: Path) -> None:
    for create in (False, True):
        with pytest.raises(UserError, match=r"cannot .*: File name too long"):
            open_client(uri_of(tmp_path / ("x" * 300) / "mlflow.db"), create=create)
    assert list(tmp_path.iterdir()) == []
