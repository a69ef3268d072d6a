"""Nodes: which of them would take a pod of each component, and is there room now?"""

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal

from lmmpress.doctor.demands import Asked, asked, in_words
from lmmpress.doctor.finding import Finding, failed, ok, some, unknown, warning
from lmmpress.doctor.reader import Cluster, Node, UnseenError, amount, at, mapping, mappings, text
from lmmpress.tasks.profile import Expression, Pod, Profile, Toleration

_STEPS = ("ready", "selector", "affinity", "taint", "size")
"""What a pod asks of a node, in the order in which it is looked at."""


@dataclass(frozen=True)
class Refusal:
    """Why a node takes no pod of a component: at which step, in words, and what would change that."""

    step: str
    said: str
    mend: str


def check_nodes(profile: Profile, cluster: Cluster, components: tuple[str, ...]) -> list[Finding]:
    """For each kind of pod: the nodes that match it, and those of them that have room."""
    nodes = cluster.items("/api/v1/nodes")
    used: dict[str, dict[str, Decimal]] | None = None
    unseen = ""
    try:
        used = used_by_node(cluster.items("/api/v1/pods", fieldSelector="status.phase!=Succeeded,status.phase!=Failed"))
    except UnseenError as error:
        unseen = str(error)
    return [_look(one, nodes, used, unseen) for one in asked(profile, components)]


def _look(one: Asked, nodes: list[Node], used: dict[str, dict[str, Decimal]] | None, unseen: str) -> Finding:
    name = f"nodes for {one}"
    refusals = {_name(node): refusal(node, one) for node in nodes}
    fit = [node for node in nodes if refusals[_name(node)] is None]
    if not nodes:
        return failed(name, "the cluster has no nodes", "kubectl get nodes")
    if not fit:
        told = [found for found in refusals.values() if found]
        counted = Counter((found.step, found.said) for found in told)
        said = "; ".join(f"{count} {words}" for (_, words), count in counted.most_common(4))
        nearest = max(told, key=lambda found: _STEPS.index(found.step))
        mend = f"{nearest.mend} (if an autoscaler would make such nodes: submit with --no-checks)"
        return failed(name, f"no node takes a pod that asks for {one.needs}: {said}", mend)
    if used is None:
        said = f"{len(fit)} match ({some(map(_name, fit))}); what is free on them could not be seen: {unseen}"
        return unknown(name, said, "kubectl describe nodes | grep -A 8 'Allocated resources', by who may")
    free = [node for node in fit if not _lacks(node, one, used.get(_name(node), {}))]
    if free:
        return ok(name, f"{one.needs}: {len(fit)} match, {len(free)} have room now ({some(map(_name, free))})")
    lacking = _lacks(fit[0], one, used.get(_name(fit[0]), {}))
    said = f"{one.needs}: {len(fit)} match and none has room now; {_name(fit[0])} has {', '.join(lacking)}"
    return warning(name, said, f"pods wait; kubectl get pods -A --field-selector spec.nodeName={_name(fit[0])}")


def refusal(node: Node, one: Asked) -> Refusal | None:
    """Why a node would never take such a pod; None where it may."""
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
            told = f"{key}={value}:{effect}" if value else f"{key}:{effect}"
            how = f"operator: Equal, value: {value}" if value else "operator: Exists"
            mend = f"tolerations: [{{key: {key}, {how}, effect: {effect}}}] in the profile"
            return Refusal("taint", f"with the taint {told}", mend)
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
    """Whether a node's labels are as an expression wants them."""
    there, value = expression.key in labels, labels.get(expression.key)
    match expression.operator:
        case "In":
            return there and value in expression.values
        case "NotIn":
            return not there or value not in expression.values
        case "Exists":
            return there
        case "DoesNotExist":
            return not there
    try:
        have, bound = int(text(value)), int(expression.values[0])
    except (ValueError, IndexError):
        return False
    return have > bound if expression.operator == "Gt" else have < bound


def _attracted(labels: Node, pod: Pod) -> bool:
    """Kubeflow makes a term of each affinity without a weight, of which one has to hold, with all its expressions."""
    terms = [term for term in pod.affinity or [] if term.weight is None]
    return not terms or any(all(matches(one, labels) for one in term.expressions) for term in terms)


def used_by_node(pods: list[Node]) -> dict[str, dict[str, Decimal]]:
    """What the pods that run, or are about to, have asked for on each node."""
    used: dict[str, dict[str, Decimal]] = {}
    for pod in pods:
        place = text(at(pod, "spec", "nodeName"))
        if not place or at(pod, "status", "phase") in ("Succeeded", "Failed"):
            continue
        here = used.setdefault(place, {})
        for name, value in _of_pod(pod).items():
            here[name] = here.get(name, Decimal(0)) + value
    return used


def _of_pod(pod: Node) -> dict[str, Decimal]:
    """The sum over containers, or the largest that comes before them; and one pod."""
    total: dict[str, Decimal] = {"pods": Decimal(1)}
    first: dict[str, Decimal] = {}
    for container in mappings(at(pod, "spec", "containers")):
        _add(total, _requests(container))
    for container in mappings(at(pod, "spec", "initContainers")):
        if container.get("restartPolicy") == "Always":  # it stays beside the others
            _add(total, _requests(container))
        else:
            for name, value in _requests(container).items():
                first[name] = max(first.get(name, Decimal(0)), value)
    for name, value in first.items():
        total[name] = max(total.get(name, Decimal(0)), value)
    _add(
        total, {name: found for name, value in mapping(at(pod, "spec", "overhead")).items() if (found := amount(value))}
    )
    return total


def _requests(container: Node) -> dict[str, Decimal]:
    told = mapping(at(container, "resources", "limits")) | mapping(at(container, "resources", "requests"))
    return {name: found for name, value in told.items() if (found := amount(value)) is not None}


def _add(total: dict[str, Decimal], more: dict[str, Decimal]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, Decimal(0)) + value


def _lacks(node: Node, one: Asked, used: dict[str, Decimal]) -> list[str]:
    """What a node has too little of, with so much in use."""
    found = []
    for name, wanted in ({"pods": Decimal(1)} | one.requests).items():
        there = _allocatable(node, name) - used.get(name, Decimal(0))
        if there < wanted and (name != "pods" or used):
            found.append(f"{name} {in_words(name, max(there, Decimal(0)))} of {in_words(name, wanted)}")
    return found


def _allocatable(node: Node, name: str) -> Decimal:
    return amount(at(node, "status", "allocatable", name)) or Decimal(0)


def _ready(node: Node) -> bool:
    conditions = mappings(at(node, "status", "conditions"))
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _name(node: Node) -> str:
    return text(at(node, "metadata", "name")) or "a node without a name"
