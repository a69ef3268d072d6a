"""Answers of a cluster about Argo's controller, as recorded from Argo 4.0.8 and Kubeflow Pipelines 2.17.0."""

import json
from typing import Any

from support.kubernetes_api import DEPLOYMENTS, Kubernetes, Object, listed, named, resources

ARGO = "argo"
CONTROLLER = f"/apis/apps/v1/namespaces/{ARGO}/deployments"
SETTINGS = f"/api/v1/namespaces/{ARGO}/configmaps/workflow-controller-configmap"
OF_KUBEFLOW = "/api/v1/namespaces/kubeflow/configmaps/workflow-controller-configmap"
PATTERN = "(?i)(imminent node shutdown|node is shutting down|preempt|evict|spot|pod deleted)"


def controller(
    *args: str, version: str = "v4.0.8", ready: int = 1, name: str = "workflow-controller", **env: str
) -> Object:
    container = {
        "name": "controller" if name != "workflow-controller" else name,
        "image": f"quay.io/argoproj/workflow-controller:{version}",
        "command": ["workflow-controller"],
        "args": list(args),
        "env": [
            {"name": "LEADER_ELECTION_IDENTITY", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            *({"name": key, "value": value} for key, value in env.items()),
        ],
    }
    return named(name, spec={"template": {"spec": {"containers": [container]}}}, status={"readyReplicas": ready})


def argo_cluster(cluster: Kubernetes) -> None:
    """Turn a healthy cluster with Kubeflow into one with Argo alone."""
    for path in [path for path in cluster.answers if "kubeflow" in path]:
        del cluster.answers[path]
    cluster.answers["/apis/argoproj.io/v1alpha1"] = resources(
        "workflows", "workflows/status", "workflowtemplates", "workflowtaskresults", "workflowtasksets"
    )
    cluster.answers[CONTROLLER] = listed(controller())
    cluster.answers[SETTINGS] = named("workflow-controller-configmap")


def kubeflows_settings(cluster: Kubernetes, policy: str = "Always") -> None:
    """The controller of Kubeflow as 2.17 sets it up, with a policy of retries."""
    args = ("--configmap", "workflow-controller-configmap", "--executor-image", "quay.io/argoproj/argoexec:v4.0.8")
    found = controller(*args, "--namespaced", TRANSIENT_ERROR_PATTERN=PATTERN if policy == "OnError" else "")
    cluster.answers[DEPLOYMENTS] = listed(found)
    strategy: dict[str, Any] = {"limit": "2", "retryPolicy": policy} if policy else {}
    defaults = {"spec": {"templateDefaults": {"retryStrategy": strategy}}}
    cluster.answers[OF_KUBEFLOW]["data"] = {"workflowDefaults": json.dumps(defaults)}
