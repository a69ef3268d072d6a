"""What tests of all rooms use: tiny checkpoints, a data set, a plan on them, an S3 server, and pytest's own options."""

import gc
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.register_assert_rewrite("support")  # so that a failed assertion there shows its values, too

from support.data import write_data
from support.environment import isolate
from support.kubernetes_api import Kubernetes
from support.mlflow_server import new_database
from support.plans import tiny_plan
from support.s3 import Proxy, Server, start_server
from support.skipped import write_skipped
from support.tiny import write_checkpoint
from support.training import train_until_it_answers

from lmmpress.data import read_split
from lmmpress.host.patience import PATIENCE
from lmmpress.lmm.checkpoint import load_model, read_checkpoint, save_trained
from lmmpress.lmm.examples import encode
from lmmpress.lmm.processor import load_processor
from lmmpress.progress import listening
from lmmpress.progress.terminal import on_terminal
from lmmpress.store.connection import connect
from lmmpress.tracking.client import local_store

isolate()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--s3-server", choices=["ministack", "radosgw"], default="ministack", help="what S3 tests talk to")
    parser.addoption(
        "--write-docs",
        action="store_true",
        help="write what tests compare with: tables in docs/, the golden files of the chart",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long tests start first, so that no process waits for one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    if config.getoption("--s3-server") != "radosgw":
        skip = pytest.mark.skip(reason="MiniStack checks no secrets, clocks and policies: make test-radosgw")
        for item in items:
            if item.get_closest_marker("enforcing"):
                item.add_marker(skip)


def pytest_collection_finish() -> None:
    keep_what_is_loaded()


def keep_what_is_loaded() -> None:
    """Modules stay: the garbage collector, which measurements ask for, need not look through their half a million
    objects each time."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    write_skipped(terminalreporter)


@pytest.fixture(autouse=True)
def begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test is a process that has not begun any run, and that waits for a server for a minute at most."""
    monkeypatch.setenv(PATIENCE, "60s")
    monkeypatch.setattr("lmmpress.host.patience._begun", False)


@pytest.fixture
def aloud() -> Iterator[None]:
    """Show what the library reports on stderr, as the command line does."""
    with listening(on_terminal()):
        yield


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not load a run's result in a new process, which takes seconds. test_saving.py and the runs of test_cli.py do
    that."""
    monkeypatch.setattr("lmmpress.engine.parts.load.verify_for_users", lambda checkpoint: None)


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`write_checkpoint` into a new folder, once for each kind."""
    made: dict[str, Path] = {}

    def make(kind: str = "llama", **changes: Any) -> Path:
        key = kind + json.dumps(changes, sort_keys=True)
        if key not in made:
            made[key] = write_checkpoint(tmp_path_factory.mktemp(kind), kind, **changes)
        return made[key]

    return make


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "ads", {"score": 8, "distill": 24, "gate": 8, "test": 8})


@pytest.fixture
def raw_plan(make_checkpoint: Callable[..., Path], data: Path) -> dict[str, Any]:
    """A plan of five steps on the tiny Llama model; a test changes the settings that it tests."""
    return tiny_plan(make_checkpoint("llama"), data)


@pytest.fixture(scope="session")
def taught(make_checkpoint: Callable[..., Path], data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama model after learning to name the colour of a picture."""
    torch.manual_seed(0)
    source = make_checkpoint("llama")
    model, anatomy = load_model(source), read_checkpoint(source)
    train_until_it_answers(model, encode(read_split(data, "distill"), load_processor(source), anatomy.config))
    target = tmp_path_factory.mktemp("taught") / "model"
    save_trained(model, source, anatomy, target, {"format": 1, "history": []})
    (target / "COMPRESSION.json").unlink()
    del model
    keep_what_is_loaded()  # transformers has loaded most of itself now
    return target


@pytest.fixture(scope="session")
def lineage_in() -> Callable[[Path], str]:
    """Put an empty MLflow database into a folder and return its tracking URI. It is a copy: MLflow takes seconds to
    make one."""

    def make(folder: Path) -> str:
        folder.mkdir(exist_ok=True)
        new_database(folder / "mlflow.db")
        return local_store(folder)

    return make


@pytest.fixture(scope="session")
def s3_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An S3 server of this test process."""
    server = start_server(request.config.getoption("--s3-server"), tmp_path_factory.mktemp("s3") / "data")
    yield server
    server.stop()


@pytest.fixture
def new_bucket(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """Make a bucket on the S3 server and return the address of an empty store in it. From then on the environment names
    the server, and the cache is in the test's folder."""

    def make() -> str:
        server: Server = request.getfixturevalue("s3_server")
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
        monkeypatch.setenv("LMMPRESS_CACHE", str(tmp_path / "cache"))
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        connect().make_bucket(name)
        return f"s3://{name}/models"

    return make


@pytest.fixture
def bucket_address(new_bucket: Callable[[], str]) -> str:
    """The address of an empty store in a bucket."""
    return new_bucket()


@pytest.fixture
def proxy(bucket_address: str, s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy between this test and the server."""
    proxy = Proxy(s3_server.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    yield proxy
    proxy.close()


@pytest.fixture
def kubernetes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubernetes]:
    """An API server of Kubernetes, which the kubeconfig of the environment names."""
    server = Kubernetes()
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path)))
    yield server
    server.stop()
