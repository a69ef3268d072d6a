"""Trainings as Kubeflow Trainer and Kubernetes show them, made after those of Trainer 2.3."""

from typing import Any

from support.argo_pods import EVENTS, PODS, at_minute
from support.kubernetes_api import HOME, KUEUE, Kubernetes, Raw, listed

Object = dict[str, Any]
NAME = "distill-0123456789abcdef"
MANIFEST: Object = {
    "apiVersion": "trainer.kubeflow.org/v1alpha1",
    "kind": "TrainJob",
    "metadata": {"name": NAME, "namespace": "team-ads"},
    "spec": {"runtimeRef": {"name": "lmmpress"}, "trainer": {"numNodes": 2, "env": []}},
}
WORKLOADS = f"{KUEUE}/namespaces/team-ads/workloads"


def train_job(*conditions: str, message: str = "") -> Object:
    """The TrainJob with these conditions."""
    found = [{"type": one, "status": "True", "message": message} for one in conditions]
    return MANIFEST | {"metadata": MANIFEST["metadata"] | {"uid": "u-1"}, "status": {"conditions": found}}


def node_pod(number: int, phase: str = "Running", **ending: Any) -> Object:
    """A node's pod; `ending` is how its container has ended."""
    labels = {
        "jobset.sigs.k8s.io/jobset-name": NAME,
        "batch.kubernetes.io/job-completion-index": str(number),
        "lmmpress/part": "distill",
    }
    state = {"terminated": {"finishedAt": at_minute(number + 1)} | ending} if ending else {"running": {}}
    return {
        "metadata": {"name": f"{NAME}-node-0-{number}-x", "labels": labels, "creationTimestamp": at_minute(0)},
        "spec": {"nodeName": f"gpu-{number}", "containers": [{"name": "node"}]},
        "status": {"phase": phase, "containerStatuses": [{"name": "node", "state": state}]},
    }


def show(cluster: Kubernetes, *pods: Object, log: str = "") -> None:
    """Let the cluster have these pods, whose first one has printed `log`."""
    cluster.answers[PODS] = listed(*pods)
    cluster.answers.setdefault(EVENTS, listed())
    for pod in pods:
        path = f"{HOME}/pods/{pod['metadata']['name']}/log"
        cluster.answers[path] = Raw(200, log.encode(), "text/plain")
