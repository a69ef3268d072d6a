"""A real MLflow server tells the trigger's server of a new version, and the run of that version begins."""

import json
import re
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from mlflow import MlflowClient
from support.cli import run
from support.mlflow_server import WEBHOOKS, new_database, serving
from support.paths import ROOT
from support.trigger_server import OLD_SECRET, SECRET, Running, running, settings_of, until
from support.without import without

from lmmpress.errors import UserError
from lmmpress.store import open_store
from lmmpress.tracking.client import open_client
from lmmpress.trigger.check import check_clock, check_server
from lmmpress.trigger.registry import MlflowRegistry
from lmmpress.trigger.settings import TriggerSettings

EVENTS: list[Any] = ["model_version.created", "model_version_alias.created", "registered_model.created"]


@dataclass
class Mlflow:
    address: str
    client: MlflowClient
    folder: Path
    experiment: str

    def release(self, model: str, alias: str | None = None) -> str:
        """Register a version with a checkpoint of its own, and set the alias."""
        logged = self.client.create_logged_model(self.experiment, "checkpoint")
        made = self.folder / logged.model_id
        made.mkdir()
        (made / "config.json").write_text(f'{{"made": "{logged.model_id}"}}', "utf-8")
        self.client.log_model_artifacts(logged.model_id, str(made))
        version = self.client.create_model_version(model, f"models:/{logged.model_id}", model_id=logged.model_id)
        if alias:
            self.client.set_registered_model_alias(model, alias, version.version)
        return str(version.version)


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
    folder = tmp_path_factory.mktemp("mlflow")
    with serving(new_database(folder / "mlflow.db"), folder, webhooks=True) as address:
        client = open_client(address)
        yield Mlflow(address, client, folder, client.create_experiment("checkpoints"))


def settings(mlflow: Mlflow, folder: Path, model: str, **watched: Any) -> TriggerSettings:
    made = settings_of(folder, (model,))
    raw = made.model_dump(mode="json")
    del raw["models"][model]["alias" if watched.get("newest") else "newest"]
    raw["models"][model] |= watched
    return TriggerSettings.model_validate(raw | {"tracking": mlflow.address})


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMMPRESS_CACHE", str(tmp_path / "cache"))


def subscribe(mlflow: Mlflow, server: Running, secret: str = SECRET) -> str:
    made = mlflow.client.create_webhook(
        f"w-{time.monotonic_ns()}", f"{server.address}/webhooks/mlflow", EVENTS, None, secret
    )
    return str(made.webhook_id)


@pytest.mark.usefixtures("cache")
def test_a_release_in_mlflow_becomes_a_run(mlflow: Mlflow, tmp_path: Path) -> None:
    mlflow.client.create_registered_model("ant")
    mlflow.release("ant")
    with running(
        settings(mlflow, tmp_path, "ant", alias="release"),
        MlflowRegistry(mlflow.address, open_store(str(tmp_path / "store"))),
    ) as server:
        hook = subscribe(mlflow, server)
        tested = mlflow.client.test_webhook(hook)
        assert (tested.success, tested.response_status) == (True, 202)
        assert server.ask("GET", "/api/v1/models/ant", "vera").json["in_service"] is None

        assert mlflow.release("ant", "release") == "2"
        until(lambda: server.runs.phases)
        (claim,) = server.ask("GET", "/api/v1/claims", "vera").json["claims"]
        assert (claim["version"], claim["cause"], claim["by"]) == ("2", "webhook", "mlflow")
        mlflow.client.create_registered_model("ant-compressed")
        mlflow.release("ant-compressed", "serving")
        shown = server.ask("GET", "/api/v1/models/ant", "vera").json
        assert (shown["newest"]["version"], shown["in_service"]["version"]) == ("2", "1")
        assert abs(shown["newest"]["created"] - time.time()) < 60

        mlflow.client.set_registered_model_alias("ant", "release", "2")  # fires again, which asks nothing new
        until(lambda: server.metric("deliveries_total", result="noted") >= 3)
        until(lambda: server.metric("fires_total", cause="webhook", result="claim") >= 1)
        assert len(server.runs.phases) == 1
        mlflow.client.delete_webhook(hook)


