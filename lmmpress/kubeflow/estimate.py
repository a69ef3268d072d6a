"""The size of Argo's object of a running pipeline, against two limits of 1 MiB.

Above 1 MiB Argo compresses the statuses in the object, and Kubeflow's API server up to 2.17 does not unpack them: from
then on its pages and its API show nothing new. Where the object is above 1 MiB with compressed statuses, Argo gives up.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lmmpress.kubeflow.argo_nodes import nodes_of
from lmmpress.kubeflow.ir import pods_of

LIMIT = 1 << 20
"""The largest object, in bytes, that Argo writes."""
SAFE = 0.7
"""The share of the limit that a run may be estimated at: retries and longer texts come on top."""
RETRIED = 0.1
"""The share of tasks that are tried twice, in an estimate."""

Node = dict[str, Any]
_MEASURED = (4, 8)  # steps of a stage that are written out; further ones are reckoned from them
_COMPRESSED = 1.2  # a recorded run compresses a little less well than these nodes
_FIXED = 9_700  # metadata, the templates of drivers and executors
_TASK, _NESTED, _LOOP = 1_750, 1_050, 2_700  # of a task in the templates, beside its texts


@dataclass(frozen=True)
class Size:
    """Bytes of a workflow at its end: what it is made of, the statuses of its nodes, and these compressed."""

    specification: int
    statuses: int
    compressed: int
    nodes: int

    @property
    def raw(self) -> int:
        """Bytes without compression: above the limit, Kubeflow's pages stand still."""
        return self.specification + self.statuses

    @property
    def stored(self) -> int:
        """Bytes with compressed statuses: above the limit, Argo gives up."""
        return self.specification + self.compressed


def estimate(spec: Node, platform: Node, steps: Mapping[str, int], retried: float = RETRIED) -> Size:
    """The object of a compiled pipeline whose stages make so many steps, by the stages' names."""
    written = _specification(spec, platform)
    few, some = ({name: min(count, most) for name, count in steps.items()} for most in _MEASURED)
    low, high = (_statuses(spec, platform, counts, retried) for counts in (few, some))
    if more := sum(steps.values()) - sum(some.values()):
        share = more / (sum(some.values()) - sum(few.values()))  # each step adds as much as the one before
        high = tuple(last + round(share * (last - first)) for first, last in zip(low, high, strict=True))
    return Size(written, *high)


def _statuses(spec: Node, platform: Node, steps: Mapping[str, int], retried: float) -> tuple[int, ...]:
    """Bytes of the statuses, raw and compressed, and the number of nodes."""
    nodes = {node["id"]: node for node in nodes_of(spec, platform, steps, retried)}
    raw = json.dumps(dict(sorted(nodes.items())), separators=(",", ":")).encode()
    return len(raw), round(_COMPRESSED * len(base64.b64encode(gzip.compress(raw)))), len(nodes)


def _specification(spec: Node, platform: Node) -> int:
    """Bytes of the workflow as Kubeflow makes it: each component and container once, the settings of pods for each
    component, and templates in which the texts of tasks are written out."""
    components: Node = spec["components"]
    executors, pods = spec["deploymentSpec"]["executors"], pods_of(platform)
    texts: dict[str, int] = {"root": _quoted(spec["root"])}
    for name, component in components.items():
        label = component.get("executorLabel")
        if label:
            container = executors[label]["container"]
            texts[_digest(container)] = _quoted(component) + _quoted(container) + 200
            texts[name] = _quoted(pods.get(label, {})) + 60
        else:
            texts[name] = _quoted(component) + 60
    return _FIXED + sum(texts.values()) + sum(_templates(spec["root"], components, set()))


def _templates(dag: Node, components: Node, seen: set[str]) -> Iterator[int]:
    """Bytes of the templates of a nested pipeline's tasks."""
    for task in dag["dag"]["tasks"].values():
        name = task["componentRef"]["name"]
        inner = components[name]
        if "parameterIterator" in task:
            yield _LOOP + 2 * _quoted(task)
        else:
            yield (_NESTED if "dag" in inner else _TASK) + _quoted(task)
        if "dag" in inner and name not in seen:
            seen.add(name)
            yield from _templates(inner, components, seen)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _quoted(value: Any) -> int:
    """Bytes of a value as JSON within JSON."""
    return len(json.dumps(json.dumps(value, separators=(",", ":"))))
