"""The trigger's settings for tests that need no real server."""

from collections.abc import Callable
from typing import Any

import pytest
import yaml
from support.plans import PLAN
from support.trigger_world import MODEL

from lmmpress.trigger.settings import TriggerSettings, read_settings

MakeSettings = Callable[..., TriggerSettings]


@pytest.fixture(scope="session")
def make_settings(tmp_path_factory: pytest.TempPathFactory) -> MakeSettings:
    """Write settings that watch one model with one plan, and read them. `policy` and other keys of the model are
    changed by name."""

    def make(**model: Any) -> TriggerSettings:
        folder = tmp_path_factory.mktemp("settings")
        (folder / "plan.yaml").write_text(yaml.safe_dump(PLAN), "utf-8")
        watched = {"plans": {"usual": {"plan": "plan.yaml", "engine": "local"}}} | model
        raw = {"store": "store", "tracking": "http://mlflow:5000", "models": {MODEL: watched}}
        (folder / "trigger.yaml").write_text(yaml.safe_dump(raw), "utf-8")
        return read_settings(folder / "trigger.yaml")

    return make
