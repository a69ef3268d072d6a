"""The size of Argo's object of a running pipeline: the stored object must fit into the cluster's database.

The numbers come from the source of Kubeflow Pipelines 2.17 and Argo 4.0: what the compiler writes for each task, and
what each node's status repeats. Only the statuses are compressed, and only if the whole is above the limit.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator
from typing import Any

LIMIT = 1 << 20
"""The largest object, in bytes, that Argo can write."""

Node = dict[str, Any]
_FIXED = 10_000  # metadata, service accounts, the templates of drivers
_TEMPLATE = {"task": 950, "loop": 3_000, "branch": 800}  # of the workflow's own templates, each
_PATCH = 900  # a pod's patch, without the strings that it repeats
_STATUS = 700  # names, times, phase and resources of one node


def estimate(spec: Node, platform: Node, steps: int) -> tuple[int, int]:
    """Bytes of the workflow object after all `steps` iterations of each loop: raw, and as stored."""
    components: Node = spec["components"]
    executors: Node = spec["deploymentSpec"]["executors"]
    pods: Node = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    written = _FIXED
    for component in components.values():
        label = component.get("executorLabel")
        written += _quoted(component) + (_quoted(executors[label]) + _quoted(pods.get(label, {})) if label else 0)
    nodes: list[str] = []
    for task, component, kind, times in _walk(spec["root"], components, steps):
        written += _TEMPLATE[kind] + _quoted(task)
        label = component.get("executorLabel", "")
        for number in range(times):
            nodes += _statuses(task, component, executors.get(label), pods.get(label, {}), number)
    raw = json.dumps(nodes).encode()
    stored = len(base64.b64encode(gzip.compress(raw)))
    return written + len(raw), written + stored


def _walk(dag: Node, components: Node, steps: int, times: int = 1) -> Iterator[tuple[Node, Node, str, int]]:
    """Every task below a component: its component, its kind in Argo, and how often it runs."""
    for task in dag["dag"]["tasks"].values():
        component = components[task["componentRef"]["name"]]
        loops = "parameterIterator" in task
        kind = "loop" if loops else "branch" if "triggerPolicy" in task else "task"
        yield task, component, kind, times
        if "dag" in component:
            yield from _walk(component, components, steps, times * (steps if loops else 1))


def _statuses(task: Node, component: Node, executor: Node | None, pod: Node, number: int) -> list[str]:
    """Argo's nodes for one task: the pod that prepares it, the pod that runs it, and the nodes around both."""
    # each node has its own name and time, which do not compress
    own = [hashlib.sha256(f"{task} {number} {part}".encode()).hexdigest() for part in range(5)]
    if executor is None:
        return [own[0] + "." * _STATUS + json.dumps(component) + json.dumps(task), own[1] + "." * _STATUS]
    command = json.dumps(executor)
    patch = command + json.dumps(component) + json.dumps(task.get("inputs", {})) + "." * _PATCH
    given = command + json.dumps(component) + json.dumps(task) + json.dumps(pod)
    attempts = 4 if "retryPolicy" in task else 3
    return [own[0] + "." * _STATUS + given] + [own[1 + one] + "." * _STATUS + patch for one in range(attempts)]


def _quoted(value: Any) -> int:
    """Bytes of a value as JSON within JSON."""
    return len(json.dumps(json.dumps(value)))
