"""Databases of MLflow: a file, and one behind a server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.mlflow_server import new_database, serving

from lmmpress.tracking.client import local_store
from lmmpress.tracking.lineage import Lineage


@pytest.fixture(scope="session")
def sqlite_store(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A tracking URI, and the folder in which its database is."""
    folder = tmp_path_factory.mktemp("sqlite")
    return local_store(folder), folder


@pytest.fixture(scope="session")
def server_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("server")
    with serving(new_database(folder / "mlflow.db"), tmp_path_factory.mktemp("cwd")) as address:
        yield address, folder


@pytest.fixture
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Recording must write nothing to the working directory."""
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == [], "nothing is made"


@pytest.fixture
def store(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """The sqlite file, or the one that `on_both` selects."""
    found: tuple[str, Path] = request.getfixturevalue(getattr(request, "param", "sqlite_store"))
    return found


@pytest.fixture
def lineage(store: tuple[str, Path], request: pytest.FixtureRequest) -> Lineage:
    name = request.node.originalname
    return Lineage(store[0], model_name=name, experiment=name)
