"""Pods and workflows as Kubernetes shows them of a run on Argo, made after recorded ones."""

from typing import Any

from support.kubernetes_api import HOME, Kubernetes, listed

Object = dict[str, Any]
PODS = f"{HOME}/pods"
WORKFLOWS = "/apis/argoproj.io/v1alpha1/namespaces/team-ads/workflows"
EVENTS = f"{HOME}/events"


def at_minute(minute: float) -> str:
    return f"2026-01-01T10:{int(minute):02}:{round(minute * 60) % 60:02}Z"


def argo_pod(name: str, part: str = "", stage: str = "", phase: str = "Running", **more: Any) -> Object:
    """A pod with its labels; `more` is added to its status. Without a part it is one of the engine's own."""
    labels = {"workflows.argoproj.io/workflow": "lmm-xyz", "pipeline/runid": "r-1"}
    labels |= ({"lmmpress/part": part} if part else {}) | ({"lmmpress/stage": stage} if stage else {})
    limits = {"resources": {"limits": {"memory": "3Gi"}}}
    return {
        "metadata": {"name": name, "labels": labels, "creationTimestamp": at_minute(0)},
        "spec": {"nodeName": "node-1" if phase != "Pending" else "", "containers": [{"name": "main"} | limits]},
        "status": {"phase": phase} | more,
    }


def done(name: str, part: str, stage: str = "", began: float = 0, ended: float = 1, **ending: Any) -> Object:
    """A pod whose task has ended; `ending` replaces its good end."""
    end = {"exitCode": 0, "reason": "Completed", "startedAt": at_minute(began), "finishedAt": at_minute(ended)} | ending
    phase = "Succeeded" if end["exitCode"] == 0 else "Failed"
    return argo_pod(name, part, stage, phase, containerStatuses=[{"name": "main", "state": {"terminated": end}}])


def waits(name: str, reason: str, message: str = "", part: str = "distill", container: str = "main") -> Object:
    """A pod whose container waits."""
    state = {"name": container, "image": "reg/it:1", "state": {"waiting": {"reason": reason, "message": message}}}
    kind = "containerStatuses" if container == "main" else "initContainerStatuses"
    return argo_pod(name, part, "block" if part else "", "Pending", **{kind: [state]})


def workflow(phase: str = "Running", **status: Any) -> Object:
    return {"metadata": {"name": "lmm-xyz", "creationTimestamp": at_minute(0)}, "status": {"phase": phase} | status}


def runs(cluster: Kubernetes, *pods: Object, of: Object | None = None) -> None:
    """Let the cluster have these pods, and the workflow `of`."""
    cluster.answers[PODS] = listed(*pods)
    cluster.answers[WORKFLOWS] = listed(workflow() if of is None else of)
    cluster.answers.setdefault(EVENTS, listed())
