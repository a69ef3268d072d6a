"""The doctor against recorded answers of healthy and broken clusters, over real HTTP: one fault at a time."""

import copy
import json
import socket
from base64 import b64encode
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.findings import Json, findings
from support.kubeflow import Kubeflow
from support.kubernetes_api import (
    DEPLOYMENTS,
    HOME,
    KUEUE,
    REVIEWS,
    Kubernetes,
    Raw,
    claim,
    deployment,
    healthy,
    listed,
    named,
    node,
    pod,
    refusal,
    resources,
    secret,
)
from support.mlflow_stub import Mlflow
from support.plans import PLAN, PROFILE
from typer.testing import CliRunner, Result

from lmmpress.cli.app import app
from lmmpress.doctor.checks import BEFORE_SUBMITTING, checks, examine
from lmmpress.doctor.demands import demands_of
from lmmpress.doctor.finding import Finding, printable
from lmmpress.doctor.nodes import matches, tolerates, used_by_node
from lmmpress.doctor.nodes import refusal as refused_by
from lmmpress.doctor.reader import amount, connect
from lmmpress.errors import UserError
from lmmpress.kubeflow.submit import Submitted
from lmmpress.tasks.profile import Expression, Profile, Toleration

QUEUE = f"{KUEUE}/namespaces/team-ads/localqueues/gpu-team-ads"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubernetes]:
    server = Kubernetes()
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path)))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KFP_TOKEN", "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def others() -> Iterator[tuple[Kubeflow, Mlflow]]:
    """Kubeflow and MLflow, in good health."""
    found = Kubeflow(["SUCCEEDED"]), Mlflow()
    yield found
    for one in found:
        one.stop()


@pytest.fixture
def profile(others: tuple[Kubeflow, Mlflow]) -> Json:
    kubeflow, mlflow = others
    where = {"host": kubeflow.host, "namespace": "team-ads"}
    return copy.deepcopy(PROFILE) | {"kubeflow": where, "environment": {"MLFLOW_TRACKING_URI": mlflow.host}}


@pytest.fixture
def doctor(cluster: Kubernetes, profile: Json, tmp_path: Path) -> Callable[..., Result]:
    def run(*options: str, **plan: Any) -> Result:
        raw = PLAN | {"model": "/data/antgmm", "store": "/data/store"} | plan
        (tmp_path / "plan.yaml").write_text(yaml.safe_dump(raw), "utf-8")
        (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(profile), "utf-8")
        command = ["doctor", "--cluster", str(tmp_path / "cluster.yaml"), "--plan", str(tmp_path / "plan.yaml")]
        return CliRunner().invoke(app, [*command, *options])

    return run


def test_a_healthy_cluster_has_nothing_to_mend(doctor: Callable[..., Result]) -> None:
    found = doctor("--json", "--strict")
    assert [one for one in findings(found) if one["status"] != "ok"] == []
    assert found.exit_code == 0
    checked = {one["check"] for one in findings(found)}
    assert {"API", "namespace", "permission to submit", "permissions of the pods", "CRDs of Argo", "quotas"} <= checked
    assert {
        "workflow-controller",
        "service account",
        "secret lmmpress-store (store)",
        "pull secret registry",
    } <= checked
    assert {"claim ads", "queue gpu-team-ads", "nodes for distill", "Kubeflow's API"} <= checked
    table = doctor()
    assert table.exit_code == 0
    assert "v1.34.2" in table.stdout
    assert table.stdout.strip().endswith(" ok")


def test_only_what_is_needed_is_asked_and_nothing_is_changed(
    doctor: Callable[..., Result], cluster: Kubernetes
) -> None:
    assert doctor().exit_code == 0
    posted = [path for method, path in cluster.asked if method != "GET"]
    assert posted
    assert all(path.endswith("accessreviews") for path in posted)
    assert not [path for _, path in cluster.asked if path.endswith("/secrets")]  # by name, never all of them


Break = Callable[[Kubernetes, Json], Any]
FAULTS: dict[str, tuple[Break, str, str, str, str]] = {}


def fault(check: str, status: str, said: str, mend: str) -> Callable[[Break], Break]:
    """A test case: what is broken, the one check that says so, and words of what it says and of what mends it."""

    def add(broken: Break) -> Break:
        FAULTS[broken.__name__] = (broken, check, status, said, mend)
        return broken

    return add


@fault("API", "warning", "v1.24.1 is older than 1.28", "upgrade the cluster")
def old_kubernetes(k: Kubernetes, p: Json) -> None:
    k.answers["/version"] = {"major": "1", "minor": "24+", "gitVersion": "v1.24.1"}


