"""Addresses of MLflow as people write them: each is opened, or quickly refused in one line."""

import socket
import sqlite3

import pytest
import sqlalchemy.event
from sqlalchemy.engine import Engine
from support.mlflow_server import new_database

from lmmpress.errors import UserError
from lmmpress.tracking import client
from lmmpress.tracking.client import explained, open_client
from lmmpress.tracking.database import uri_of


@pytest.fixture(autouse=True)
def quick_retries(in_an_empty_folder: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PAUSES", (0.01,))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("sqlite:///rel/x.db", "rel/x.db: there is no such MLflow database"),
        ("mysql://u:pw@h/x", "the driver of this database is not installed (No module named 'MySQLdb')"),
        ("postgres://h/x", "MLflow knows no such address; write it as http://HOST:PORT"),
        ("foo://x", "MLflow at foo://x: MLflow knows no such address"),
        ("localhost:5000", "MLflow at localhost:5000: MLflow knows no such address"),
        ("127.0.0.1:5000", "there is no such folder; the address of a server begins with http:// or https://"),
        ("./mlruns", "MLFLOW_TRACKING_URI names mlruns, and there is no such folder"),
        ("file:///no/such%20folder", "MLFLOW_TRACKING_URI names /no/such folder, and there is no such folder"),
        ("databricks-uc", "MLflow at databricks-uc: Detected Unity Catalog tracking URI"),
        ("http://127.0.0.1:9", "MLflow at http://127.0.0.1:9: no answer (Connection refused): is the server up"),
        ("http://nobody.invalid", "no answer"),
        ("http://[bad", "Invalid IPv6 URL"),
        ("x\x1b[31m", r"names x\x1b[31m, and"),
    ],
)
def test_an_address_that_leads_nowhere_is_a_one_line_error(address: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        open_client(address).search_experiments()
    (line,) = caught.value.lines
    assert said in line
    assert "pw" not in line
    assert "\n" not in line


def test_a_server_that_accepts_connections_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_ANSWER", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UserError, match="connected, and no answer within 0 s: is the server up"):
            open_client(address)


def test_a_database_that_is_not_there_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow itself would try ten times, for more than a minute."""
    tried = []

    class Engine:
        def connect(self) -> None:
            tried.append("connect")
            raise ConnectionRefusedError("connection to h failed")

        def dispose(self) -> None:
            tried.append("dispose")

    monkeypatch.setattr("mlflow.store.db.utils.create_sqlalchemy_engine", lambda uri: Engine())
    with pytest.raises(UserError, match="MLflow at postgresql://h/x: connection to h failed; try again"):
        open_client("postgresql://h/x", create=True, advice="try again")
    assert tried == ["connect", "dispose"]


def out_of_date(found: str) -> str:
    """MLflow's error for a schema of another version."""
    return (
        f"Detected out-of-date database schema (found version {found}, but expected {'e' * 12}). Take a backup of your "
        "database, then run 'mlflow db upgrade <database_uri>' to migrate your database to the latest schema. NOTE: "
        "schema migration may result in database downtime - please consult your database's documentation for more "
        "detail."
    )


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (out_of_date("400f98739977"), "back it up, then run: mlflow db upgrade 'postgresql://h/x'"),
        (out_of_date("f" * 12), "install that version or a newer one: pip install --upgrade mlflow"),
        ("Can't locate revision identified by 'ffffffffffff'", "a newer MLflow than the "),
    ],
)
def test_a_database_schema_of_another_version_is_reported_with_the_right_remedy(raised: str, said: str) -> None:
    from mlflow import MlflowException

    with pytest.raises(UserError) as caught, explained("postgresql://u:secret@h/x"):
        raise MlflowException(raised)
    (line,) = caught.value.lines
    assert said in line
    assert "secret" not in line
    assert ("db upgrade" in line) == ("upgrade" in said and "pip" not in said)


def test_an_error_of_the_database_is_shown_as_it_is(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Without care, SQLAlchemy would explain its flush first, and MLflow would log a traceback."""
    database = new_database(tmp_path_factory.mktemp("full") / "mlflow.db")

    def limit(connection: sqlite3.Connection, _record: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")

    sqlalchemy.event.listen(Engine, "connect", limit)
    try:
        full = open_client(uri_of(database), create=True)
        with pytest.raises(UserError) as caught, explained(uri_of(database), "try again"):
            for _ in range(1000):
                full.create_run("0", tags={"text": "x" * 4000})
    finally:
        sqlalchemy.event.remove(Engine, "connect", limit)
    assert caught.value.lines == (f"MLflow at {uri_of(database)}: database or disk is full; try again",)


def test_a_long_message_ends_with_a_whole_word() -> None:
    from mlflow import MlflowException

    with pytest.raises(UserError) as caught, explained("http://h", "try again"):
        raise MlflowException("seven " * 1000)
    assert str(caught.value).endswith(" seven seven ...; try again")


def test_other_errors_are_not_reported_as_mlflows() -> None:
    with pytest.raises(KeyError), explained("http://h"):
        raise KeyError("ours")
