"""A compiled pipeline, written with nothing twice.

Kubeflow's compiler writes a component's interface, command and pod settings anew for every task that uses it. Tasks may
share them: its backend visits each component once, by name. What it makes of the pipeline in the cluster's database
shrinks in proportion.
"""

import json
from collections.abc import Callable
from typing import Any

import yaml

Node = dict[str, Any]
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it was built
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def read_ir(text: str) -> tuple[str, Node, Node]:
    """The comment at the head of a compiled pipeline, its specification, and that of its platforms."""
    head = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    spec, *platform = yaml.load_all(text, _Loader)
    return head, spec, platform[0] if platform else {}


def write_ir(head: str, spec: Node, platform: Node) -> str:
    """The text that `read_ir` reads."""
    documents = [spec, platform] if platform else [spec]
    return head + yaml.dump_all(documents, Dumper=_Dumper, sort_keys=True, width=10000)


def share(spec: Node, platform: Node) -> None:
    """Let tasks that are alike use one executor and one component, in place."""
    executors: Node = spec["deploymentSpec"]["executors"]
    pods: Node = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    same = _first_of_same(executors, lambda label: [executors[label], pods.get(label)])
    for label in same:
        del executors[label]
        pods.pop(label, None)
    components: Node = spec["components"]
    for component in components.values():
        if "executorLabel" in component:
            component["executorLabel"] = same.get(component["executorLabel"], component["executorLabel"])
    leaves = [name for name, component in components.items() if "executorLabel" in component]
    same = _first_of_same(leaves, lambda name: components[name])
    for name in same:
        del components[name]
    for dag in (spec["root"], *components.values()):
        for task in dag.get("dag", {}).get("tasks", {}).values():
            used = task["componentRef"]["name"]
            task["componentRef"]["name"] = same.get(used, used)


def _first_of_same(names: Any, content: Callable[[str], Any]) -> dict[str, str]:
    """For each name whose content another has already: that other one."""
    seen: dict[str, str] = {}
    same = {}
    for name in sorted(names, key=lambda one: (len(one), one)):
        first = seen.setdefault(json.dumps(content(name), sort_keys=True), name)
        if first != name:
            same[name] = first
    return same