@fault("API", "unknown", "reports no version", "kubectl version")
def no_version(k: Kubernetes, p: Json) -> None:
    k.answers["/version"] = {"major": 1}


@fault("namespace", "failed", "there is no namespace team-ads", "kubectl create namespace team-ads")
def no_namespace(k: Kubernetes, p: Json) -> None:
    del k.answers[HOME]


@fault("namespace", "failed", "team-ads is being deleted", "kubectl get namespace team-ads")
def namespace_going(k: Kubernetes, p: Json) -> None:
    k.answers[HOME]["status"]["phase"] = "Terminating"


def _restricted(k: Kubernetes) -> None:
    k.answers[HOME]["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": "restricted"}


@fault("namespace", "failed", "Argo's own containers do not", "executor.securityContext")
def pod_security(k: Kubernetes, p: Json) -> None:
    _restricted(k)
    k.answers["/api/v1/namespaces/kubeflow/configmaps/workflow-controller-configmap"] = named(
        "workflow-controller-configmap", data={"executor": "imagePullPolicy: IfNotPresent"}
    )


@fault("namespace", "unknown", "could not be read: HTTP 403", "executor.securityContext")
def pod_security_unseen(k: Kubernetes, p: Json) -> None:
    _restricted(k)
    path = "/api/v1/namespaces/kubeflow/configmaps/workflow-controller-configmap"
    k.answers[path] = refusal(403, "configmaps is forbidden")


@fault("permission to submit", "failed", "may not create runs.pipelines.kubeflow.org", "--clusterrole=kubeflow-edit")
def may_not_submit(k: Kubernetes, p: Json) -> None:
    k.denied = {("create", "runs")}


@fault("permissions of the pods", "failed", "may not create workflowtaskresults", "--resource=workflowtaskresults.argo")
def pods_may_not(k: Kubernetes, p: Json) -> None:
    k.denied_pods = {("create", "workflowtaskresults"), ("list", "pods")}


@fault("permissions of the pods", "unknown", "cannot be checked for lmmpress: HTTP 403", "kubectl auth can-i create")
def pods_rights_unseen(k: Kubernetes, p: Json) -> None:
    k.answers[f"{REVIEWS}/namespaces/team-ads/localsubjectaccessreviews"] = refusal(403, "forbidden")


@fault("permission to submit", "unknown", "does not say whether", "")
def review_says_nothing(k: Kubernetes, p: Json) -> None:
    k.answers[f"{REVIEWS}/selfsubjectaccessreviews"] = {"status": {}}


@fault("CRDs of Argo", "failed", "no workflowtaskresults.argoproj.io", "install Argo")
def old_argo_kinds(k: Kubernetes, p: Json) -> None:
    k.answers["/apis/argoproj.io/v1alpha1"] = resources("workflows", "workflowtasksets")


@fault("CRDs of Kubeflow Pipelines", "failed", "no scheduledworkflows.kubeflow.org", "install Kubeflow Pipelines")
def no_kubeflow_kinds(k: Kubernetes, p: Json) -> None:
    del k.answers["/apis/kubeflow.org/v1beta1"]


@fault("workflow-controller", "failed", "no pod of it is ready", "kubectl logs deployment/workflow-controller")
def argo_down(k: Kubernetes, p: Json) -> None:
    k.answers[f"{DEPLOYMENTS}/workflow-controller"]["status"] = {"readyReplicas": 0}


@fault("ml-pipeline", "failed", "version 2.5 in kubeflow; 2.15 or newer", "upgrade to 2.15")
def old_kubeflow(k: Kubernetes, p: Json) -> None:
    k.answers[f"{DEPLOYMENTS}/ml-pipeline"] = deployment("ghcr.io/kubeflow/kfp-api-server:2.5.0@sha256:" + "0" * 64)


@fault("ml-pipeline-persistenceagent", "unknown", "there is no such deployment", "kubectl get deployment -A")
def no_agent(k: Kubernetes, p: Json) -> None:
    del k.answers[f"{DEPLOYMENTS}/ml-pipeline-persistenceagent"]


@fault("Kubeflow's API", "failed", "cannot be reached", "kubectl port-forward")
def kubeflow_elsewhere(k: Kubernetes, p: Json) -> None:
    p["kubeflow"]["host"] = "http://127.0.0.1:1"


@fault("Kubeflow's API", "warning", "has no address to submit", "kubeflow.host")
def kubeflow_unnamed(k: Kubernetes, p: Json) -> None:
    del p["kubeflow"]["host"]


