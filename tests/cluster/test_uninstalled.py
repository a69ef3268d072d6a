"""The chart goes, and the data stay."""

from typing import Any

import pytest
from support.cluster.kubectl import found
from support.cluster.release import NAME
from support.cluster.runs import decided

pytestmark = pytest.mark.cluster


def test_uninstalling_keeps_the_data(proof: Any, by_stage: dict[str, Any], alone: list[Any], results: object) -> None:
    before = {one["metadata"]["name"] for one in kept(proof.first.namespace)}
    for release in reversed(proof.releases.values()):
        release.uninstall()
    assert not [
        one
        for one in found("deployments", proof.first.namespace)
        if one["metadata"]["name"].startswith(f"{NAME}-mlflow")
    ]
    assert before <= {one["metadata"]["name"] for one in kept(proof.first.namespace)}
    run = next(iter(by_stage.values()))
    proof.first.install(proof.folder)
    assert decided(proof.helpers, run.store) == alone
    assert proof.first.mlflow(_STATES.replace("NAME", repr(run.experiment))) == ["FINISHED"]


def kept(namespace: str) -> list[dict[str, Any]]:
    """The claims of the release, which hold data."""
    return found("persistentvolumeclaims", namespace, f"app.kubernetes.io/instance={NAME}")


_STATES = """
import json
from mlflow import MlflowClient

client = MlflowClient("http://127.0.0.1:5000")
runs = client.search_runs([client.get_experiment_by_name(NAME).experiment_id])
print(json.dumps([run.info.status for run in runs if "mlflow.parentRunId" not in run.data.tags]))
"""
