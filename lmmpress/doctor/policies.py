"""What the NetworkPolicies of a namespace allow, as far as they say it by labels."""

from lmmpress.pods.cluster_reader import Cluster, Node, at, mapping, mappings, text

Labels = dict[str, str]
NAME_LABEL = "kubernetes.io/metadata.name"
"""The label with its name that every namespace has."""


def selected(selector: object, labels: Labels) -> bool:
    """Whether a label selector matches; an empty one matches everything."""
    told = mapping(selector)
    if any(labels.get(key) != value for key, value in mapping(told.get("matchLabels")).items()):
        return False
    return all(_expressed(one, labels) for one in mappings(told.get("matchExpressions")))


def _expressed(expression: Node, labels: Labels) -> bool:
    key, values = text(expression.get("key")), expression.get("values")
    listed = values if isinstance(values, list) else []
    match expression.get("operator"):
        case "In":
            return labels.get(key) in listed
        case "NotIn":
            return labels.get(key) not in listed
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    return False


def may_enter(cluster: Cluster, namespace: str, target: Labels, source: Labels, home: Labels, port: int) -> bool:
    """Whether pods with the labels `source`, of a namespace with the labels `home`, may call a port of the pods
    `target` in `namespace`. Raises UnseenError if its policies may not be read."""
    path = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
    mine = [
        one
        for one in cluster.items(path)
        if "Ingress" in (at(one, "spec", "policyTypes") or ["Ingress"])
        and selected(at(one, "spec", "podSelector"), target)
    ]
    rules = [rule for one in mine for rule in mappings(at(one, "spec", "ingress"))]
    return not mine or any(_admits(rule, source, home, port, namespace) for rule in rules)


def _admits(rule: Node, source: Labels, home: Labels, port: int, namespace: str) -> bool:
    ports, peers = mappings(rule.get("ports")), mappings(rule.get("from"))
    if ports and not any(one.get("port") in (None, port) or isinstance(one.get("port"), str) for one in ports):
        return False
    return not peers or any(_is_peer(peer, source, home, namespace) for peer in peers)


def _is_peer(peer: Node, source: Labels, home: Labels, namespace: str) -> bool:
    if "ipBlock" in peer:
        return at(peer, "ipBlock", "cidr") in ("0.0.0.0/0", "::/0")
    if "namespaceSelector" in peer:
        return selected(peer["namespaceSelector"], home) and selected(peer.get("podSelector"), source)
    return home.get(NAME_LABEL) == namespace and selected(peer.get("podSelector"), source)