@pytest.mark.usefixtures("cache")
def test_mlflows_secret_may_be_the_old_one_and_no_other(mlflow: Mlflow, tmp_path: Path) -> None:
    with running(
        settings(mlflow, tmp_path, "none", newest=True),
        MlflowRegistry(mlflow.address, open_store(str(tmp_path / "store"))),
    ) as server:
        statuses = []
        for secret in (SECRET, OLD_SECRET, "x" * 40):
            hook = subscribe(mlflow, server, secret)
            statuses.append(mlflow.client.test_webhook(hook).response_status)
            mlflow.client.delete_webhook(hook)
        assert statuses == [202, 202, 401]
        shown = server.ask("GET", "/api/v1/models/none", "vera").json
        assert (shown["newest"], shown["in_service"], shown["fault"]) == (None, None, None)


def findings_of(asked: TriggerSettings) -> list[tuple[str, str]]:
    return [(one.status, one.said) for one in check_server(asked)]


@pytest.mark.usefixtures("cache")
def test_the_check_finds_the_webhook_and_what_it_lacks(mlflow: Mlflow, tmp_path: Path) -> None:
    asked = settings(mlflow, tmp_path, "ant", alias="release")
    assert findings_of(asked)[0] == ("ok", "3 tokens and 2 webhook secrets can be read")
    assert findings_of(asked)[1:] == [("warning", "MLflow has no webhook that leads to /webhooks/mlflow")]
    client, url = mlflow.client, "http://127.0.0.1:9/webhooks/mlflow"
    hook = client.create_webhook("checked", url, EVENTS[:1], secret=SECRET).webhook_id
    assert findings_of(asked)[1:] == [("warning", f"the webhook to {url} is not told of model_version_alias.created")]
    client.update_webhook(hook, events=EVENTS)
    ((status, said),) = findings_of(asked)[1:]
    assert (status, said.partition(":9/webhooks/mlflow: ")[0]) == (
        "unknown",
        "MLflow's test did not arrive at http://127.0.0.1",
    )
    client.update_webhook(hook, status="DISABLED")
    assert findings_of(asked)[1:] == [("warning", f"the webhook to {url} is not active")]
    client.delete_webhook(hook)
    (tmp_path / "vera").write_text("short", "utf-8")
    assert [status for status, _ in findings_of(asked)] == ["failed"]


@pytest.mark.usefixtures("cache")
def test_the_check_proves_by_a_delivery_that_mlflow_signs_with_the_servers_secret(
    mlflow: Mlflow, tmp_path: Path
) -> None:
    asked = settings(mlflow, tmp_path, "ant", alias="release")
    client = mlflow.client
    with running(asked, MlflowRegistry(mlflow.address, open_store(str(tmp_path / "store")))) as server:
        url = f"{server.address}/webhooks/mlflow"
        hook = subscribe(mlflow, server)
        assert findings_of(asked)[1:] == [("ok", f"MLflow delivers to {url}, which takes its signature")]
        client.update_webhook(hook, secret="x" * 40)
        (refused,) = check_server(asked)[1:]
        assert (refused.status, refused.said) == (
            "warning",
            f"the trigger at {url} does not take what MLflow signs: the signature does not match",
        )
        assert hook in refused.mend
        client.update_webhook(hook, secret=OLD_SECRET)
        assert [status for status, _ in findings_of(asked)] == ["ok", "ok"], "the one before, during a rotation"
        client.delete_webhook(hook)
        unsigned = client.create_webhook("unsigned", url, EVENTS).webhook_id
        ((status, said),) = findings_of(asked)[1:]
        assert (status, said.rpartition(": ")[2]) == (
            "warning",
            "the signature does not match",
        )
        client.update_webhook(unsigned, url=f"{server.address}/elsewhere/webhooks/mlflow")
        ((status, said),) = findings_of(asked)[1:]
        assert (status, "HTTP 404" in said) == ("warning", True), "a success is only the trigger's own answer"
        client.delete_webhook(unsigned)
        assert server.runs.phases == {}
        assert list(server.service.trigger.objects.entries("hints/")) == [], "a test asks for nothing"