@fault("service account", "failed", "there is no lmmpress in team-ads", "kubectl create serviceaccount lmmpress")
def no_account(k: Kubernetes, p: Json) -> None:
    del k.answers[f"{HOME}/serviceaccounts/lmmpress"]


@fault("secret lmmpress-store (store)", "failed", "there is none", "kubectl create secret generic lmmpress-store")
def no_secret(k: Kubernetes, p: Json) -> None:
    del k.answers[f"{HOME}/secrets/lmmpress-store"]


@fault("secret lmmpress-store (store)", "failed", "has no AWS_SECRET_ACCESS_KEY; it has", "secrets.store")
def secret_without_a_key(k: Kubernetes, p: Json) -> None:
    k.answers[f"{HOME}/secrets/lmmpress-store"] = secret("lmmpress-store", "AWS_ACCESS_KEY_ID", "secretkey")


@fault("secret lmmpress-mlflow (mlflow)", "unknown", "HTTP 403: secrets is forbidden", "ask an administrator")
def secret_unseen(k: Kubernetes, p: Json) -> None:
    k.answers[f"{HOME}/secrets/lmmpress-mlflow"] = refusal(403, "secrets is forbidden")


@fault("pull secret registry", "failed", "there is none", "--docker-server=registry.example.com")
def no_pull_secret(k: Kubernetes, p: Json) -> None:
    del k.answers[f"{HOME}/secrets/registry"]


@fault("pull secret registry", "failed", "is of type Opaque", "docker-registry")
def pull_secret_of_a_wrong_type(k: Kubernetes, p: Json) -> None:
    k.answers[f"{HOME}/secrets/registry"] = secret("registry", ".dockerconfigjson")


@fault("pull secret registry", "warning", "logs in to quay.io; the image is from registry.ex", "docker-reg")
def pull_secret_of_another_registry(k: Kubernetes, p: Json) -> None:
    told = b64encode(json.dumps({"auths": {"quay.io": {}}}).encode()).decode()
    k.answers[f"{HOME}/secrets/registry"]["data"] = {".dockerconfigjson": told}


@fault("claim ads", "failed", "there is none", "kubectl get pvc")
def no_claim(k: Kubernetes, p: Json) -> None:
    del k.answers[f"{HOME}/persistentvolumeclaims/ads"]


@fault("claim lmmpress-cache", "failed", "there is no storage class fast", "kubectl get storageclasses")
def no_storage_class(k: Kubernetes, p: Json) -> None:
    k.answers[f"{HOME}/persistentvolumeclaims/lmmpress-cache"] = claim("fast", "Pending")


@fault("claim lmmpress-cache", "failed", "the cluster has no default", "is-default-class=true")
def no_default_class(k: Kubernetes, p: Json) -> None:
    k.answers[f"{HOME}/persistentvolumeclaims/lmmpress-cache"] = claim("", "Pending")


@fault("claim lmmpress-cache", "warning", "only pods of one node", "ReadWriteMany")
def claim_of_one_node(k: Kubernetes, p: Json) -> None:
    k.answers[f"{HOME}/persistentvolumeclaims/lmmpress-cache"] = claim(mode="ReadWriteOnce")


@fault("queue gpu-team-ads", "failed", "the cluster has no Kueue", "leave out queue")
def no_kueue(k: Kubernetes, p: Json) -> None:
    del k.answers["/apis/kueue.x-k8s.io"]


@fault("queue gpu-team-ads", "failed", "no such LocalQueue in team-ads", "kubectl get localqueues -n team-ads")
def no_queue(k: Kubernetes, p: Json) -> None:
    del k.answers[QUEUE]


@fault("queue gpu-team-ads", "failed", "is stopped (Hold)", "kubectl patch localqueue gpu-team-ads")
def queue_held(k: Kubernetes, p: Json) -> None:
    k.answers[QUEUE]["spec"]["stopPolicy"] = "Hold"


@fault("queue gpu-team-ads", "failed", "is not active: its flavor is gone", "kubectl describe clusterqueue gpus")
def queue_inactive(k: Kubernetes, p: Json) -> None:
    told = {"type": "Active", "status": "False", "message": "its flavor is gone"}
    k.answers[f"{KUEUE}/clusterqueues/gpus"]["status"]["conditions"] = [told]


@fault("queue gpu-team-ads", "failed", "gives 2 nvidia.com/gpu; distill asks for 4", "nominalQuota")
def queue_too_small(k: Kubernetes, p: Json) -> None:
    flavor = k.answers[f"{KUEUE}/clusterqueues/gpus"]["spec"]["resourceGroups"][0]["flavors"][0]
    flavor["resources"][2]["nominalQuota"] = "2"


