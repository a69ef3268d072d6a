"""`lmmpress trigger check`: what it says of a store. test_server_mlflow.py has what it says of MLflow and a model."""

from pathlib import Path
from typing import Any

import pytest

from lmmpress.store import open_store
from lmmpress.store.objects import Found
from lmmpress.trigger.check import check_store


@pytest.fixture(params=["directory", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "store") if request.param == "directory" else str(request.getfixturevalue("bucket_address"))


def test_a_store_that_writes_on_condition_is_found_to(store: str) -> None:
    objects = open_store(store).objects
    (found,) = check_store(objects)
    assert (found.status, found.said) == ("ok", f"{objects.address} writes on condition")
    assert list(objects.entries("hints/")) == [], "nothing is left behind"


def test_a_store_that_overwrites_is_found_out(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = open_store(store).objects
    really = type(objects).write

    def careless(self: Any, name: str, data: bytes, tag: str | None) -> None:
        found: Found | None = self.read(name)
        really(self, name, data, found.tag if found else None)

    monkeypatch.setattr(type(objects), "write", careless)
    (found,) = check_store(objects)
    assert found.status == "failed"
    assert found.said.endswith("overwrites what another process has written")
