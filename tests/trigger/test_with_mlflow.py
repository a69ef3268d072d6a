"""The trigger with a real MLflow server: what it reads of the registry, and a whole run from the shell."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from support.cli import run
from support.mlflow_server import new_database, serving
from support.plans import SHORT

from lmmpress.errors import UserError
from lmmpress.store import open_store
from lmmpress.tracking.client import open_client
from lmmpress.tracking.registry import TAG
from lmmpress.trigger.acts import recorded
from lmmpress.trigger.claims import Cause, Claim, State
from lmmpress.trigger.fire import fire
from lmmpress.trigger.reconcile import reconcile
from lmmpress.trigger.registry import MlflowRegistry
from lmmpress.trigger.settings import read_settings
from lmmpress.trigger.trigger import Trigger, open_trigger

ELSEWHERE = "s3://models/antgmm"
"""The source of versions. A server of MLflow takes no path of its own machine as one; the tag says where they are."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    with serving(new_database(folder / "mlflow.db"), folder) as address:
        yield address


@pytest.fixture
def client(server: str) -> MlflowClient:
    return open_client(server)


@pytest.fixture
def registry(server: str, tmp_path: Path) -> MlflowRegistry:
    return MlflowRegistry(server, open_store(str(tmp_path / "store")))


def checkpoint(folder: Path, content: str = "{}") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(content, "utf-8")
    return folder


def register(client: MlflowClient, name: str, *folders: Path) -> None:
    client.create_registered_model(name)
    for folder in folders:
        client.create_model_version(name, ELSEWHERE, tags={TAG: str(folder)})


def test_a_release_is_what_the_alias_names_or_the_newest_version(
    client: MlflowClient, registry: MlflowRegistry, tmp_path: Path
) -> None:
    folders = [checkpoint(tmp_path / name, f'{{"a": "{name}"}}') for name in ("v1", "v2", "v3")]
    register(client, "it's named", *folders)
    client.set_registered_model_alias("it's named", "release", "2")
    named, newest = registry.release("it's named", "release"), registry.release("it's named", None)
    assert (named.version, named.address) == ("2", str(folders[1]))
    assert (newest.version, newest.address) == ("3", str(folders[2]))
    assert named.digest != newest.digest
    assert named.created is not None
    assert abs(named.created.timestamp() - time.time()) < 300
    with pytest.raises(UserError, match="alias nowhere"):
        registry.release("it's named", "nowhere")
    with pytest.raises(UserError, match="Ghost"):
        registry.release("Ghost", None)


def test_a_number_that_is_given_again_is_another_question(
    client: MlflowClient, registry: MlflowRegistry, tmp_path: Path
) -> None:
    register(client, "again", checkpoint(tmp_path / "old"))
    before = registry.release("again", None)
    client.delete_registered_model("again")
    register(client, "again", checkpoint(tmp_path / "new", '{"a": 1}'))
    after = registry.release("again", None)
    assert before.version == after.version == "1"
    assert before.digest != after.digest


def test_a_digest_is_computed_once_and_anew_when_a_file_changes(
    client: MlflowClient, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint(tmp_path / "model")
    register(client, "hashed", folder)
    store = open_store(str(tmp_path / "store"))
    first = MlflowRegistry(server, store).release("hashed", None).digest
    with monkeypatch.context() as patched:
        patched.setattr("lmmpress.trigger.registry.digest_checkpoint", lambda folder: pytest.fail("read again"))
        assert MlflowRegistry(server, store).release("hashed", None).digest == first, "another process remembers it"
    checkpoint(folder, '{"a": 1}')
    assert MlflowRegistry(server, store).release("hashed", None).digest != first
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match="there is no checkpoint"):
        MlflowRegistry(server, store).release("hashed", None)


def test_a_checkpoint_in_a_store_or_a_bucket_is_known_by_its_name_or_its_list(
    client: MlflowClient, registry: MlflowRegistry, bucket_address: str, tmp_path: Path
) -> None:
    digest = "a" * 64
    client.create_registered_model("stored")
    client.create_model_version("stored", ELSEWHERE, tags={TAG: f"s3://bucket/store/checkpoints/{digest}"})
    assert registry.release("stored", None).digest == digest
    objects = open_store(bucket_address).objects
    objects.write("config.json", b"{}", None)
    client.create_model_version("stored", ELSEWHERE, tags={TAG: bucket_address})
    first = registry.release("stored", None).digest
    assert registry.release("stored", None).digest == first
    objects.write("model.safetensors", b"1", None)
    assert registry.release("stored", None).digest != first


