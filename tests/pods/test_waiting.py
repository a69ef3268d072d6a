"""Why nothing moves in a run: one line, with what mends it."""

from typing import Any

import pytest
from support.argo_pods import EVENTS, PODS, WORKFLOWS, argo_pod, runs, waits, workflow
from support.kubernetes_api import Kubernetes, Raw, listed, refusal

from lmmpress.pods.cluster_reader import Cluster
from lmmpress.pods.waiting import Place, why_waiting

PLACE = Place("team-ads", "pipeline/runid=r-1", "kubeflow")
UNTAKEN = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: 3 Insufficient"}
PENDING_NODE = {"type": "Pod", "phase": "Pending", "displayName": "block", "message": "exceeded quota: gpus"}


@pytest.mark.parametrize(
    ("pod", "said", "mend"),
    [
        (
            waits("p", "ImagePullBackOff", "Back-off pulling image"),
            "image reg/it:1 cannot be pulled: pod p (distill of block): Back-off",
            "pull_secrets in the cluster profile",
        ),
        (waits("p", "ErrImagePull", part=""), "image reg/it:1 cannot be pulled: pod p (a pod of", "V2_DRIVER_IMAGE"),
        (waits("p", "ErrImagePull", container="kfp-launcher"), "image reg/it:1 cannot be pulled", "V2_LAUNCHER_IMAGE"),
        (waits("p", "ErrImagePull", container="init"), "image reg/it:1 cannot be pulled", "--executor-image"),
        (
            waits("p", "CreateContainerConfigError", 'secret "a" not found'),
            'secret "a" not found',
            "kubectl describe pod",
        ),
        (argo_pod("p", "distill", "block", "Pending", conditions=[UNTAKEN]), "no node takes pod p (distill", "doctor"),
        (
            argo_pod("p", "distill") | {"spec": {"schedulingGates": [{"name": "kueue"}]}},
            "waits in its queue",
            "workloads",
        ),
    ],
)
def test_a_pod_that_does_not_start_is_told_with_what_mends_it(
    kubernetes: Kubernetes, cluster: Cluster, pod: dict[str, Any], said: str, mend: str
) -> None:
    runs(kubernetes, pod)
    line = str(why_waiting(cluster, PLACE, "RUNNING"))
    assert said in line
    assert mend in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("of", "engine", "said"),
    [
        (workflow(""), "PENDING", "Argo has not taken up workflow lmm-xyz; does its controller run"),
        (
            workflow("Running"),
            "PENDING",
            "workflow lmm-xyz is running, and Kubeflow still says pending; its persistence",
        ),
        (workflow("Succeeded"), "RUNNING", "workflow lmm-xyz has ended (succeeded), and Kubeflow still says running"),
        (workflow() | {"spec": {"suspend": True}}, "RUNNING", "workflow lmm-xyz is suspended"),
        (workflow(nodes={"a": PENDING_NODE}), "RUNNING", "block: exceeded quota: gpus; see workflow lmm-xyz"),
    ],
)
def test_a_workflow_that_stands_still_is_told(
    kubernetes: Kubernetes, cluster: Cluster, of: dict[str, Any], engine: str, said: str
) -> None:
    runs(kubernetes, of=of)
    assert str(why_waiting(cluster, PLACE, engine)).startswith(said)


def test_a_deleted_workflow_is_told(kubernetes: Kubernetes, cluster: Cluster) -> None:
    kubernetes.answers |= {PODS: listed(), WORKFLOWS: listed()}
    assert "there is no workflow of this run in namespace team-ads" in str(why_waiting(cluster, PLACE, "RUNNING"))


def test_a_pod_that_asks_for_names_in_vain_points_to_the_policies(kubernetes: Kubernetes, cluster: Cluster) -> None:
    log = b"fine so far\nurllib3: Failed to resolve 's3' ([Errno -3] Temporary failure in name resolution)\nand on\n"
    runs(kubernetes, argo_pod("p", "distill", "block"))
    kubernetes.answers[f"{PODS}/p/log"] = Raw(200, log, "text/plain")
    line = str(why_waiting(cluster, PLACE, "RUNNING"))
    assert "cannot resolve names" in line
    assert "doctor --inside" in line


def test_the_last_warning_of_a_pod_that_does_not_start_is_told(kubernetes: Kubernetes, cluster: Cluster) -> None:
    runs(kubernetes, waits("p", "ContainerCreating"))
    old = {"type": "Warning", "reason": "Old", "message": "gone", "lastTimestamp": "2026-01-01T09:00:00Z"}
    new = {"type": "Warning", "reason": "FailedMount", "message": "no claim", "lastTimestamp": "2026-01-01T10:00:00Z"}
    kubernetes.answers[EVENTS] = listed(new, old)
    assert "does not start: FailedMount: no claim" in str(why_waiting(cluster, PLACE, "RUNNING"))


def test_a_pod_at_work_is_told_and_nothing_is_told_where_nothing_is_shown(
    kubernetes: Kubernetes, cluster: Cluster
) -> None:
    runs(kubernetes, argo_pod("p", "block_prune", "block"))
    assert str(why_waiting(cluster, PLACE, "RUNNING")) == "prune of block is at work in pod p on node-1"
    runs(kubernetes)
    assert why_waiting(cluster, PLACE, "RUNNING") is None
    kubernetes.answers[PODS] = refusal(403, "pods is forbidden")
    assert why_waiting(cluster, PLACE, "RUNNING") is None


def test_strange_answers_are_told_safely(kubernetes: Kubernetes, cluster: Cluster) -> None:
    runs(
        kubernetes,
        waits("p", "Odd\x1b[31m\n", "token=hush ghp_abcdefghijklmnopqrst123456"),
        {"metadata": 3, "status": []},
    )
    line = str(why_waiting(cluster, PLACE, "RUNNING"))
    assert "\x1b" not in line
    assert "ghp_" not in line
    assert "hush" not in line
