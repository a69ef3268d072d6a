"""Promotions for tests: a trigger on a real store and a real MLflow, compressed versions, comparisons, and promotions
that kill their own process in the middle (called in a fork, see forks.py)."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from lmmpress.store.objects import Objects
from lmmpress.tracking.client import open_client
from lmmpress.trigger.acts import Act, recorded
from lmmpress.trigger.aliases import Aliases
from lmmpress.trigger.comparisons import keep, read_comparison
from lmmpress.trigger.promotion import promote, roll_back
from lmmpress.trigger.promotion_rule import aliases_of
from lmmpress.trigger.settings import read_settings
from lmmpress.trigger.trigger import Trigger, open_trigger
from support.plans import PLAN

ORIGINAL = "a" * 64
ALIAS = "serving"


def settings_file(folder: Path, model: str, tracking: str, top: dict[str, Any] | None = None, **watched: Any) -> Path:
    """Settings that watch one model; `watched` are further keys of the model, `top` further sections."""
    plan = PLAN | {"store": str(folder / "models")}  # a bucket would be asked for what is pinned there
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan), "utf-8")
    about = {"plans": {"usual": {"plan": "plan.yaml", "engine": "local"}}} | watched
    raw = {"store": "store", "tracking": tracking, "models": {model: about}} | (top or {})
    path = folder / "trigger.yaml"
    path.write_text(yaml.safe_dump(raw), "utf-8")
    return path


@dataclass
class Scene:
    """A trigger, and the compressed model of the one model that it watches."""

    file: Path
    trigger: Trigger
    compressed: str

    def register(self, digest: str, original: str = ORIGINAL) -> str:
        """A new version of the compressed model, as a run registers it; its number."""
        client = open_client(self.trigger.settings.tracking)
        if not client.search_registered_models(f"name='{self.compressed}'"):
            client.create_registered_model(self.compressed)
        tags = {"lmmpress.checkpoint": digest, "lmmpress.original": original}
        return str(client.create_model_version(self.compressed, "s3://models/x", tags=tags).version)

    def compare(self, digest: str, lost: float = 0.01, original: str = ORIGINAL, **data: Any) -> None:
        """Keep a comparison of a version with its original."""
        found = read_comparison(comparison_json(original, digest, lost, **data), "comparison.json")
        keep(self.trigger.objects, found, by="Ada", at=self.trigger.clock())

    def versions(self, count: int = 3) -> None:
        """Versions 1 to `count`, each compared with its original."""
        for number in range(1, count + 1):
            self.register(digest_of(number))
            self.compare(digest_of(number))

    def at(self) -> str | None:
        """The version that the alias names in MLflow."""
        return aliases_of(self.trigger).version_at(self.compressed, ALIAS)

    def move(self, version: str) -> None:
        """Somebody moves the alias without lmmpress."""
        open_client(self.trigger.settings.tracking).set_registered_model_alias(self.compressed, ALIAS, version)

    def tags(self, version: str) -> dict[str, str]:
        client = open_client(self.trigger.settings.tracking)
        return dict(client.get_model_version(self.compressed, version).tags)

    def acts(self) -> list[Act]:
        return list(recorded(self.trigger.objects))

    def with_aliases(self, aliases: Aliases) -> Trigger:
        return replace(self.trigger, aliases=aliases)


def scene(folder: Path, model: str, tracking: str, top: dict[str, Any] | None = None, **watched: Any) -> Scene:
    """A trigger with a store in a folder."""
    file = settings_file(folder, model, tracking, top, **watched)
    return Scene(file, open_trigger(read_settings(file)), f"{model}-compressed")


def digest_of(version: int) -> str:
    """The digest of the checkpoint of a version."""
    return f"{version:064x}"


def comparison_json(a: str, b: str, lost: float = 0.01, **data: Any) -> str:
    """A comparison.json, in the form that `lmmpress compare` writes, with parts that nobody reads here."""
    rows = {"address": "./maad", "split": "test", "digest": "d" * 64, "rows": 1000, "images": 500, "tasks": []} | data
    interval = {"low": lost - 0.005, "high": lost + 0.005, "confidence": 0.95}
    return json.dumps(
        {
            "format": 1,
            "a": {"checkpoint": a, "address": "a", "accuracy": 0.99, "parameters": 10},
            "b": {"checkpoint": b, "address": "b", "accuracy": 0.99 - lost, "parameters": 5},
            "data": rows,
            "all": {"rows": rows["rows"], "drop": lost, "drop_interval": interval, "p": 0.1},
            "by_task": {},
            "turns": None,
            "differing": [],
            "environment": {},
            "seconds": 1.0,
        }
    )


class Points:
    """Calls of methods, each with a point before and after it. `passed` counts the points, and `at_point` is called at
    each."""

    def __init__(self, at_point: Callable[[int], None]) -> None:
        self.passed, self._at_point = 0, at_point

    def reach(self) -> None:
        self.passed += 1
        self._at_point(self.passed)


class Pointed:
    """An object whose methods `names` pass points."""

    def __init__(self, behind: Any, points: Points, names: tuple[str, ...]) -> None:
        self._behind, self._points, self._names = behind, points, names

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._behind, name)
        if name not in self._names:
            return value

        def call(*arguments: Any, **named: Any) -> Any:
            self._points.reach()
            result = value(*arguments, **named)
            self._points.reach()
            return result

        return call


def pointed(trigger: Trigger, points: Points) -> Trigger:
    """The trigger with points at everything that it changes in the store and does in MLflow."""
    objects: Objects = Pointed(trigger.objects, points, ("write",))
    asked = ("version_at", "move", "tag")
    aliases: Aliases = Pointed(aliases_of(trigger), points, asked)
    return replace(trigger, objects=objects, aliases=aliases)


def do_and_die(file: str, deed: str, compressed: str, version: str, at: int) -> None:
    """Promote, or roll back; this process is killed at a point. It ends well if there are fewer points."""

    def die(point: int) -> None:
        if point == at:
            os.kill(os.getpid(), signal.SIGKILL)

    trigger = pointed(open_trigger(read_settings(file)), Points(die))
    do(trigger, deed, compressed, version)


def do(trigger: Trigger, deed: str, compressed: str, version: str) -> None:
    """Promote, or roll back from version 2."""
    if deed == "promote":
        promote(trigger, compressed, version, by="Ada", why="better")
    else:
        roll_back(trigger, compressed, by="Ada", why="worse")
