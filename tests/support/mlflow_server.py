"""MLflow for the tests: its real server on a real socket, and its databases."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from lmmpress.tracking.client import open_client
from lmmpress.tracking.database import uri_of

_kept: list[tempfile.TemporaryDirectory] = []  # as long as the process


WEBHOOKS = {
    "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": "bG1tcHJlc3MtdGVzdHMtbG1tcHJlc3MtdGVzdHMtMDE=",
    "MLFLOW_WEBHOOK_CACHE_TTL": "0",
}
"""Variables of a server that delivers webhooks: over HTTP, to this machine, with a key of its own, without delay."""


def new_database(path: Path) -> Path:
    """A database with MLflow's tables and nothing in them."""
    shutil.copyfile(_template(), path)
    return path


@lru_cache(maxsize=1)
def _template() -> Path:
    _kept.append(tempfile.TemporaryDirectory())
    path = Path(_kept[0].name) / "mlflow.db"
    open_client(uri_of(path), create=True)
    return path


@contextmanager
def serving(database: Path, cwd: Path, webhooks: bool = False) -> Iterator[str]:
    """The address of an MLflow server on that database. It hands out artifacts, which lie in `cwd`. With `webhooks` it
    delivers them at once, to servers on this machine too."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host, port = probe.getsockname()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri_of(database)]
    command += ["--artifacts-destination", str(cwd), "--workers", "1", "--host", host, "--port", str(port)]
    nowhere = subprocess.DEVNULL
    # its jobs, which nothing here uses, are seven processes
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | (WEBHOOKS if webhooks else {})
    server = subprocess.Popen(command, cwd=cwd, env=environment, start_new_session=True, stdout=nowhere, stderr=nowhere)
    address = f"http://{host}:{port}"
    try:
        _wait_for(f"{address}/health", server)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # the server and its workers, which are a group of their own
        server.wait(timeout=30)


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert server.poll() is None, "the MLflow server ended"
        try:
            with urllib.request.urlopen(address, timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(address)
