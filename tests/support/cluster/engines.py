"""What of Kubeflow and Argo a cluster has, and where their pipelines may run."""

import re
from dataclasses import dataclass

from support.cluster.kubectl import Node, found, kubectl


@dataclass(frozen=True)
class Installed:
    """An engine of the cluster. `why_not` says why nothing can be run on it; `version` is its image's tag."""

    name: str
    system: str
    namespace: str
    version: str = ""
    argo_version: str = ""
    why_not: str = ""


def kubeflow(system: str, named: str | None) -> Installed:
    """Kubeflow Pipelines. With a single user, its pipelines run in its own namespace; with several, in the namespace of
    a Profile, which has to be named."""
    api = next((one for one in found("deployments", system) if one["metadata"]["name"] == "ml-pipeline"), None)
    if api is None:
        return Installed("kubeflow", system, "", why_not=f"no deployment ml-pipeline in namespace {system}")
    settings = {one["name"]: one.get("value", "") for one in container(api).get("env", [])}
    several = str(settings.get("MULTIUSER", "")).lower() == "true"
    versions = {"version": tag(api), "argo_version": _controller(system)}
    if several and not named:
        why = "Kubeflow has several users: name a Profile's namespace in LMMPRESS_TEST_NAMESPACE"
        return Installed("kubeflow", system, "", why_not=why)
    return Installed("kubeflow", system, named or system, **versions)


def argo(system: str, namespace: str) -> Installed:
    """Argo Workflows without Kubeflow."""
    version = _controller(system)
    why = "" if version else f"no deployment workflow-controller in namespace {system}"
    return Installed("argo", system, namespace, version, version, why)


def container(deployment: Node) -> Node:
    return dict(deployment["spec"]["template"]["spec"]["containers"][0])


def tag(deployment: Node) -> str:
    return str(container(deployment)["image"]).rpartition(":")[2]


def kubernetes_version() -> str:
    found = re.search(r'"gitVersion": *"([^"]+)"', kubectl("get", "--raw", "/version"))
    return found[1] if found else ""


def _controller(system: str) -> str:
    """The version of Argo's controller; empty if there is none that runs."""
    for one in found("deployments", system):
        if one["metadata"]["name"] == "workflow-controller" and one.get("status", {}).get("readyReplicas"):
            return tag(one)
    return ""