def test_an_address_that_is_no_checkpoints_is_not_searched(
    client: MlflowClient, registry: MlflowRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(client, "whole disk", Path("/"))
    with monkeypatch.context() as patched:
        patched.setattr("lmmpress.trigger.registry.os.walk", lambda folder: pytest.fail("searched"))
        with pytest.raises(UserError, match=r"no checkpoint at /: it has no config\.json"):
            registry.release("whole disk", None)
    monkeypatch.setattr("lmmpress.trigger.registry._MOST_FILES", 1)
    folder = checkpoint(tmp_path / "many")
    (folder / "another").touch()
    register(client, "many files", folder)
    with pytest.raises(UserError, match="too many for a checkpoint"):
        registry.release("many files", None)


def test_what_was_fetched_in_vain_is_not_fetched_again_at_once(
    client: MlflowClient, registry: MlflowRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    monkeypatch.setenv("LMMPRESS_CACHE", str(tmp_path / "cache"))

    def fetch(artifact_uri: str, dst_path: str, tracking_uri: str) -> str:
        fetched.append(artifact_uri)
        return dst_path

    monkeypatch.setattr("mlflow.artifacts.download_artifacts", fetch)
    client.create_registered_model("in vain")
    client.create_model_version("in vain", "gs://models/1")
    for _ in range(3):
        with pytest.raises(UserError, match=r"no config\.json"):
            registry.release("in vain", None)
    assert len(fetched) == 1
    client.create_model_version("in vain", "gs://models/2")
    with pytest.raises(UserError, match=r"no config\.json"):
        registry.release("in vain", None)
    assert len(fetched) == 2, "another version is fetched"
    monkeypatch.setattr("lmmpress.trigger.registry._AGAIN", 0.0)
    registry._in_vain.clear()
    for _ in range(2):
        with pytest.raises(UserError, match=r"no config\.json"):
            registry.release("in vain", None)
    assert len(fetched) == 4


def test_new_rows_have_another_digest(registry: MlflowRegistry, bucket_address: str, tmp_path: Path) -> None:
    rows = tmp_path / "metadata.jsonl"
    rows.write_text("{}\n", "utf-8")
    first = registry.data_digest(str(tmp_path))
    assert registry.data_digest(str(tmp_path)) == first
    rows.write_text("{}\n{}\n", "utf-8")
    assert registry.data_digest(str(tmp_path)) != first
    with pytest.raises(UserError, match=r"metadata\.jsonl"):
        registry.data_digest(bucket_address)
    objects = open_store(bucket_address).objects
    objects.write("metadata.jsonl", b"{}\n", None)
    first = registry.data_digest(bucket_address)
    found = objects.read("metadata.jsonl")
    assert found is not None
    objects.write("metadata.jsonl", b"{}\n{}\n", found.tag)
    assert registry.data_digest(bucket_address) != first


MakeTrigger = Callable[..., Path]


@pytest.fixture
def make_trigger(server: str, client: MlflowClient, raw_plan: dict[str, Any], tmp_path: Path) -> MakeTrigger:
    """The settings file of a trigger for a model of that name, whose version 1 is the plan's model, released."""

    def make(name: str, tracking: str = server, **model: Any) -> Path:
        register(client, name, Path(raw_plan["model"]))
        client.set_registered_model_alias(name, "release", "1")
        (tmp_path / "plan.yaml").write_text(yaml.safe_dump(raw_plan | {"stages": SHORT}), "utf-8")
        watched = {"plans": {"usual": {"plan": "plan.yaml", "engine": "local"}}} | model
        raw = {"store": "store", "tracking": tracking, "models": {name: watched}}
        (tmp_path / "trigger.yaml").write_text(yaml.safe_dump(raw), "utf-8")
        return tmp_path / "trigger.yaml"

    return make


def claims_of(trigger: Trigger) -> list[Claim]:
    return trigger.claims.all()


def test_new_rows_are_a_reason_where_they_are_watched(make_trigger: MakeTrigger, data: Path, tmp_path: Path) -> None:
    file = make_trigger("rows", policy={"data": "watch"})
    plan = yaml.safe_load((tmp_path / "plan.yaml").read_text("utf-8"))
    copy = tmp_path / "rows"
    copy.mkdir()
    (copy / "metadata.jsonl").write_bytes((data / "metadata.jsonl").read_bytes())
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan | {"data": str(copy)}), "utf-8")
    trigger = open_trigger(read_settings(file))
    first = trigger.question("rows")
    (copy / "metadata.jsonl").write_bytes((data / "metadata.jsonl").read_bytes() + b"\n")
    second = trigger.question("rows")
    assert first.key != second.key
    assert first.data != second.data


