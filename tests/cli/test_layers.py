"""The command line is a thin layer: it imports little, computes nothing, and has the library's own defaults."""

import ast
import inspect
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import typer
from support.paths import ROOT

from lmmpress import api
from lmmpress.cli.app import app

CLI = ROOT / "lmmpress" / "cli"
PRINTING = ("lmmpress.printing", "lmmpress.errors", "lmmpress.progress", "lmmpress.cli")
CLUSTER = ("lmmpress.tasks.cluster_profile", "lmmpress.tasks.granularity", "lmmpress.tasks.pod_memory")
ROOMS = {
    "app.py": ("lmmpress.host.full_disk", "lmmpress.host.offline", "lmmpress.host.quiet"),
    "approve.py": ("lmmpress.argo", "lmmpress.pods", "lmmpress.doctor", "lmmpress.tasks", "lmmpress.host.extras"),
    "argo.py": ("lmmpress.argo", "lmmpress.pods", "lmmpress.doctor", "lmmpress.plan", *CLUSTER),
    "checkpoints.py": ("lmmpress.axes", "lmmpress.plan"),
    "compare.py": ("lmmpress.plan",),
    "by_name.py": ("lmmpress.settings.plain_yaml",),
    "doctor.py": ("lmmpress.doctor", "lmmpress.pods", "lmmpress.plan", "lmmpress.host.extras", *CLUSTER),
    "findings.py": ("lmmpress.doctor",),
    "kubeflow.py": ("lmmpress.kubeflow", "lmmpress.pods", "lmmpress.doctor", *CLUSTER),
    "lineage.py": ("lmmpress.tracking", "lmmpress.trigger"),
    "promotion.py": ("lmmpress.trigger",),
    "run.py": ("lmmpress.host.full_disk",),
    "shared.py": ("lmmpress.tasks.cluster_profile",),
    "store.py": ("lmmpress.store", "lmmpress.tasks.late_lineage"),
    "task.py": ("lmmpress.tasks.by_name",),
    "trigger.py": ("lmmpress.trigger",),
    "trigger_shared.py": ("lmmpress.trigger", "lmmpress.doctor", "lmmpress.host.extras"),
}
"""What a module may import beside the API and what prints: its own room; and where errors and options come from."""


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= set(names) if node.module in ("lmmpress", "lmmpress.cli") else {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def within(name: str, rooms: tuple[str, ...]) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


@pytest.mark.parametrize("path", sorted(CLI.glob("*.py")), ids=lambda path: path.name)
def test_a_module_imports_the_api_and_what_prints(path: Path) -> None:
    allowed = (*PRINTING, "lmmpress.api", *ROOMS.get(path.name, ()))
    ours = {name for name in imports_of(path) if name.partition(".")[0] == "lmmpress"}
    assert not {name for name in ours if not within(name, allowed)}
    others = {name.partition(".")[0] for name in imports_of(path)} - {"lmmpress", "typer", "rich"}
    assert not others & {"torch", "transformers", "mlflow", "minio", "kfp", "kubernetes", "safetensors"}


def test_nothing_else_imports_the_command_line() -> None:
    for folder in ("lmmpress", "components", "pipelines"):
        for path in (ROOT / folder).rglob("*.py"):
            if CLI not in path.parents:
                assert not {name for name in imports_of(path) if within(name, ("lmmpress.cli",))}, path


PLANNED = {"plan_file": "plan", "from_preset": "plan", "sample": "plan"}
COMMANDS: dict[str, tuple[Callable[..., Any], dict[str, str]]] = {
    "run": (api.compress, {"directory": "out", **PLANNED}),
    "plan": (api.plan_sizes, PLANNED),
    "advise": (api.advise, PLANNED),
    "prune": (api.prune, {"target": "out"}),
    "inspect": (api.inspect, {}),
    "evaluate": (api.evaluate, {}),
    "compare": (api.compare, {"target": "out"}),
    "data": (api.inspect_data, {"directory": "data"}),
    "report": (api.report, {}),
}
"""Each command's function, and how the API calls what is called otherwise on the command line."""


def registered() -> dict[str, Any]:
    """The commands by name, without those of groups."""
    return {str(one.name or one.callback.__name__): one.callback for one in app.registered_commands if one.callback}


def plain(default: Any) -> Any:
    """A default as the API has it: lists are tuples there, and choices are strings."""
    if isinstance(default, Enum):
        return default.value
    return tuple(default) if isinstance(default, list) else default


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_the_defaults_of_its_function(name: str) -> None:
    function, renamed = COMMANDS[name]
    offered = inspect.signature(function).parameters
    asked = inspect.signature(registered()[name]).parameters
    for option, parameter in asked.items():
        if option in ("as_json", "strict") or renamed.get(option) == "plan":
            continue
        counterpart = offered[renamed.get(option, option)]
        assert plain(parameter.default) == counterpart.default, option
    missing = set(offered) - {renamed.get(option, option) for option in asked}
    assert missing <= {"progress", "recorder"}, "every other parameter has an option"


def test_every_command_is_known_here() -> None:
    assert set(registered()) == {*COMMANDS, "compile", "submit", "approve", "task", "doctor"}
    assert isinstance(app, typer.Typer)
