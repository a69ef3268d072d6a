"""Acts as tags of registered versions, in a real MLflow: each beside its line of the audit, and never in its way."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from support.mlflow_server import new_database, serving
from support.trigger_server import Running, running, settings_of, until

from lmmpress.store.kinds import ACTS, stem
from lmmpress.tracking.client import open_client
from lmmpress.trigger import act_tags
from lmmpress.trigger.act_tags import telling
from lmmpress.trigger.acts import Act, recorded
from lmmpress.trigger.aliases import MlflowAliases
from lmmpress.trigger.claims import State


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    with serving(new_database(folder / "mlflow.db"), folder) as found:
        yield found


@dataclass
class Place:
    """The trigger's server before a real MLflow, which has version 1 of a model of this test."""

    server: Running
    client: MlflowClient
    model: str

    def act(self, path: str, why: str, status: int) -> Any:
        answer = self.server.ask("POST", f"/api/v1/{path}", "otto", {"why": why})
        assert answer.status == status, answer.body
        return answer.json

    def tags(self) -> dict[str, str]:
        """The acts of version 1, the oldest first."""
        found = self.client.get_model_version(self.model, "1").tags
        return {name: found[name] for name in sorted(found) if name.startswith("lmmpress.act.")}

    def acts(self) -> list[Act]:
        return list(recorded(self.server.service.trigger.objects))

    def names(self) -> list[str]:
        return sorted(stem(entry.name) for entry in self.server.service.trigger.objects.entries(ACTS.prefix))


@pytest.fixture
def place(address: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    model = request.node.name
    client = open_client(address)
    client.create_registered_model(model)
    client.create_model_version(model, "s3://models/x")
    settings = settings_of(tmp_path, (model,)).model_copy(update={"tracking": address})
    with running(settings, aliases=MlflowAliases(address)) as server:
        yield Place(server, client, model)


def test_what_people_do_about_a_claim_is_told_at_the_version_that_it_is_about(place: Place) -> None:
    claim = place.act(f"models/{place.model}/fire", "before the sale", 200)["key"]
    until(lambda: place.server.service.claim(claim).state is State.running)
    place.act(f"claims/{claim}/cancel", "wrong rows", 200)
    until(lambda: place.server.service.claim(claim).state is State.cancelled)
    place.act(f"claims/{claim}/retry", "", 200)
    place.act(f"claims/{claim}/retry", "too early", 409)
    lines = place.tags()
    assert list(lines.values()) == [
        f"fire by otto (operator) because: before the sale; claim {claim} is claimed",
        f"cancel by otto (operator) because: wrong rows; claim {claim} is to be cancelled",
        f"retry by otto (operator); claim {claim} is claimed, attempt 2",
    ]
    told = [name.removeprefix("lmmpress.act.") for name in lines]
    assert told == place.names()[:3], "by the name of a tag its act is found in the store, with its time"
    assert [act.outcome.partition(":")[0] for act in place.acts()][3:] == ["failed"], "what was refused changed nothing"


def test_texts_of_people_are_safe_short_and_without_credentials(place: Place) -> None:
    why = "see https://mei:hush@wiki.example/x\x1b[31m " + "long " * 180
    place.act(f"models/{place.model}/fire", why, 200)
    (line,) = place.tags().values()
    assert "hush" not in line
    assert line.isprintable()
    assert len(line) <= 2000


def test_the_oldest_acts_make_room(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(act_tags, "MOST", 2)
    for why in ("one", "two", "three"):
        place.act(f"models/{place.model}/fire", why, 200)
    assert [line.partition("because: ")[2].partition(";")[0] for line in place.tags().values()] == ["two", "three"]
    assert [act.why for act in place.acts()] == ["one", "two", "three"], "the store keeps all"


def test_an_act_is_done_though_mlflow_is_not_told(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.client.delete_model_version(place.model, "1")
    with caplog.at_level("WARNING", logger="lmmpress.trigger"):
        place.act(f"models/{place.model}/fire", "anyway", 200)
    (act,) = place.acts()
    assert act.outcome.startswith("claim ")
    assert "; MLflow was not told: MLflow at http://127.0.0.1:" in act.outcome
    assert [one.getMessage() for one in caplog.records if one.name == "lmmpress.trigger"] == [
        "an act is in the store alone"
    ]


def test_mlflow_may_be_away(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmmpress.tracking.client._PAUSES", ())
    trigger = replace(place.server.service.trigger, aliases=MlflowAliases("http://127.0.0.1:9"))
    act = Act(at=time.time(), by="mei", role="operator", what="cancel", model=place.model)
    with telling(trigger, act) as doing:
        doing.about(place.model, "1")
        doing.said("claim 1-2 is to be cancelled")
    assert doing.untold.startswith("MLflow was not told: MLflow at http://127.0.0.1:9: no answer")
    assert place.acts()[-1].outcome == f"claim 1-2 is to be cancelled; {doing.untold}"
