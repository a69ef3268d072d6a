"""Kubeflow's MLflow plugin, where it is set up: kept out by policies, in another experiment, or failed."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.chart import Object, parsed, render_text
from support.findings import Json, findings
from support.kubeflow import API, Kubeflow
from support.kubernetes_api import DEPLOYMENTS, HOME, Kubernetes, deployment, listed, named, refusal
from typer.testing import Result

MLFLOW = "http://press-lmmpress-mlflow.team-ads.svc.cluster.local:5000"
LAUNCHER = f"{HOME}/configmaps/kfp-launcher"
POLICIES = "/apis/networking.k8s.io/v1/namespaces/team-ads/networkpolicies"
SELECTOR = {
    "app.kubernetes.io/name": "lmmpress",
    "app.kubernetes.io/instance": "press",
    "app.kubernetes.io/component": "mlflow",
}
NAME = "Kubeflow's MLflow plugin"


def set_up(cluster: Kubernetes, **settings: Any) -> None:
    """Kubeflow's API server with a config.json that names MLflow, as people set it up."""
    server = deployment("ghcr.io/kubeflow/kfp-api-server:2.17.0")
    pod = server["spec"]["template"]
    pod["metadata"] = {"labels": {"app": "ml-pipeline", "application-crd-id": "kubeflow-pipelines"}}
    pod["spec"]["volumes"] = [
        {"name": "mlflow-tracking-ca", "configMap": {"name": "mlflow-tracking-ca", "optional": True}},
        {"name": "config", "configMap": {"name": "ml-pipeline-config"}},
    ]
    cluster.answers[f"{DEPLOYMENTS}/ml-pipeline"] = server
    plugin = {"endpoint": MLFLOW, "settings": {"authType": "none", "injectUserEnvVars": True} | settings}
    data = {"config.json": json.dumps({"DBDriverName": "mysql", "plugins": {"mlflow": plugin}})}
    cluster.answers["/api/v1/namespaces/kubeflow/configmaps/ml-pipeline-config"] = named(
        "ml-pipeline-config", data=data
    )
    cluster.answers["/api/v1/namespaces/kubeflow"] = named("kubeflow", status={"phase": "Active"})
    cluster.answers[f"{HOME}/services/press-lmmpress-mlflow"] = {"spec": {"selector": SELECTOR}}
    policies_of(cluster, {"kubeflow": {"mlflowPlugin": {"byHand": True}}})
    launch(cluster, defaultExperimentName="lmmpress")


def policies_of(cluster: Kubernetes, values: dict[str, Any]) -> None:
    """The policies that the chart makes with these values."""
    made: list[Object] = [one for one in parsed(render_text(values)) if one["kind"] == "NetworkPolicy"]
    cluster.answers[POLICIES] = listed(*made)


def launch(cluster: Kubernetes, **settings: Any) -> None:
    cluster.answers[LAUNCHER] = named("kfp-launcher", data={"plugins.mlflow": json.dumps({"settings": settings})})


def found(result: Result) -> list[Json]:
    return [one for one in findings(result) if one["check"] == NAME]


def test_a_plugin_that_nobody_set_up_is_no_finding(doctor: Callable[..., Result]) -> None:
    assert found(doctor("--json")) == []


def test_a_plugin_that_is_let_in_is_in_order(cluster: Kubernetes, doctor: Callable[..., Result]) -> None:
    set_up(cluster)
    (one,) = found(doctor("--json"))
    assert (one["status"], one["said"]) == ("ok", MLFLOW)


def test_a_plugin_that_the_policies_keep_out_is_told_the_value(
    cluster: Kubernetes, doctor: Callable[..., Result]
) -> None:
    set_up(cluster)
    policies_of(cluster, {})
    (one,) = found(doctor("--json"))
    assert one["status"] == "warning"
    assert "NetworkPolicies of team-ads keep Kubeflow's API server from" in one["said"]
    assert one["mend"].startswith("kubeflow.mlflowPlugin.byHand=true")
    for values in ({"kubeflow": {"mlflowPlugin": {"enabled": True}}}, {"networkPolicy": {"enabled": False}}):
        policies_of(cluster, values)
        assert found(doctor("--json"))[0]["status"] == "ok"
    clients = [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "ml-pipeline"}}}]
    policies_of(cluster, {"networkPolicy": {"mlflowClients": clients}})
    assert found(doctor("--json"))[0]["status"] == "ok"
    cluster.answers[POLICIES] = refusal(403, "networkpolicies is forbidden")
    assert found(doctor("--json"))[0]["status"] == "unknown"


def test_with_several_users_the_namespace_names_the_experiment(
    cluster: Kubernetes, doctor: Callable[..., Result]
) -> None:
    set_up(cluster)
    del cluster.answers[LAUNCHER]
    (one,) = found(doctor("--json"))
    assert one["said"] == "its MLflow runs are in experiment KFP-Default, and not in lmmpress"
    assert "defaultExperimentName: lmmpress in the ConfigMap kfp-launcher" in one["mend"]


def test_with_one_user_only_the_servers_config_names_it(
    cluster: Kubernetes, doctor: Callable[..., Result], profile: Json
) -> None:
    set_up(cluster)
    profile["kubeflow"]["namespace"] = "kubeflow"
    cluster.answers = {path.replace("/team-ads", "/kubeflow"): one for path, one in cluster.answers.items()}
    cluster.answers["/api/v1/namespaces/kubeflow"] = named("kubeflow", status={"phase": "Active"})
    (one,) = found(doctor("--json"))
    assert "in experiment KFP-Default" in one["said"]
    assert "with one user Kubeflow reads the name from config.json only" in one["said"]
    assert "defaultExperimentName: lmmpress in config.json of ml-pipeline" in one["mend"]


@pytest.fixture
def kubeflow(profile: Json) -> Iterator[Kubeflow]:
    """A Kubeflow whose newest run went on without the plugin."""
    server = Kubeflow(["SUCCEEDED"])
    profile["kubeflow"]["host"] = server.host
    yield server
    server.stop()


def test_a_run_that_went_on_without_the_plugin_is_told(
    cluster: Kubernetes, kubeflow: Kubeflow, doctor: Callable[..., Result]
) -> None:
    set_up(cluster)
    # as recorded from Kubeflow Pipelines 2.17.0, whose own config.json names an MLflow that is not there
    why = "failed to build MLflow request context: failed to read plugins.mlflow.tls.caBundlePath"
    entries = {"experiment_name": {"value": "KFP-Default"}}
    failed = {"mlflow": {"entries": entries, "state": "PLUGIN_FAILED", "state_message": why}}
    succeeded = {"mlflow": {"state": "PLUGIN_SUCCEEDED"}}
    kubeflow.runs = [{"run_id": "2"}, {"run_id": "1", "plugins_output": failed}]
    (one,) = found(doctor("--json"))
    assert one["said"].startswith("the newest run went on without it: failed to build MLflow request context")
    kubeflow.runs.insert(0, {"run_id": "3", "plugins_output": succeeded})
    assert found(doctor("--json"))[0]["status"] == "ok"
    assert any(path.startswith(f"{API}/runs?") and "team-ads" in path for path in kubeflow.asked)
