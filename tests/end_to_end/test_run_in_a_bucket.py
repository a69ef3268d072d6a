"""A whole run whose model and store are in a bucket, as on a cluster: begun here and resumed on another machine."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.files import contents
from support.plans import SHORT
from support.results import essence
from support.s3 import Server
from support.work import WORK
from typer.testing import CliRunner

from lmmpress.cli.app import app
from lmmpress.engine.compression import compress
from lmmpress.errors import UserError
from lmmpress.plan import parse_plan
from lmmpress.store import open_checkpoint, open_store
from lmmpress.store.connection import connect
from lmmpress.store.housekeeping import verify_store
from lmmpress.tracking.client import local_store
from lmmpress.tracking.lineage import Lineage
from lmmpress.tracking.registry import address_of


@pytest.fixture
def in_bucket(raw_plan: dict[str, Any], new_bucket: Callable[[], str]) -> dict[str, Any]:
    """The plan with its model in a bucket, as a plain directory, and its store in the same bucket."""
    store = new_bucket()
    bucket = store.removeprefix("s3://").partition("/")[0]
    for name, data in contents(Path(raw_plan["model"])).items():
        connect()._put_object(bucket, f"teacher/{name}", data)
    return raw_plan | {"stages": SHORT, "model": f"s3://{bucket}/teacher", "store": store}


@pytest.mark.usefixtures("trusting")
def test_a_run_in_a_bucket_equals_a_local_run_and_another_machine_resumes_it(
    in_bucket: dict[str, Any],
    raw_plan: dict[str, Any],
    tmp_path: Path,
    s3_server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = compress(parse_plan(raw_plan | {"stages": SHORT}), tmp_path / "here")
    lineage = Lineage(local_store(tmp_path), "antgmm")
    there = compress(parse_plan(in_bucket), tmp_path / "there", lineage)
    assert essence(there) == essence(here)
    assert contents(tmp_path / "there" / "compressed").keys() == contents(tmp_path / "here" / "compressed").keys()

    monkeypatch.setenv("LMMPRESS_CACHE", str(tmp_path / "cache of another machine"))
    for work in WORK:
        monkeypatch.setattr(work, lambda *_, **__: pytest.fail("this was done already"))
    again = compress(parse_plan(in_bucket), tmp_path / "elsewhere")
    assert essence(again) == essence(there)
    assert [step.seconds for step in again.steps] == [step.seconds for step in there.steps]

    # lineage says where everything lies, and that is enough to get it
    address = there.compressed.address
    assert address == f"{in_bucket['store']}/checkpoints/{there.compressed.checkpoint}"
    registered = next(iter(lineage.client.search_model_versions("name='antgmm'")))
    for name in (f"models:/antgmm/{registered.version}", "models:/antgmm@compressed"):
        assert address_of(name, local_store(tmp_path)) == address
    monkeypatch.setenv("MLFLOW_TRACKING_URI", local_store(tmp_path))
    told = json.loads(CliRunner().invoke(app, ["inspect", f"models:/antgmm/{registered.version}", "--json"]).stdout)
    assert told["checkpoint"] == there.compressed.checkpoint

    # and nothing anywhere tells the secret
    assert verify_store(open_store(in_bucket["store"])) == []
    stored = (
        open_store(in_bucket["store"]).objects.read(entry.name)
        for entry in open_store(in_bucket["store"]).objects.entries("r")
    )
    written = [found.data for found in stored if found] + list(contents(tmp_path / "there").values())
    assert not any(s3_server.secret_key.encode() in data for data in written)


@pytest.mark.usefixtures("trusting")
def test_processes_that_distil_together_share_a_bucket(in_bucket: dict[str, Any], tmp_path: Path) -> None:
    together = in_bucket["distillation"] | {"processes": 2}
    one_step = in_bucket | {"stages": {"ffn": SHORT["ffn"]}, "distillation": together}
    (step,) = compress(parse_plan(one_step), tmp_path / "out").steps
    assert step.checkpoint is not None
    assert contents(open_store(in_bucket["store"]).checkpoint(step.checkpoint))


def test_a_registered_model_without_a_checkpoint_is_a_one_line_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmmpress.tracking.client import open_client

    client = open_client(local_store(tmp_path), create=True)
    client.create_registered_model("AntGMM")
    client.create_model_version("AntGMM", "https://elsewhere/model")
    (tmp_path / "config.json").write_text("{}", "utf-8")
    client.create_model_version("AntGMM", str(tmp_path))
    assert address_of("models:/AntGMM/2", local_store(tmp_path)) == str(tmp_path), "its source is a directory"
    for name, message in (
        ("models:/AntGMM/1", "not the registry's own server.*set the tag lmmpress.address"),
        ("models:/AntGMM/7", "not found"),
        ("models:/AntGMM", "write a registered model as"),
        ("models:/AntGMM/latest", "write a registered model as"),
    ):
        with pytest.raises(UserError, match=message):
            address_of(name, local_store(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI"):
        address_of("models:/AntGMM/1")


def test_addresses_that_lead_nowhere_are_one_line_errors(tmp_path: Path) -> None:
    for address in (str(tmp_path / "nothing"), str(tmp_path / "store" / "checkpoints" / ("0" * 64))):
        with pytest.raises(UserError, match="there is no checkpoint"):
            open_checkpoint(address)
    assert not (tmp_path / "store").exists()
