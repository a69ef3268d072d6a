"""What is in service, what rolling back leads to, and what open claims need is pinned in the stores of the plans."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cli import refused, run
from support.mlflow_server import new_database
from support.plans import PLAN
from support.promotion_work import Scene, scene
from support.trigger_page import begin_in_folder, claimed

from lmmpress.errors import UserError
from lmmpress.store import Store, open_store
from lmmpress.store.pins import Pin, read_pins
from lmmpress.tracking.client import open_client
from lmmpress.tracking.database import uri_of
from lmmpress.tracking.registry import TAG
from lmmpress.trigger.claims import State
from lmmpress.trigger.pinning import pin
from lmmpress.trigger.promotion import promote, roll_back

MODEL, COMPRESSED = "AntGMM", "AntGMM-compressed"


def made(address: str) -> Store:
    """A store with something in it."""
    store = open_store(address)
    store.write_record("x", {})
    if "://" not in address:
        (Path(address) / "blobs").mkdir()
    return store


class Place:
    """A trigger whose plan has a store, and versions 1 to 3 of the compressed model, whose checkpoints are in it."""

    def __init__(self, folder: Path, address: str) -> None:
        self.store = made(address)
        self.scene: Scene = scene(
            folder, MODEL, uri_of(new_database(folder / "mlflow.db")), promotion={"comparison": False}
        )
        (folder / "plan.yaml").write_text(yaml.safe_dump(PLAN | {"store": address}), "utf-8")
        for number in (1, 2, 3):
            self.register(self.store.address(f"{number:064x}"))

    def register(self, address: str) -> None:
        client = open_client(self.scene.trigger.settings.tracking)
        version = self.scene.register(address.rpartition("/")[2])
        client.set_model_version_tag(COMPRESSED, version, TAG, address)

    def promote(self, version: str) -> None:
        promote(self.scene.trigger, COMPRESSED, version, by="Ada", why="better")

    def pinned(self, store: Store | None = None) -> Pin:
        """What is pinned after a round."""
        pin(self.scene.trigger, MODEL)
        found = list(read_pins((store or self.store).objects))
        assert len(found) <= 1
        return found[0] if found else Pin()


@pytest.fixture(params=["directory", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path, new_bucket: Callable[[], str]) -> Place:
    return Place(tmp_path, new_bucket() if request.param == "bucket" else str(tmp_path / "models"))


def test_the_version_in_service_and_the_one_before_are_pinned(place: Place) -> None:
    assert place.pinned().is_empty
    for version in ("1", "2", "3"):
        place.promote(version)
    assert place.pinned().checkpoints == {
        f"{3:064x}": f"version 3 of {COMPRESSED} is in service",
        f"{2:064x}": f"rolling back {COMPRESSED} leads to version 2",
    }
    roll_back(place.scene.trigger, COMPRESSED, by="Ada", why="worse")
    assert place.pinned().checkpoints == {
        f"{2:064x}": f"version 2 of {COMPRESSED} is in service",
        f"{1:064x}": f"rolling back {COMPRESSED} leads to version 1",
    }


def test_where_rolling_back_passes_over_a_version_the_next_is_pinned(place: Place) -> None:
    for version in ("1", "2", "3"):
        place.promote(version)
    open_client(place.scene.trigger.settings.tracking).delete_model_version(COMPRESSED, "2")
    assert set(place.pinned().checkpoints) == {f"{3:064x}", f"{1:064x}"}


def test_nothing_is_written_where_only_the_registry_leads(place: Place, tmp_path: Path) -> None:
    """Whoever registers a version names its address; the settings name the stores."""
    other = made(str(tmp_path / "other"))
    place.register(other.address("f" * 64))
    place.promote("4")
    assert place.pinned().is_empty
    assert place.pinned(other).is_empty


def test_a_run_that_cannot_be_read_does_not_leave_the_rest_unpinned(tmp_path: Path) -> None:
    place = Place(tmp_path, str(tmp_path / "models"))
    place.promote("1")
    trigger = place.scene.trigger
    claim = claimed(trigger, MODEL, "1", State.running, began=trigger.clock())
    begin_in_folder(trigger, claim, "a")
    (state,) = tmp_path.glob("runs/*/out/store/runs/*.json")
    state.write_text("{", "utf-8")
    with pytest.raises(UserError, match=state.name):
        pin(trigger, MODEL)
    (found,) = read_pins(place.store.objects)
    assert set(found.checkpoints) == {f"{1:064x}"}


def test_a_pin_that_cannot_be_read_does_not_leave_other_stores_unpinned(tmp_path: Path) -> None:
    place = Place(tmp_path, str(tmp_path / "models"))
    place.promote("1")
    trigger = place.scene.trigger
    claim = claimed(trigger, MODEL, "1", State.running, began=trigger.clock())
    begin_in_folder(trigger, claim, "a")
    pin(trigger, MODEL)
    (of_run,) = tmp_path.glob("runs/*/out/store/pins/*.json")
    (tmp_path / "models" / "pins" / of_run.name).write_text("{", "utf-8")
    of_run.unlink()
    with pytest.raises(UserError, match="says what is still needed, and cannot be read"):
        pin(trigger, MODEL)
    assert of_run.is_file()


def test_a_run_of_an_open_claim_is_pinned_until_the_claim_ends(raw_plan: dict[str, Any], tmp_path: Path) -> None:
    """A whole run on this machine. Its claim is then opened again, as if a task of a pipeline had still to come."""
    one = scene(tmp_path, MODEL, uri_of(new_database(tmp_path / "mlflow.db")), promotion={"comparison": False})
    plan = raw_plan | {"stages": {"block": {"step": 1, "max": 1}}}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan), "utf-8")
    client = open_client(one.trigger.settings.tracking)
    client.create_registered_model(MODEL)
    client.create_model_version(MODEL, raw_plan["model"], tags={TAG: raw_plan["model"]})
    client.set_registered_model_alias(MODEL, "release", "1")
    told = json.loads(run("trigger", "fire", MODEL, "--settings", one.file, "--wait", "--json"))
    assert told["state"] == "succeeded", told
    (store,) = tmp_path.glob("runs/*/out/store")
    key = next((store / "runs").glob("*.json")).stem
    claim = one.trigger.claims.get(told["key"])
    assert claim is not None
    claim = one.trigger.claims.move(claim, State.running, by="test", now=one.trigger.clock())
    pin(one.trigger, MODEL)
    assert f" is still needed: claim {claim.run} is not at its end" in refused("store", "rm", store, key)
    claim = one.trigger.claims.move(claim, State.succeeded, by="test", now=one.trigger.clock())
    pin(one.trigger, MODEL)
    assert list(read_pins(open_store(str(store)).objects)) == []

    run("trigger", "promote", COMPRESSED, "1", "--why", "first", "--settings", one.file)
    said = refused("store", "rm", store, key)
    assert f" is still needed: version 1 of {COMPRESSED} is in service; nothing is removed" in said
    assert "removed run" in run("store", "rm", store, key, "--force")
