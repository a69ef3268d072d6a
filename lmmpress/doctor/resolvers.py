"""From the address of a resolver that pods cannot ask, to the value of the chart that lets them."""

import json
from ipaddress import ip_address

from lmmpress.doctor.policies import NAME_LABEL
from lmmpress.pods.cluster_reader import Cluster, Node, UnseenError, at, mapping, mappings, text

USUAL = {"kube-system": ("kube-dns", "coredns", "rke2-coredns-rke2-coredns"), "openshift-dns": ("dns-default",)}
"""Where resolvers are in most clusters, for users who may not list every Service."""


def mend_of(addresses: list[str], cluster: Cluster) -> str:
    """The values of `networkPolicy` that let pods ask the resolvers at these addresses."""
    peers: list[Node] = []
    ports: set[int] = set()
    for address in addresses:
        service = _service(address, cluster)
        if service is not None:
            namespace = text(at(service, "metadata", "namespace")) or "kube-system"
            selector = mapping(at(service, "spec", "selector"))
            peers.append(
                {
                    "namespaceSelector": {"matchLabels": {NAME_LABEL: namespace}},
                    "podSelector": {"matchLabels": selector},
                }
            )
            ports |= _ports(service)
        peers += _block(address)
    if not peers:
        return "networkPolicy.dns in the chart's values: the peers of the resolver that /etc/resolv.conf names"
    told = json.dumps(peers).replace('"', "")
    more = f", networkPolicy.dnsPorts: {sorted(ports | {53})}" if ports - {53} else ""
    return f"networkPolicy.dns: {told}{more}"


def _block(address: str) -> list[Node]:
    """The address itself: for a resolver outside of the cluster's network, as NodeLocal DNSCache is one, which listens
    on the Service's address too."""
    try:
        size = ip_address(address).max_prefixlen
    except ValueError:
        return []
    return [{"ipBlock": {"cidr": f"{address}/{size}"}}]


def _service(address: str, cluster: Cluster) -> Node | None:
    """The Service with this address, if it selects pods."""
    try:
        services = cluster.items("/api/v1/services")
    except UnseenError:
        services = _usual(cluster)
    for one in services:
        addresses = at(one, "spec", "clusterIPs") or [at(one, "spec", "clusterIP")]
        if address in addresses and mapping(at(one, "spec", "selector")):
            return one
    return None


def _usual(cluster: Cluster) -> list[Node]:
    found = []
    for namespace, names in USUAL.items():
        for name in names:
            try:
                if one := cluster.named(f"/api/v1/namespaces/{namespace}/services/{name}"):
                    found.append(one)
            except UnseenError:
                continue
    return found


def _ports(service: Node) -> set[int]:
    """The ports of the pods, where they have numbers: a NetworkPolicy is about pods. OpenShift's Service names its."""
    ports = mappings(at(service, "spec", "ports"))
    found = {one["targetPort"] for one in ports if isinstance(one.get("targetPort"), int)}
    return found or ({53} if all(one.get("targetPort") is None for one in ports) else {53, 5353})