@fault("queue gpu-team-ads", "failed", "gives no memory", "nominalQuota of memory")
def queue_without_memory(k: Kubernetes, p: Json) -> None:
    flavor = k.answers[f"{KUEUE}/clusterqueues/gpus"]["spec"]["resourceGroups"][0]["flavors"][0]
    del flavor["resources"][1]


def _quota(k: Kubernetes, hard: Json, used: Json | None = None, **spec: Any) -> None:
    quota = named("team", spec={"hard": hard} | spec, status={"hard": hard, "used": used or {}})
    k.answers[f"{HOME}/resourcequotas"] = listed(quota)


@fault("quota team for distill", "failed", "asks for 4, the quota is 2 in all", "kubectl edit resourcequota team")
def quota_of_gpus(k: Kubernetes, p: Json) -> None:
    _quota(k, {"requests.nvidia.com/gpu": "2"})


@fault("quota team for distill", "warning", "asks for 4, but 3 of 8 are left", "wait for other pods")
def quota_used_up(k: Kubernetes, p: Json) -> None:
    _quota(k, {"requests.nvidia.com/gpu": "8"}, {"requests.nvidia.com/gpu": "5"})


@fault("quota team for", "unknown", "its scopes do not show", "kubectl describe resourcequota team")
def quota_of_a_priority(k: Kubernetes, p: Json) -> None:
    _quota(k, {"requests.nvidia.com/gpu": "2"}, scopeSelector={"matchExpressions": [{"scopeName": "PriorityClass"}]})


@fault("quota team for distill", "failed", "the quota is 2 in all", "kubectl edit resourcequota team")
def quota_of_pods_with_a_deadline(k: Kubernetes, p: Json) -> None:
    _quota(k, {"requests.nvidia.com/gpu": "2"}, scopes=["Terminating", "NotBestEffort"])


@fault("quota team for", "failed", "must set limits.cpu", "set limits.cpu in the profile")
def quota_asks_for_limits(k: Kubernetes, p: Json) -> None:
    _quota(k, {"limits.cpu": "100"})


@fault("limit range small for", "failed", "memory: 32Gi is more than 8Gi", "kubectl edit limitrange small")
def limit_range(k: Kubernetes, p: Json) -> None:
    limits = [{"type": "Container", "max": {"memory": "8Gi"}}]
    k.answers[f"{HOME}/limitranges"] = listed(named("small", spec={"limits": limits}))


@fault("quotas", "unknown", "could not be looked at: HTTP 403", "kubectl auth can-i")
def quotas_unseen(k: Kubernetes, p: Json) -> None:
    k.answers[f"{HOME}/resourcequotas"] = refusal(403, "resourcequotas is forbidden")


def _nodes(k: Kubernetes, *nodes: Json) -> None:
    k.answers["/api/v1/nodes"] = listed(*nodes)


@fault("nodes for", "failed", "2 without the label pool=gpu", "kubectl label node gpu-1 pool=gpu")
def no_label(k: Kubernetes, p: Json) -> None:
    for one in k.answers["/api/v1/nodes"]["items"]:
        del one["metadata"]["labels"]["pool"]


@fault("nodes for", "failed", "outside of the affinity (gpu.kind In H100 A100)", "change affinity")
def wrong_kind(k: Kubernetes, p: Json) -> None:
    for one in k.answers["/api/v1/nodes"]["items"]:
        one["metadata"]["labels"]["gpu.kind"] = "T4"


@fault("nodes for", "failed", "with the taint team=vision:NoExecute", "key: team, operator: Equal, value: vision")
def taint(k: Kubernetes, p: Json) -> None:
    for one in k.answers["/api/v1/nodes"]["items"]:
        one["spec"]["taints"].append({"key": "team", "value": "vision", "effect": "NoExecute"})


@fault("nodes for", "failed", "too small (nvidia.com/gpu 0 of 1)", "device plugin that offers nvidia.com/gpu")
def no_device_plugin(k: Kubernetes, p: Json) -> None:
    _nodes(k, node("gpu-1", gpus=0))


@fault("nodes for distill", "failed", "too small (nvidia.com/gpu 2 of 4)", "smaller requests for distill")
def too_few_gpus_on_a_node(k: Kubernetes, p: Json) -> None:
    _nodes(k, node("gpu-1", gpus=2), node("gpu-2", gpus=2))
    k.answers["/api/v1/pods"] = listed()