def test_webhooks_of_another_key_stop_all_and_are_removed_as_the_docs_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a release is installed anew on the old database, and its Secret with the key is gone."""
    database = new_database(tmp_path / "mlflow.db")
    asked = settings_of(tmp_path / "settings", ("ant",))
    with serving(database, tmp_path, webhooks=True) as address:
        open_client(address).create_webhook("w", "http://127.0.0.1:9/webhooks/mlflow", EVENTS, secret=SECRET)
    monkeypatch.setitem(WEBHOOKS, "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", Fernet.generate_key().decode())
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with serving(database, tmp_path, webhooks=True) as address:
        _, unread = check_server(asked.model_copy(update={"tracking": address}))
        assert (unread.status, "docs/operate.md#incidents" in unread.mend) == ("unknown", True)
        (statements,) = re.findall(
            r"`(DELETE FROM webhook_events; .*?)`", (ROOT / "docs/operate.md").read_text("utf-8")
        )
        with sqlite3.connect(database) as connection:
            connection.executescript(statements)
        connection.close()
        assert findings_of(asked.model_copy(update={"tracking": address}))[1:] == [
            ("warning", "MLflow has no webhook that leads to /webhooks/mlflow")
        ]


def test_the_clock_is_held_against_mlflows(mlflow: Mlflow, tmp_path: Path) -> None:
    objects = open_store(str(tmp_path / "store")).objects
    found = check_clock(objects, mlflow.address, time.time)
    assert [one.status for one in found] == ["ok", "ok"]
    assert found[1].said.startswith("this machine and MLflow agree to ")
    behind = check_clock(objects, mlflow.address, lambda: time.time() - 600)
    assert [one.status for one in behind] == ["warning", "warning"]
    assert re.fullmatch(r"this machine's clock is \d+ s behind that of MLflow", behind[1].said)
    assert [one.status for one in check_clock(objects, "http://127.0.0.1:9", time.time)] == ["ok", "unknown"]
    assert [one.status for one in check_clock(objects, "sqlite:///mlflow.db", time.time)] == ["ok"], "it has no clock"


@pytest.mark.usefixtures("cache")
def test_without_torch_as_in_its_image_it_still_looks_at_clusters_and_engines(mlflow: Mlflow, tmp_path: Path) -> None:
    mlflow.client.create_registered_model("bee")
    mlflow.release("bee", "release")
    file = tmp_path / "trigger.yaml"
    file.write_text(settings(mlflow, tmp_path, "bee", alias="release").model_dump_json(), "utf-8")
    found = without(["torch"], "support.trigger_checked", "checked", tmp_path, settings=str(file))
    told = {check: (status, said) for check, status, said in found}
    assert told["model bee"][0] == "ok"
    plan = next(name for name in told if name.startswith("plan "))
    assert told[plan][0] == "unknown"
    assert "needs torch" in told[plan][1]
    assert told["engine local"][0] == "ok"
    assert not [check for check, status, _ in found if status == "failed"]


def test_the_doctor_makes_the_checks_of_the_trigger(mlflow: Mlflow, tmp_path: Path) -> None:
    """With the trigger's file it needs no cluster, and both commands say the same."""
    file = tmp_path / "trigger.yaml"
    file.write_text(settings(mlflow, tmp_path, "ghost", alias="release").model_dump_json(), "utf-8")

    def told_by(*command: object) -> list[dict[str, str]]:
        found: list[dict[str, str]] = json.loads(run(*command, "--json", code=1))["findings"]
        return [one | {"said": "" if one["check"] == "clock" else one["said"]} for one in found]  # seconds differ

    told = told_by("doctor", "--trigger", file)
    assert told == told_by("trigger", "check", "--settings", file)
    assert [one["check"] for one in told if one["status"] == "failed"] == ["model ghost"], "its alias is not there"
    assert {"settings", "store", "clock", "MLflow", "server", "webhook"} <= {one["check"] for one in told}
    file.write_text("stroe: x", "utf-8")
    (first, *_) = json.loads(run("doctor", "--trigger", file, "--json", code=1))["findings"]
    assert (first["check"], first["status"]) == ("settings", "failed")
    with pytest.raises(UserError, match=r"--cluster CLUSTER\.yaml, --trigger TRIGGER\.yaml, or both"):
        run("doctor")
