"""A compiled pipeline, written without repetitions.

Kubeflow's compiler repeats a component's interface, command and pod settings for every task that uses it. Tasks may
share them: the backend visits each component once, by name. The pipeline's object in the cluster's database shrinks in
proportion.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from kfp.dsl.graph_component import GraphComponent

Node = dict[str, Any]
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # ten times as fast, if PyYAML was built with it


def ir_of(pipeline: "GraphComponent") -> tuple[Node, Node]:
    """A pipeline's specification, and that of its platforms."""
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(pipeline.pipeline_spec), MessageToDict(pipeline.platform_spec)


def to_yaml(spec: Node, platform: Node) -> str:
    """The text of a pipeline's file, as Kubeflow's clients and pages read it."""
    info = spec["pipelineInfo"]
    documents = [spec, platform] if platform else [spec]
    head = f"# PIPELINE DEFINITION\n# Name: {info['name']}\n# Description: {info['description']}\n"
    return head + yaml.dump_all(documents, Dumper=_Dumper, sort_keys=True, width=10000)


def share(spec: Node, platform: Node) -> None:
    """Let equal tasks share one executor and one component, in place."""
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
    """Map each name whose content repeats an earlier one to that earlier name."""
    seen: dict[str, str] = {}
    same = {}
    for name in sorted(names, key=lambda one: (len(one), one)):
        first = seen.setdefault(json.dumps(content(name), sort_keys=True), name)
        if first != name:
            same[name] = first
    return same
