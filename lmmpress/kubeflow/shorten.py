"""The tasks of a compiled pipeline said in fewer words: Argo repeats each of them eight times in its statuses."""

import ast
import builtins
import importlib
import typing
from typing import Any

Node = dict[str, Any]
_PROGRAM = (
    'f=$(mktemp -d)/c.py\nprintf "%s" "$0" > "$f"\n'
    '_KFP_RUNTIME=true python3 -m kfp.dsl.executor_main --component_module_path "$f" "$@"'
)
_EXECUTOR = "kfp.dsl.executor_main"  # starts a task, in the program that the compiler writes
_OLD_FIELDS = ("cpuRequest", "cpuLimit", "memoryRequest", "memoryLimit")
_OLD_GPU = ("count", "type")
_TWICE = {"secretNameParameter": "secretName", "pvcNameParameter": "constant"}


def shorten(executors: Node, pods: Node) -> None:
    """Say the same in fewer words, in place: the program that starts a task, its source without what is only for
    readers, and settings once that the compiler writes for older and newer backends."""
    for pod in pods.values():
        _once(pod)
    for executor in executors.values():
        container: Node = executor["container"]
        command: list[str] = container.get("command", [])
        if command[:2] == ["sh", "-ec"] and len(command) == 4 and _EXECUTOR in command[2]:
            container["command"] = ["sh", "-ec", _PROGRAM, _source(container["args"], command[3])]
        resources: Node = container.get("resources", {})
        for old in _OLD_FIELDS:
            if f"resource{old[0].upper()}{old[1:]}" in resources:
                resources.pop(old, None)
        if "resourceCount" in resources.get("accelerator", {}):
            for old in _OLD_GPU:
                resources["accelerator"].pop(old, None)


def _once(pod: Node) -> None:
    for setting in pod.values():
        for one in setting if isinstance(setting, list) else ():
            for parameter, plain in _TWICE.items():
                if plain in one and "runtimeValue" in one.get(parameter, {}):
                    del one[parameter]
            if one.get("optional") is False:
                del one["optional"]


def _source(arguments: list[str], source: str) -> str:
    """The source of a task: where it is a component of ours, the line that imports it."""
    name = arguments[arguments.index("--function_to_execute") + 1]
    module = f"lmmpress.components.{name}.component"
    try:
        ours = getattr(importlib.import_module(module), name).component_spec.implementation.container.command[3]
    except (ImportError, AttributeError):
        ours = ""
    return f"from {module} import {name}" if ours == source else short_source(source)


def short_source(source: str) -> str:
    """The source of a component without docstrings, comments and unused imports."""
    from kfp import dsl

    module = ast.parse(source)
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None and len(node.body) > 1:
            del node.body[0]
    used = {node.id for node in ast.walk(module) if isinstance(node, ast.Name)}
    offered = {"kfp.dsl": set(dsl.__all__), "typing": set(typing.__all__)}
    module.body = [node for node in module.body if _is_used(node, used - set(dir(builtins)), offered)]
    return ast.unparse(module)


def _is_used(node: ast.stmt, used: set[str], offered: dict[str, set[str]]) -> bool:
    """Whether a statement is no import, or brings a name that is used."""
    if not isinstance(node, ast.Import | ast.ImportFrom):
        return True
    names = {(one.asname or one.name).partition(".")[0] for one in node.names}
    if names == {"*"}:
        names = offered.get(getattr(node, "module", None) or "", used)
    return bool(names & used)
