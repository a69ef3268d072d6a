"""Pods of real runs (Kubernetes 1.36.2, Kubeflow Pipelines 2.17.0, Argo 4.0.8), without what nobody reads."""

import json

from support.argo_pods import runs
from support.kubernetes_api import Kubernetes
from support.paths import ROOT

from lmmpress.pods.cluster_reader import Cluster
from lmmpress.pods.failure import why_failed
from lmmpress.pods.waiting import Place, why_waiting

RECORDED = json.loads((ROOT / "tests" / "pods" / "recorded" / "pods.json").read_text("utf-8"))
PLACE = Place("team-ads", "pipeline/runid=r-1", "kubeflow")


def test_an_image_that_cannot_be_pulled(kubernetes: Kubernetes, cluster: Cluster) -> None:
    runs(kubernetes, RECORDED["image"])
    line = str(why_waiting(cluster, PLACE, "RUNNING"))
    assert line.startswith("image registry.invalid/team/nowhere:1 cannot be pulled: pod lmm-")
    assert "(prepare)" in line
    assert line.endswith("see image and pull_secrets in the cluster profile")


def test_a_pod_that_no_node_takes(kubernetes: Kubernetes, cluster: Cluster) -> None:
    runs(kubernetes, RECORDED["no_node"])
    line = str(why_waiting(cluster, PLACE, "RUNNING"))
    assert line.startswith("no node takes pod lmm-")
    assert "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector" in line


def test_a_pod_without_enough_memory(kubernetes: Kubernetes, cluster: Cluster) -> None:
    runs(kubernetes, RECORDED["out_of_memory"])
    found = why_failed(cluster, PLACE)
    assert found is not None
    assert found.what == "prepare"
    assert found.reason == "OOMKilled, its memory limit is 40Mi"
