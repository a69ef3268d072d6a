"""From which version a compressed version was made: by the tags of lineage in a real MLflow store, and the claims."""

from pathlib import Path

import pytest
from support.mlflow_server import new_database

from lmmpress.errors import UserError
from lmmpress.tracking.client import open_client
from lmmpress.tracking.database import uri_of
from lmmpress.trigger.made_from import MlflowMadeFrom


def test_a_version_says_of_which_checkpoint_and_in_which_run_it_was_made(tmp_path: Path) -> None:
    tracking = uri_of(new_database(tmp_path / "mlflow.db"))
    client = open_client(tracking)
    client.create_registered_model("m-compressed")
    client.create_model_version(
        "m-compressed", str(tmp_path), tags={"lmmpress.original": "a" * 64, "lmmpress.run_key": "b" * 64}
    )
    client.create_model_version("m-compressed", str(tmp_path))
    client.set_registered_model_alias("m-compressed", "serving", "1")
    client.set_registered_model_alias("m-compressed", "by-hand", "2")
    made_from = MlflowMadeFrom(tracking)
    ours, by_hand = made_from("m-compressed", "serving"), made_from("m-compressed", "by-hand")
    assert ours is not None
    assert by_hand is not None
    assert (ours.version, ours.original, ours.run_key) == ("1", "a" * 64, "b" * 64)
    assert (by_hand.version, by_hand.original, by_hand.run_key) == ("2", "", "")
    assert ours.created is not None


def test_an_alias_or_model_that_is_not_there_is_none(tmp_path: Path) -> None:
    tracking = uri_of(new_database(tmp_path / "mlflow.db"))
    open_client(tracking).create_registered_model("m-compressed")
    made_from = MlflowMadeFrom(tracking)
    assert made_from("m-compressed", "serving") is None
    assert made_from("none", "serving") is None


def test_a_registry_that_is_away_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mlflow\.db"):
        MlflowMadeFrom(uri_of(tmp_path / "none" / "mlflow.db"))("m-compressed", "serving")