@fault("nodes for", "failed", "1 cordoned; 1 not ready", "kubectl")
def nodes_away(k: Kubernetes, p: Json) -> None:
    away = node("gpu-2")
    away["status"]["conditions"][0]["status"] = "Unknown"
    _nodes(k, node("gpu-1", unschedulable=True), away)


@fault("nodes for distill", "warning", "2 match, but none has room now; gpu-1 has nvidia.com/gpu 2 of 4", "pods wait")
def nodes_full(k: Kubernetes, p: Json) -> None:
    k.answers["/api/v1/pods"] = listed(pod("a", "gpu-1", gpu="6"), pod("b", "gpu-2", gpu="5"))


@fault("nodes for", "unknown", "free resources could not be read: HTTP 403", "kubectl describe nodes")
def pods_unseen(k: Kubernetes, p: Json) -> None:
    k.answers["/api/v1/pods"] = refusal(403, "pods is forbidden")


@fault("nodes", "unknown", "could not be looked at: HTTP 403", "kubectl auth can-i")
def nodes_unseen(k: Kubernetes, p: Json) -> None:
    k.answers["/api/v1/nodes"] = refusal(403, "nodes is forbidden")


@fault("MLflow", "warning", "MLFLOW_TRACKING_URI is not set", "environment:")
def no_mlflow(k: Kubernetes, p: Json) -> None:
    p["environment"] = {}


@pytest.mark.parametrize("broken", FAULTS)
def test_one_fault_is_told_by_its_own_check_with_what_mends_it(
    broken: str, doctor: Callable[..., Result], cluster: Kubernetes, profile: Json
) -> None:
    change, check, status, said, mend = FAULTS[broken]
    change(cluster, profile)
    found = doctor("--json")
    wrong = [one for one in findings(found) if one["status"] != "ok"]
    assert wrong
    for one in wrong:  # every kind of pod may be hit by it, and nothing else
        assert one["check"].startswith(check), wrong
        assert (one["status"], one["mend"] != "" or status == "unknown") == (status, True)
    assert any(said in one["said"] and mend in one["mend"] for one in wrong), wrong
    assert found.exit_code == (1 if status == "failed" else 0)


@pytest.mark.parametrize("broken", [claim_of_one_node, nodes_unseen])
def test_strict_takes_warnings_and_what_is_unknown_for_failures(
    broken: Break, doctor: Callable[..., Result], cluster: Kubernetes, profile: Json
) -> None:
    broken(cluster, profile)
    assert doctor().exit_code == 0
    assert doctor("--strict").exit_code == 1


def test_a_cluster_that_does_not_answer_is_one_failure_and_the_rest_is_unknown(
    doctor: Callable[..., Result], cluster: Kubernetes
) -> None:
    cluster.token = "another"
    told = findings(found := doctor("--json"))
    assert found.exit_code == 1
    assert told[0]["status"] == "failed"
    assert "does not accept this login: HTTP 401" in told[0]["said"]
    assert "--context" in told[0]["mend"]
    of_the_cluster = [one for one in told[1:] if not one["check"].startswith("MLflow")]
    assert {one["status"] for one in of_the_cluster} == {"unknown"}
    cluster.stop()
    (first, *_) = findings(doctor("--json"))
    assert "no answer" in first["said"]
    assert "kubectl cluster-info" in first["mend"]


