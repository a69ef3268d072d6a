"""Checks which nodes can take a pod of each component, and which of them have room now."""

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal

from lmmpress.doctor.finding import Finding, failed, ok, some, unknown, warning
from lmmpress.doctor.pod_demands import Demand, demands_of, in_words
from lmmpress.pods.cluster_reader import Cluster, Node, UnseenError, amount, at, mapping, mappings, text
from lmmpress.tasks.cluster_profile import Expression, Pod, Profile, Toleration

_STEPS = ("ready", "selector", "affinity", "taint", "size")
"""The conditions that a node must meet for a pod, in the order in which they are checked."""


@dataclass(frozen=True)
class Refusal:
    """Why a node takes no pod of a component: the condition, an explanation, and a remedy."""

    step: str
    said: str
    mend: str


def check_nodes(profile: Profile, cluster: Cluster, components: tuple[str, ...]) -> list[Finding]:
    """Check for each kind of pod that there are nodes that match it and have room."""
    nodes = cluster.items("/api/v1/nodes")
    used: dict[str, dict[str, Decimal]] | None = None
    unseen = ""
    try:
        used = used_by_node(cluster.items("/api/v1/pods", fieldSelector="status.phase!=Succeeded,status.phase!=Failed"))
    except UnseenError as error:
        unseen = str(error)
    return [_check(one, nodes, used, unseen) for one in demands_of(profile, components)]


def _check(one: Demand, nodes: list[Node], used: dict[str, dict[str, Decimal]] | None, unseen: str) -> Finding:
    name = f"nodes for {one}"
    refusals = {_name(node): refusal(node, one) for node in nodes}
    fit = [node for node in nodes if refusals[_name(node)] is None]
    if not nodes:
        return failed(name, "the cluster has no nodes", "kubectl get nodes")
    if not fit:
        reasons = [reason for reason in refusals.values() if reason]
        counted = Counter((reason.step, reason.said) for reason in reasons)
        said = "; ".join(f"{count} {words}" for (_, words), count in counted.most_common(4))
        nearest = max(reasons, key=lambda reason: _STEPS.index(reason.step))
        mend = f"{nearest.mend} (if an autoscaler would make such nodes: submit with --no-checks)"
        return failed(name, f"no node takes a pod that asks for {one.needs}: {said}", mend)
    if (at_all := _places(fit, one, {})) < one.count:
        said = f"{one.needs}: {len(fit)} match, and take {at_all} of {one.count} pods at once"
        mend = "a smaller components.distill.nodes in the profile, or more such nodes"
        return failed(name, said, f"{mend} (if an autoscaler would make them: submit with --no-checks)")
    if used is None:
        said = f"{len(fit)} match ({some(map(_name, fit))}); their free resources could not be read: {unseen}"
        mend = "ask an administrator: kubectl describe nodes | grep -A 8 'Allocated resources'"
        return unknown(name, said, mend)
    free = [node for node in fit if not _lacks(node, one, used.get(_name(node), {}))]
    if (places := _places(fit, one, used)) >= one.count:
        return ok(name, f"{one.needs}: {len(fit)} match, {len(free)} have room now ({some(map(_name, free))})")
    if free:
        said = f"{one.needs}: {len(fit)} match, with room for {places} of {one.count} pods now"
        return warning(name, said, f"pods wait; kubectl get pods -A --field-selector spec.nodeName={_name(fit[0])}")
    lacking = _lacks(fit[0], one, used.get(_name(fit[0]), {}))
    said = f"{one.needs}: {len(fit)} match, but none has room now; {_name(fit[0])} has {', '.join(lacking)}"
    return warning(name, said, f"pods wait; kubectl get pods -A --field-selector spec.nodeName={_name(fit[0])}")


def refusal(node: Node, one: Demand) -> Refusal | None:
    """Why a node never takes such a pod; None if it can."""
    if not _ready(node):
        return Refusal("ready", "not ready", f"kubectl describe node {_name(node)}")
    if at(node, "spec", "unschedulable") is True:
        return Refusal("ready", "cordoned", f"kubectl uncordon {_name(node)}")
    labels = mapping(at(node, "metadata", "labels"))
    for key, value in (one.pod.node_selector or {}).items():
        if labels.get(key) != value:
            mend = f"kubectl label node {_name(node)} {key}={value}, or change node_selector in the profile"
            return Refusal("selector", f"without the label {key}={value}", mend)
    if not _attracted(labels, one.pod):
        wanted = "; or ".join(
            ", ".join(f"{e.key} {e.operator} {' '.join(e.values)}".strip() for e in term.expressions)
            for term in one.pod.affinity or []
            if term.weight is None
        )
        mend = f"kubectl label node {_name(node)} accordingly, or change affinity in the profile"
        return Refusal("affinity", f"outside of the affinity ({wanted})", mend)
    for taint in mappings(at(node, "spec", "taints")):
        key, value, effect = (text(taint.get(part)) for part in ("key", "value", "effect"))
        if effect in ("NoSchedule", "NoExecute") and not any(
            tolerates(one_of, key, value, effect) for one_of in one.pod.tolerations or []
        ):
            written = f"{key}={value}:{effect}" if value else f"{key}:{effect}"
            how = f"operator: Equal, value: {value}" if value else "operator: Exists"
            mend = f"tolerations: [{{key: {key}, {how}, effect: {effect}}}] in the profile"
            return Refusal("taint", f"with the taint {written}", mend)
    if lacking := _lacks(node, one, {}):
        mend = f"smaller requests for {one} in the profile, or larger nodes"
        if one.pod.gpu_type in one.requests and not _allocatable(node, str(one.pod.gpu_type)):
            mend = (
                f"install the device plugin that offers {one.pod.gpu_type}, or set gpu_type: kubectl get nodes -o "
                "custom-columns=NAME:.metadata.name,HAS:.status.allocatable"
            )
        return Refusal("size", f"too small ({', '.join(lacking)})", mend)
    return None


