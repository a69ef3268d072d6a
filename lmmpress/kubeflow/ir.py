"""A compiled pipeline, written without repetitions.

Kubeflow's compiler repeats a component's interface, command and pod settings for every task that uses it. Tasks may
share them: the backend visits each component once, by name. The pipeline's object in the cluster's database shrinks in
proportion.
"""

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import yaml

from lmmpress.host.pod import PART_LABEL, STAGE_LABEL

if TYPE_CHECKING:
    from kfp.dsl.graph_component import GraphComponent

Node = dict[str, Any]
ENDS = ("original", "result")
"""What `evaluate` may measure instead of a stage's step."""
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


def name_tasks(spec: Node) -> None:
    """Give each task the name that people see in the pages of Kubeflow, in place: its API, Argo and Kubernetes know
    tasks by these keys only, and the compiler makes them from components, such as `stage-2`.

    A task whose outputs others take keeps its key: Kubeflow's local runner finds it by the name of its output.
    """
    for dag in (spec["root"], *spec["components"].values()):
        tasks: Node = dag.get("dag", {}).get("tasks", {})
        inputs = (one for task in tasks.values() for one in task.get("inputs", {}).get("parameters", {}).values())
        producers = {one["taskOutputParameter"]["producerTask"] for one in inputs if "taskOutputParameter" in one}
        named = {key: key if key in producers else _key_of(task["taskInfo"]["name"]) for key, task in tasks.items()}
        if len(set(named.values())) < len(tasks):
            raise AssertionError(f"two tasks have one name: {sorted(named.values())}")
        for task in tasks.values():
            if "dependentTasks" in task:
                task["dependentTasks"] = sorted(named[before] for before in task["dependentTasks"])
        if tasks:
            dag["dag"]["tasks"] = {named[key]: task for key, task in tasks.items()}


def label_pods(spec: Node, platform: Node) -> None:
    """Label the pod of each task with its component and, where it belongs to one, its stage, in place.

    The compiler's own labels would not do: of two pipelines within a pipeline that use the same component, it gives one
    the pod settings of the other.
    """
    executors, pods = spec["deploymentSpec"]["executors"], pods_of(platform)
    for dag in (spec["root"], *spec["components"].values()):
        for task in dag.get("dag", {}).get("tasks", {}).values():
            label = spec["components"][task["componentRef"]["name"]].get("executorLabel")
            if label in pods:
                arguments = executors[label]["container"]["args"]
                labels = {PART_LABEL: arguments[arguments.index("--function_to_execute") + 1]}
                stage = task["inputs"]["parameters"].get("stage", {}).get("runtimeValue", {}).get("constant")
                if stage not in (None, *ENDS):
                    labels[STAGE_LABEL] = stage
                metadata = pods[label].setdefault("podMetadata", {})
                metadata["labels"] = {**metadata.get("labels", {}), **labels}


def pods_of(platform: Node) -> Node:
    """The settings of pods in the specification of the platforms, by the label of their executor."""
    found: Node = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    return found


def _key_of(name: str) -> str:
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")


def share(spec: Node, platform: Node) -> None:
    """Let equal tasks share one executor and one component, in place."""
    executors: Node = spec["deploymentSpec"]["executors"]
    pods = pods_of(platform)
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