def test_a_kubeconfig_that_cannot_be_used_is_told_in_one_line(
    doctor: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "odd"
    monkeypatch.setenv("KUBECONFIG", str(path))
    found = doctor()
    assert isinstance(found.exception, UserError)
    assert "KUBECONFIG names no existing file" in str(found.exception)
    for odd in ("", "[1, 2]", "a: b: c", "apiVersion: v1", "clusters: 3\ncontexts: [x]\ncurrent-context: y", "\0", "x"):
        path.write_text(odd, "utf-8")
        found = doctor()
        assert isinstance(found.exception, UserError), odd
        assert "kubeconfig" in str(found.exception)
        assert "\n" not in str(found.exception)
    monkeypatch.setenv("KUBECONFIG", "")
    assert "there is no kubeconfig" in str(doctor().exception)
    assert "--cluster" in str(CliRunner().invoke(app, ["doctor"]).exception)


def test_another_context_is_taken_where_it_is_named(
    doctor: Callable[..., Result], cluster: Kubernetes, tmp_path: Path
) -> None:
    path = tmp_path / "kubeconfig"
    told = yaml.safe_load(path.read_text("utf-8"))
    told["contexts"].append({"name": "prod", "context": {"cluster": "c", "user": "v"}})
    told["users"].append({"name": "v", "user": {"token": "of prod"}})
    path.write_text(yaml.safe_dump(told), "utf-8")
    cluster.token = "of prod"
    assert doctor().exit_code == 1
    assert doctor("--context", "prod").exit_code == 0
    assert "prud" in str(doctor("--context", "prud").exception)


def test_with_a_token_for_kubeflow_the_kubeconfigs_user_need_not_be_allowed(
    doctor: Callable[..., Result], cluster: Kubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_TOKEN", "fresh")
    cluster.denied = {("create", "runs")}
    (one,) = [one for one in findings(doctor("--json")) if one["status"] != "ok"]
    assert (one["check"], one["status"]) == ("permission to submit", "warning")


def test_long_lists_are_read_page_by_page(doctor: Callable[..., Result], cluster: Kubernetes) -> None:
    pages = {None: ("2", [pod("a", "gpu-1", gpu="6")]), "2": ("", [pod("b", "gpu-2", gpu="6")])}

    def page(after: str | None) -> Json:
        following, items = pages[after]
        return listed(*items) | {"metadata": {"continue": following}}

    cluster.answers["/api/v1/pods"] = page
    assert "none has room now" in doctor("--json").stdout
    cluster.answers["/api/v1/pods"] = lambda after: listed() | {"metadata": {"continue": "again"}}
    told = [one for one in findings(doctor("--json")) if one["status"] == "unknown"]
    assert "its pages repeat" in told[0]["said"]


def test_granularity_chooses_whose_pods_are_looked_at(doctor: Callable[..., Result]) -> None:
    told = [one["check"] for one in findings(doctor("--json", "--granularity", "stage"))]
    assert any(one.startswith("nodes for") and "stage" in one for one in told)
    assert not any("distill" in one for one in told)


@pytest.mark.parametrize(
    ("toleration", "covers"),
    [
        ({"operator": "Exists"}, True),
        ({"operator": "Equal"}, False),
        ({"key": "k", "operator": "Exists"}, True),
        ({"key": "k", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "k", "value": "v"}, True),
        ({"key": "k", "value": "w"}, False),
        ({"key": "k"}, False),
        ({"key": "l", "operator": "Exists"}, False),
    ],
)
def test_tolerations_cover_taints_as_in_kubernetes(toleration: Json, covers: bool) -> None:
    assert tolerates(Toleration(**toleration), "k", "v", "NoSchedule") is covers


@pytest.mark.parametrize(
    ("operator", "values", "labels", "match"),
    [
        ("In", ["a", "b"], {"k": "a"}, True),
        ("In", ["a"], {}, False),
        ("NotIn", ["a"], {"k": "a"}, False),
        ("NotIn", ["a"], {}, True),
        ("Exists", [], {"k": ""}, True),
        ("DoesNotExist", [], {"k": ""}, False),
        ("DoesNotExist", [], {}, True),
        ("Gt", ["40"], {"k": "80"}, True),
        ("Gt", ["80"], {"k": "80"}, False),
        ("Lt", ["80"], {"k": "40"}, True),
        ("Lt", ["80"], {"k": "many"}, False),
        ("Lt", [], {"k": "1"}, False),
    ],
)
def test_expressions_match_labels_as_in_kubernetes(operator: Any, values: list[str], labels: Json, match: bool) -> None:
    assert matches(Expression(key="k", operator=operator, values=values), labels) is match


def test_one_of_several_required_affinities_is_enough_and_a_liking_is_none() -> None:
    terms = [
        {"expressions": [{"key": "gpu.kind", "operator": "In", "values": ["B200"]}]},
        {"expressions": [{"key": "gpu.kind", "operator": "In", "values": ["H100"]}]},
        {"expressions": [{"key": "gpu.kind", "operator": "In", "values": ["T4"]}], "weight": 5},
    ]
    tolerations = [{"operator": "Exists"}]
    for chosen, fits in ((terms, True), (terms[:1], False), (terms[2:], True)):
        profile = Profile.model_validate({"defaults": {"affinity": chosen, "tolerations": tolerations}})
        assert (refused_by(node("n"), demands_of(profile, ("distill",))[0]) is None) is fits


def test_what_a_pod_has_asked_for_counts_what_comes_before_it_and_what_stays_beside_it() -> None:
    def asks(cpu: str, **more: Any) -> Json:
        return {"resources": {"requests": {"cpu": cpu}}} | more

    spec = {
        "nodeName": "n",
        "containers": [asks("1"), asks("500m"), {"resources": {"limits": {"memory": "1Gi"}}}],
        "initContainers": [asks("4"), asks("250m", restartPolicy="Always")],
        "overhead": {"cpu": "100m"},
    }
    used = used_by_node([{"spec": spec, "status": {"phase": "Pending"}}, pod("done", "n", "Succeeded", cpu="9")])
    assert used == {"n": {"pods": 1, "cpu": Decimal("4.1"), "memory": 1 << 30}}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        *[("500m", Decimal("0.5")), ("16Gi", 16 << 30), ("1e3", 1000), (4, 4)],
        *[(odd, None) for odd in ("", "NaN", None, "1e999999999", "Infinity", "-", True, {}, "9" * 5000, "i")],
    ],
)
def test_quantities_are_read_or_are_none(written: Any, value: Any) -> None:
    assert amount(written) == value