def tolerates(toleration: Toleration, key: str, value: str, effect: str) -> bool:
    """Whether a toleration covers a taint, by the rules of Kubernetes."""
    if toleration.effect and toleration.effect != effect:
        return False
    if not toleration.key:
        return toleration.operator == "Exists"
    return toleration.key == key and (toleration.operator == "Exists" or (toleration.value or "") == value)


def matches(expression: Expression, labels: Node) -> bool:
    """Whether a node's labels match an expression."""
    exists, value = expression.key in labels, labels.get(expression.key)
    match expression.operator:
        case "In":
            return exists and value in expression.values
        case "NotIn":
            return not exists or value not in expression.values
        case "Exists":
            return exists
        case "DoesNotExist":
            return not exists
    try:
        have, bound = int(text(value)), int(expression.values[0])
    except (ValueError, IndexError):
        return False
    return have > bound if expression.operator == "Gt" else have < bound


def _attracted(labels: Node, pod: Pod) -> bool:
    """Whether a node satisfies the required affinity. Kubeflow makes one term of each affinity without a weight: one
    term has to match, with all its expressions."""
    terms = [term for term in pod.affinity or [] if term.weight is None]
    return not terms or any(all(matches(one, labels) for one in term.expressions) for term in terms)


def used_by_node(pods: list[Node]) -> dict[str, dict[str, Decimal]]:
    """The resources that running and starting pods have requested on each node."""
    used: dict[str, dict[str, Decimal]] = {}
    for pod in pods:
        node_name = text(at(pod, "spec", "nodeName"))
        if not node_name or at(pod, "status", "phase") in ("Succeeded", "Failed"):
            continue
        on_node = used.setdefault(node_name, {})
        for name, value in _of_pod(pod).items():
            on_node[name] = on_node.get(name, Decimal(0)) + value
    return used


def _of_pod(pod: Node) -> dict[str, Decimal]:
    """What a pod requests: the sum over its containers, or its largest init container if that is more; and one pod."""
    total: dict[str, Decimal] = {"pods": Decimal(1)}
    first: dict[str, Decimal] = {}
    for container in mappings(at(pod, "spec", "containers")):
        _add(total, _requests(container))
    for container in mappings(at(pod, "spec", "initContainers")):
        if container.get("restartPolicy") == "Always":  # a sidecar: it runs beside the other containers
            _add(total, _requests(container))
        else:
            for name, value in _requests(container).items():
                first[name] = max(first.get(name, Decimal(0)), value)
    for name, value in first.items():
        total[name] = max(total.get(name, Decimal(0)), value)
    overhead = mapping(at(pod, "spec", "overhead"))
    _add(total, {name: parsed for name, value in overhead.items() if (parsed := amount(value))})
    return total


def _requests(container: Node) -> dict[str, Decimal]:
    values = mapping(at(container, "resources", "limits")) | mapping(at(container, "resources", "requests"))
    return {name: parsed for name, value in values.items() if (parsed := amount(value)) is not None}


def _add(total: dict[str, Decimal], more: dict[str, Decimal]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, Decimal(0)) + value


def _places(nodes: list[Node], one: Demand, used: dict[str, dict[str, Decimal]]) -> int:
    """How many of the pods of a demand these nodes take at once, with `used` in use on them."""
    places = 0
    for node in nodes:
        here = 0
        while here + places < one.count and not _lacks(node, one, used.get(_name(node), {}), here + 1):
            here += 1
        places += here
    return places


def _lacks(node: Node, one: Demand, used: dict[str, Decimal], pods: int = 1) -> list[str]:
    """The resources that are too small for so many pods on a node with `used` in use, each with the free and the
    requested amount."""
    lacking = []
    for name, of_one in ({"pods": Decimal(1)} | one.requests).items():
        free, requested = _allocatable(node, name) - used.get(name, Decimal(0)), of_one * pods
        if free < requested and (name != "pods" or used):
            lacking.append(f"{name} {in_words(name, max(free, Decimal(0)))} of {in_words(name, requested)}")
    return lacking


def _allocatable(node: Node, name: str) -> Decimal:
    return amount(at(node, "status", "allocatable", name)) or Decimal(0)


def _ready(node: Node) -> bool:
    conditions = mappings(at(node, "status", "conditions"))
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _name(node: Node) -> str:
    return text(at(node, "metadata", "name")) or "a node without a name"