def test_mlflow_may_be_away_and_come_again(make_trigger: MakeTrigger, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    database = new_database(tmp_path / "own" / "mlflow.db")
    with serving(database, tmp_path / "own") as address:
        own = open_client(address)
        settings = read_settings(make_trigger("away", tracking=address))
        trigger = open_trigger(settings)
        register(own, "away", checkpoint(tmp_path / "v1"))
        own.set_registered_model_alias("away", "release", "1")
        claim = fire(trigger, "away", by="mlflow", cause=Cause.webhook)
        assert isinstance(claim, Claim)
        trigger.claims.move(claim, State.succeeded, by="test", now=trigger.clock())
    [fault] = reconcile(trigger).faults
    assert fault.startswith("away: MLflow at http://127.0.0.1:")
    assert [one.state for one in claims_of(trigger)] == [State.succeeded]
    with serving(database, tmp_path / "own") as address:
        done = reconcile(open_trigger(settings.model_copy(update={"tracking": address})))
    assert not done.faults
    assert done.fired["away"].key == claim.key, "the same question after a restart of MLflow"


def test_from_a_release_to_the_compressed_model(
    make_trigger: MakeTrigger, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check, reconcile, follow, promote: as a person or a cron does it from a shell. The compressed model is
    registered, and the run has compared it with its original."""
    file = make_trigger("AntGMM")
    monkeypatch.setenv("LMMPRESS_TRIGGER_SETTINGS", str(file))
    found = json.loads(run("trigger", "check", "--json"))
    assert {one["status"] for one in found["findings"]} == {"ok"}, found
    begun = json.loads(run("trigger", "reconcile", "--json"))
    assert [one["state"] for one in begun["moved"]] == ["running"], begun
    claim = json.loads(run("trigger", "fire", "AntGMM", "--wait", "--json"))
    assert claim["state"] == "succeeded", claim
    assert (claim["cause"], claim["attempt"]) == ("reconciler", 1), "one question, one run"
    assert [event["state"] for event in claim["events"]] == ["claimed", "submitted", "running", "succeeded"]
    made = client.get_model_version_by_alias("AntGMM-compressed", "compressed")
    recorded_run = client.get_run(str(made.run_id))
    assert recorded_run.data.tags["lmmpress.claim"] == claim["key"], "from MLflow's run to who has asked for it"
    assert recorded_run.data.params["plan.model"] != ""
    assert "nothing to do" in run("trigger", "reconcile")
    assert claim["run"] in run("trigger", "ls")
    assert claim["events"][-1]["note"].endswith("; compared with its original: 0.0000 lost on 16 rows"), claim
    run("trigger", "promote", "AntGMM-compressed", "1", "--why", "for version 1")
    assert client.get_model_version_by_alias("AntGMM-compressed", "serving").version == "1"
    fired, promoted = recorded(open_trigger(read_settings(file)).objects)
    assert [fired.what, promoted.what] == ["fire", "promote"]
    assert f"compared by {claim['run']}" in promoted.outcome


def test_check_says_what_is_missing_and_how_to_add_it(
    make_trigger: MakeTrigger, client: MlflowClient, raw_plan: dict[str, Any], tmp_path: Path
) -> None:
    file = make_trigger("lacking")
    client.delete_registered_model_alias("lacking", "release")
    found = json.loads(run("trigger", "check", "--settings", file, "--json", code=1))["findings"]
    [model] = [one for one in found if one["check"] == "model lacking"]
    assert model["status"] == "failed"
    assert model["mend"] == "set the alias: MlflowClient().set_registered_model_alias('lacking', 'release', VERSION)"
    client.set_registered_model_alias("lacking", "release", "1")
    too_much = raw_plan | {"stages": {"ffn": {"step": 7, "max": 7000}}}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(too_much), "utf-8")
    found = json.loads(run("trigger", "check", "--settings", file, "--json", code=1))["findings"]
    [plan] = [one for one in found if one["check"] == "plan usual of lacking" and one["status"] == "failed"]
    assert plan["said"].startswith("not valid for version 1: ")
    file.write_text(file.read_text("utf-8") + "stroe: x\n", "utf-8")
    assert "unknown key stroe" in run("trigger", "check", "--settings", file, code=1)


def test_a_person_cancels_and_tries_again(
    make_trigger: MakeTrigger, client: MlflowClient, raw_plan: dict[str, Any], tmp_path: Path
) -> None:
    file = make_trigger("cancelled")
    endless = raw_plan | {"distillation": {"epochs": 100_000, "batch_size": 8}, "stages": SHORT}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(endless), "utf-8")
    said = run("trigger", "fire", "cancelled", "--settings", file, "--why", "a try")
    name = said.partition(", run ")[2].split(":")[0].strip()
    with pytest.raises(UserError, match="is running; only what failed"):
        run("trigger", "retry", name, "--settings", file)
    run("trigger", "cancel", name, "--settings", file, "--why", "enough", "--wait")
    [claim] = json.loads(run("trigger", "ls", "--settings", file, "--json"))
    assert (claim["state"], claim["events"][-1]["note"]) == ("cancelled", "enough")
    again = json.loads(run("trigger", "retry", name, "--settings", file, "--why", "again", "--json"))
    assert again["attempt"] == 2
    assert again["run"] == name.removesuffix("-1") + "-2"
    run("trigger", "cancel", again["key"], "--settings", file, "--wait")
    told = client.get_model_version("cancelled", "1").tags
    lines = [told[name].partition(" by ") for name in sorted(told) if name.startswith("lmmpress.act.")]
    assert [what for what, _, _ in lines] == ["fire", "cancel", "retry", "cancel"], "what failed is no act in MLflow"
    acts = list(recorded(open_trigger(read_settings(file)).objects))
    assert [(act.what, act.why) for act in acts if not act.outcome.startswith("failed")] == [
        ("fire", "a try"),
        ("cancel", "enough"),
        ("retry", "again"),
        ("cancel", ""),
    ]
    with pytest.raises(UserError, match="no claim begins with 'nothing'"):
        run("trigger", "cancel", "nothing", "--settings", file)
