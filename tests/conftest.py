"""Small models of the real classes, a small data set, and a plan that runs on them in seconds."""

import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

pytest.register_assert_rewrite("support")  # so that a failed assertion there shows its values, too

from support.data import make_processor, write_data
from support.mlflow_server import new_database
from support.s3 import MiniStack, Server, free_port
from support.tiny import config_of, make_model

from lmmpress.data import read_split
from lmmpress.lmm.checkpoint import load_model, read_checkpoint, save_trained
from lmmpress.lmm.examples import batches, encode, make_batch
from lmmpress.lmm.forward import answer_logits
from lmmpress.lmm.processor import load_processor
from lmmpress.progress import listening
from lmmpress.progress.terminal import on_terminal
from lmmpress.pruning.importance import answer_loss
from lmmpress.store.connection import connect
from lmmpress.tracking.client import local_store

# Tests see no settings of whoever runs them, and talk to their own servers directly.
for name in list(os.environ):
    if name.startswith(("AWS_", "MLFLOW_", "KFP_", "KUBE", "LMMPRESS_")):
        del os.environ[name]
for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "COLUMNS"):
    os.environ.pop(name, None)
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"

# One thread, in the processes that tests start too: the workers keep all cores busy, and no result depends on cores.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
# the same cases in every run, however slow the machine is
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")
logging.getLogger("transformers").setLevel(logging.ERROR)

MODELS_IN_FULL = ("llava-clip-llama", "text-glm")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--s3-server", choices=["ministack", "radosgw"], default="ministack", help="what S3 tests talk to")
    parser.addoption(
        "--write-docs",
        action="store_true",
        help="write what tests compare with: tables in docs/, the golden files of the chart",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """MiniStack enforces no policies."""
    enforced = collection_path.name == "test_rights_enforced.py"
    return True if enforced and config.getoption("--s3-server") != "radosgw" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long is begun first, so that no process waits for it at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture
def aloud() -> Iterator[None]:
    """What the library says is shown on stderr, as the command line shows it."""
    with listening(on_terminal()):
        yield


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's result is not loaded by a process of its own, which takes seconds; test_saving.py and the runs of
    test_cli.py do it for real."""
    monkeypatch.setattr("lmmpress.engine.parts.load.verify_for_users", lambda checkpoint: None)


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a tiny checkpoint with tokenizer and processor, once for each kind: a text family inside BLIP-2, or one of
    `MODELS_IN_FULL`."""
    made: dict[str, Path] = {}

    def make(kind: str = "llama", **changes: Any) -> Path:
        key = kind + json.dumps(changes, sort_keys=True)
        if key not in made:
            folder = tmp_path_factory.mktemp(kind)
            processor = make_processor(kind)
            tokenizer = getattr(processor, "tokenizer", processor)
            config = config_of(kind if kind in MODELS_IN_FULL else f"blip2-{kind}", len(tokenizer), **changes)
            make_model(config).save_pretrained(folder)
            processor.save_pretrained(folder)
            made[key] = folder
        return made[key]

    return make


@pytest.fixture
def copy(make_checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    """A checkpoint to spoil."""
    return shutil.copytree(make_checkpoint("llama"), tmp_path / "copy")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "ads", {"score": 8, "distill": 24, "gate": 8, "test": 8})


@pytest.fixture
def raw_plan(make_checkpoint: Callable[..., Path], data: Path) -> dict[str, Any]:
    """A plan of five steps on the tiny Llama model; tests change what they are about."""
    return {
        "model": str(make_checkpoint("llama")),
        "data": str(data),
        "tolerance": {"alpha": 0.9, "allow_zero": True},
        "importance": {"accumulation": "batch", "batch_size": 4},
        "stages": {
            "block": {"step": 1, "max": 2},
            "ffn": {"step": 16, "max": 16},
            "attention": {"step": 16, "max": 16},
            "io": {"step": 8, "max": 8},
        },
        "distillation": {"epochs": 1, "learning_rate": 1e-3, "batch_size": 8},
        "evaluation": {"samples": 4, "batch_size": 2, "latency_samples": 2},
    }


@pytest.fixture(scope="session")
def taught(make_checkpoint: Callable[..., Path], data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama model after learning to name the colour of a picture."""
    torch.manual_seed(0)
    source = make_checkpoint("llama")
    model = load_model(source)
    examples = encode(read_split(data, "distill"), load_processor(source), read_checkpoint(source).config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    loss, epochs = 1.0, 0
    while loss > 0.015:  # how many epochs that takes depends a little on the processor
        assert epochs < 100, f"it does not learn: the loss is {loss}"
        epochs += 1
        chosen_batches = batches(examples, 16, generator)
        loss = 0.0
        for chosen in chosen_batches:
            batch = make_batch(examples, chosen)
            part = answer_loss(answer_logits(model, batch, examples, None, None), batch)
            part.backward()
            loss += part.item() / len(chosen_batches)
            optimizer.step()
            optimizer.zero_grad()
    target = tmp_path_factory.mktemp("taught") / "model"
    save_trained(model, source, read_checkpoint(source), target, {"format": 1, "history": []})
    (target / "COMPRESSION.json").unlink()
    return target


@pytest.fixture(scope="session")
def lineage_in() -> Callable[[Path], str]:
    """Put an empty lineage store into a folder; its tracking URI. A copy: MLflow takes seconds to make one."""

    def make(folder: Path) -> str:
        folder.mkdir(exist_ok=True)
        new_database(folder / "mlflow.db")
        return local_store(folder)

    return make


@pytest.fixture(scope="session")
def s3_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An S3 server of this test process."""
    folder = tmp_path_factory.mktemp("s3") / "data"
    folder.mkdir()
    if request.config.getoption("--s3-server") == "radosgw":
        from support.radosgw import RadosGateway

        server: Server = RadosGateway(folder, free_port())
    else:
        server = MiniStack(folder, free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def new_bucket(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """Make a bucket on the test's S3 server, which the environment names from then on; with a cache of the test's own.
    Gives the address of an empty store in it."""

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
