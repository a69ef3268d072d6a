"""Pods beside a release, which its network policies are to keep away from its servers."""

from dataclasses import dataclass

from support.cluster.helpers_in_cluster import CONFINED
from support.cluster.kubectl import Node, apply, kubectl

_NAME = "lmmpress-test-beside"
_OPEN, _CLOSED = "open", "closed"
_PORT = 8000


@dataclass(frozen=True)
class Beside:
    """Three pods in a namespace of their own: one that calls, and two servers, of which a policy closes one. A fourth
    one calls from the namespace of the release."""

    image: str
    pull_policy: str
    domain: str
    release: str

    def start(self) -> None:
        kubectl("create", "namespace", _NAME)
        server = ["python3", "-m", "http.server", str(_PORT)]
        closed: Node = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": _CLOSED}}
        closed["spec"] = {"podSelector": {"matchLabels": {"app": _CLOSED}}, "policyTypes": ["Ingress"]}
        servers = [self._pod(name, server) for name in (_OPEN, _CLOSED)]
        apply(_NAME, closed, *(_service(name) for name in (_OPEN, _CLOSED)), *servers, self._caller())
        apply(self.release, self._caller())
        kubectl("wait", "pod", "--all", "-n", _NAME, "--for=condition=Ready", "--timeout=180s", seconds=200)
        kubectl("wait", f"pod/{_NAME}", "-n", self.release, "--for=condition=Ready", "--timeout=180s", seconds=200)

    def stop(self) -> None:
        kubectl("delete", "namespace", _NAME, "--ignore-not-found", "--timeout=110s")
        kubectl("delete", "pod", _NAME, "-n", self.release, "--ignore-not-found", "--wait=false")

    def reaches(self, service: str, namespace: str, port: int, within: str = _NAME) -> bool:
        """Whether the pod that calls, in namespace `within`, can connect to a service."""
        script = _CONNECT.format(host=f"{service}.{namespace}.svc.{self.domain}", port=port)
        told = kubectl("exec", "-i", "-n", within, _NAME, "--", "python3", "-", given=script)
        assert told.strip() in ("connected", "refused"), told
        return told.strip() == "connected"

    def reaches_open(self) -> bool:
        return self.reaches(_OPEN, _NAME, _PORT)

    def reaches_closed(self) -> bool:
        return self.reaches(_CLOSED, _NAME, _PORT)

    def _caller(self) -> Node:
        return self._pod(_NAME, ["sleep", "infinity"])

    def _pod(self, name: str, command: list[str]) -> Node:
        container = {
            "name": "main",
            "image": self.image,
            "imagePullPolicy": self.pull_policy,
            "command": command,
            "workingDir": "/tmp",
            "securityContext": CONFINED,
        }
        if name != _NAME:
            container["readinessProbe"] = {"tcpSocket": {"port": _PORT}, "periodSeconds": 2}
        spec = {"containers": [container], "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 1}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


def _service(name: str) -> Node:
    spec = {"selector": {"app": name}, "ports": [{"port": _PORT}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


_CONNECT = """
import socket

try:
    socket.create_connection(("{host}", {port}), 5).close()
    print("connected")
except OSError:
    print("refused")
"""
