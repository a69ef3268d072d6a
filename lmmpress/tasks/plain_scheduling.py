"""Where the pods of a profile may run, as plain JSON of Kubernetes."""

from typing import Any

from lmmpress.tasks.cluster_profile import Expression, NodeAffinity, Toleration

Node = dict[str, Any]


def toleration(one: Toleration) -> Node:
    """A toleration as a pod has it."""
    fields: Node = one.model_dump(exclude_none=True)
    seconds = fields.pop("toleration_seconds", None)
    return fields if seconds is None else fields | {"tolerationSeconds": seconds}


def node_affinity(given: list[NodeAffinity]) -> Node:
    """Which nodes a pod requires and prefers, as a pod's `affinity`; empty without any.

    Required terms are joined as Kubeflow joins them: each entry is one more term, any of which is enough.
    """
    terms = [(one.weight, {"matchExpressions": [_expression(each) for each in one.expressions]}) for one in given]
    required = [term for weight, term in terms if weight is None]
    preferred = [{"weight": weight, "preference": term} for weight, term in terms if weight is not None]
    found: Node = {}
    if required:
        found["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": required}
    if preferred:
        found["preferredDuringSchedulingIgnoredDuringExecution"] = preferred
    return {"nodeAffinity": found} if found else {}


def _expression(one: Expression) -> Node:
    return {"key": one.key, "operator": one.operator} | ({"values": one.values} if one.values else {})
