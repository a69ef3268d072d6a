"""Stores of each kind, and proxies between a test and its S3 server."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.s3 import Proxy, Server, start_server

from lmmpress.store import Store, open_store
from lmmpress.store.connection import connect


@pytest.fixture(params=["directory", "bucket"])
def address(request: pytest.FixtureRequest, tmp_path: Path, new_bucket: Callable[[], str]) -> str:
    """The address of an empty store of each kind."""
    return str(tmp_path / "store") if request.param == "directory" else new_bucket()


@pytest.fixture
def store(address: str) -> Store:
    return open_store(address)


@pytest.fixture
def own_server(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Server, Proxy, str]]:
    """A server that may be killed, a proxy before it, and a bucket."""
    server = start_server(request.config.getoption("--s3-server"), tmp_path / "server")
    proxy = Proxy(server.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
    monkeypatch.setenv("LMMPRESS_CACHE", str(tmp_path / "cache"))
    connect().make_bucket("models")
    yield server, proxy, "s3://models/store"
    proxy.close()
    server.stop()