def test_what_a_server_says_is_printed_on_one_line_and_harmless() -> None:
    assert printable("a\nb\x1b[31mc\u202e") == "a b [31mc"
    assert printable("\ud800").encode() == b"?"
    assert len(printable("x" * 10_000)) == 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["1Gi", "-1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
BODIES = (
    st.binary(max_size=40)
    | st.sampled_from([b"", b"<html>log in</html>", b"null", b"[]", b"{", b'"\\ud800"', b"[" * 9999, b"9" * 9999])
    | JSON.map(lambda value: json.dumps(value).encode())
)
RAWS = st.builds(Raw, st.sampled_from([200, 200, 200, 201, 204, 301, 400, 401, 403, 404, 409, 429, 500, 503]), BODIES,
                 st.sampled_from(["application/json", "text/html"]), st.sampled_from([0, 0, 0, 50]))  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] + [below for key, inner in items for below in _places(inner, (*path, key))]


@st.composite
def odd_answers(draw: st.DrawFn) -> dict[str, Any]:
    """The answers of a healthy cluster, of which some are others altogether, and some have odd things in them."""
    answers: dict[str, Any] = copy.deepcopy(healthy())
    _with_more_to_read(answers)
    paths = [
        *answers,
        f"{REVIEWS}/selfsubjectaccessreviews",
        f"{REVIEWS}/namespaces/team-ads/localsubjectaccessreviews",
    ]
    for path in draw(st.lists(st.sampled_from(paths), max_size=4)):
        answers[path] = draw(RAWS)
    for path in draw(st.lists(st.sampled_from(sorted(answers)), min_size=1, max_size=6)):
        if isinstance(answers[path], Raw):
            continue
        *before, last = draw(st.sampled_from(_places(answers[path])[1:]))
        place = answers[path]
        for key in before:
            place = place[key]
        place[last] = draw(JSON)
    return answers


def _with_more_to_read(answers: dict[str, Any]) -> None:
    answers[HOME]["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": "restricted"}
    quota = {"hard": {"requests.cpu": "9", "limits.memory": "1Ti", "pods": "5"}, "used": {"requests.cpu": "1"}}
    answers[f"{HOME}/resourcequotas"] = listed(named("q", spec={}, status=quota))
    limits = [{"type": "Container", "max": {"cpu": "99"}, "min": {"memory": "1"}, "default": {"cpu": "9"},
               "maxLimitRequestRatio": {"memory": "3"}, "defaultRequest": {"cpu": "1"}}]  # fmt: skip
    answers[f"{HOME}/limitranges"] = listed(named("l", spec={"limits": limits}))
    answers[f"{HOME}/persistentvolumeclaims/ads"] = claim("nfs", "Pending")
    answers[f"{HOME}/persistentvolumeclaims/lmmpress-cache"] = claim("", "Pending")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(answers=odd_answers())
def test_no_answer_of_the_api_ends_in_a_traceback(
    answers: dict[str, Any], cluster: Kubernetes, others: tuple[Kubeflow, Mlflow]
) -> None:
    cluster.answers = answers
    kubeflow = {"host": others[0].host, "namespace": "team-ads"}
    found = examine(Profile.model_validate(PROFILE | {"kubeflow": kubeflow}), connect(), checks())
    _sound(found)
    assert not [one for one in found if "not understood" in one.said], found  # no check relies on the net below it
    json.dumps([vars(one) for one in found]).encode()


