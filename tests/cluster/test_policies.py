"""Where the cluster enforces network policies, only those who have to can reach the servers of the chart."""

from collections.abc import Iterator
from typing import Any

import pytest
from support.cluster.beside import Beside
from support.cluster.kubectl import found
from support.cluster.release import NAME

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def beside(proof: Any) -> Iterator[Beside]:
    """Pods that are none of ours; a skip where nothing enforces policies."""
    profile, values = proof.first.profile(), proof.first.values()
    pods = Beside(profile["image"], profile["pull_policy"], values["clusterDomain"], proof.first.namespace)
    pods.start()
    try:
        assert pods.reaches_open(), "a pod beside reaches nobody at all"
        if pods.reaches_closed():
            pytest.skip("nothing on this cluster enforces network policies")
        yield pods
    finally:
        pods.stop()


@pytest.mark.parametrize("component", ["mlflow", "postgresql", "minio"])
@pytest.mark.parametrize("namespace", ["another", "the same"])
def test_a_pod_beside_does_not_reach(component: str, namespace: str, proof: Any, beside: Beside) -> None:
    home = proof.first.namespace
    labels = f"app.kubernetes.io/instance={NAME},app.kubernetes.io/component={component}"
    servers = [
        (one["metadata"]["name"], port["port"])
        for one in found("services", home, labels)
        for port in one["spec"]["ports"]
    ]
    if not servers:
        pytest.skip(f"{component} is none of the chart's here: its own cluster or provider guards it")
    within = {"within": home} if namespace == "the same" else {}
    assert [one for one in servers if beside.reaches(one[0], home, one[1], **within)] == []