def _sound(found: list[Finding]) -> None:
    assert found[0].check == "API"
    for one in found:
        assert one.status in ("ok", "warning", "failed", "unknown")
        assert one.said
        assert one.mend or one.status in ("ok", "unknown")
        assert "\n" not in one.said + one.mend
        f"{one.check} {one.said} {one.mend}".encode()


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(raw=RAWS)
def test_whatever_answers_instead_of_the_api_is_told(
    raw: Raw, doctor: Callable[..., Result], cluster: Kubernetes
) -> None:
    cluster.everything = raw
    found = doctor("--json")
    cluster.everything = None
    _sound([Finding(**one) for one in findings(found)])
    assert "ok" not in {
        one["status"] for one in findings(found) if not one["check"].startswith(("MLflow", "Kubeflow's"))
    }


Submit = Callable[..., Result]


@pytest.fixture
def submit(cluster: Kubernetes, profile: Json, tmp_path: Path) -> Submit:
    def run(*options: str) -> Result:
        (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN), "utf-8")
        (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(profile), "utf-8")
        command = ["submit", str(tmp_path / "plan.yaml"), "--cluster", str(tmp_path / "cluster.yaml")]
        before = socket.getdefaulttimeout()
        try:
            return CliRunner().invoke(app, [*command, "--granularity", "stage", *options])
        finally:
            socket.setdefaulttimeout(before)

    return run


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would be submitted, by its granularity; nothing is compiled, which takes seconds."""
    found: list[str] = []

    def note(plan: Any, name: str, profile: Any, granularity: str) -> tuple[None, Submitted]:
        found.append(granularity)
        return None, Submitted("r-1", "https://kubeflow.example.com/#/runs/details/r-1")

    monkeypatch.setattr("lmmpress.kubeflow.submit.submit", note)
    return found


def test_a_quota_of_other_pods_stands_in_nobodys_way(doctor: Callable[..., Result], cluster: Kubernetes) -> None:
    _quota(cluster, {"requests.nvidia.com/gpu": "2", "limits.cpu": "1"}, scopes=["NotTerminating"])
    assert doctor("--strict").exit_code == 0


def test_a_bucket_without_keys_is_warned_of(
    doctor: Callable[..., Result], profile: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmmpress.doctor.outside.check_buckets", lambda *_: [])
    del profile["secrets"]["store"]
    (one,) = [one for one in findings(doctor("--json", store="s3://models/store")) if one["status"] != "ok"]
    assert (one["check"], one["status"]) == ("secrets", "warning")


def test_submit_looks_first_and_then_submits(submit: Submit, others: tuple[Kubeflow, Mlflow]) -> None:
    others[0].submitted.clear()
    found = submit()
    assert found.exit_code == 0, found
    assert "warning" not in found.stderr
    assert len(others[0].submitted) == 1


def test_submit_refuses_with_the_doctors_words(
    submit: Submit, doctor: Callable[..., Result], cluster: Kubernetes, submitted: list[str]
) -> None:
    del cluster.answers[f"{HOME}/secrets/lmmpress-store"]
    no_account(cluster, {})
    first, second = [one for one in findings(doctor("--json")) if one["status"] == "failed"]
    found = submit()
    assert isinstance(found.exception, UserError)
    assert not submitted
    assert f"{first['check']}: {first['said']}; {first['mend']}" in str(found.exception)
    assert "(and 1 more, above); --no-checks submits all the same" in str(found.exception)
    assert f"{second['check']}: {second['said']}; {second['mend']}" in found.stderr
    assert submit("--no-checks").exit_code == 0
    assert submitted == ["stage"]


def test_submit_warns_of_what_it_could_not_look_at_and_goes_on(
    submit: Submit, cluster: Kubernetes, submitted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes_unseen(cluster, {})
    nodes_full(cluster, {})
    quotas_unseen(cluster, {})
    assert "warning: could not be looked at: quotas, nodes; `lmmpress doctor` says why" in submit().stderr
    cluster.token = "another"
    assert "warning: the cluster could not be looked at" in submit().stderr
    monkeypatch.setenv("KUBECONFIG", "")
    cluster.asked.clear()
    assert submit().stderr.count("the cluster could not be looked at: there is no kubeconfig") == 1
    assert not cluster.asked
    assert submitted == ["stage"] * 3
    assert isinstance(submit("--context", "prod").exception, UserError)


def test_submit_looks_at_the_pods_that_it_starts(submit: Submit, cluster: Kubernetes, submitted: list[str]) -> None:
    too_few_gpus_on_a_node(cluster, {})
    assert "nodes for distill" in str(submit("--granularity", "step").exception)
    assert submit().exit_code == 0
    assert submitted == ["stage"]


def test_every_check_of_submit_is_one_of_the_doctors() -> None:
    assert set(BEFORE_SUBMITTING) <= checks().keys()
