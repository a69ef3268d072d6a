"""The doctor and Argo: with `engine: argo` its controller, rights and artifacts; with Kubeflow what it tries again.

The deployments and settings are those of Kubeflow Pipelines 2.17.0 and of Argo 4.0.8's manifests, as recorded from a
cluster, cut to what is read.
"""

import json
from collections.abc import Callable

import pytest
from support.argo_cluster import ARGO, CONTROLLER, SETTINGS, argo_cluster, controller, kubeflows_settings
from support.findings import Json, findings
from support.kubernetes_api import HOME, Kubernetes, listed, named, refusal, resources
from typer.testing import Result

from lmmpress.doctor.argo import check_controller
from lmmpress.doctor.permissions import SUBMITTING_TO_ARGO
from lmmpress.pods.cluster_reader import connect
from lmmpress.tasks.cluster_profile import Profile

Break = Callable[[Kubernetes, Json], None]


@pytest.fixture
def argo(cluster: Kubernetes, profile: Json) -> Kubernetes:
    """A cluster with Argo alone, and the profile for it."""
    argo_cluster(cluster)
    del profile["kubeflow"]
    profile |= {"engine": "argo", "argo": {"namespace": "team-ads"}}
    return cluster


def test_a_healthy_cluster_without_kubeflow_has_no_findings(argo: Kubernetes, doctor: Callable[..., Result]) -> None:
    found = doctor("--json", "--strict")
    assert [one for one in findings(found) if one["status"] != "ok"] == []
    told = {one["check"]: one["said"] for one in findings(found)}
    assert told["Argo's controller"] == "4.0, 1 ready in argo, looks at every namespace"
    assert not [name for name in told if "Kubeflow" in name or "ml-pipeline" in name]


FAULTS: dict[str, tuple[Break, str, str, str]] = {}


def fault(check: str, said: str, mend: str) -> Callable[[Break], Break]:
    def add(broken: Break) -> Break:
        FAULTS[broken.__name__] = (broken, check, said, mend)
        return broken

    return add


@fault("CRDs of Argo", "no workflows.argoproj.io", "https://argo-workflows.readthedocs.io")
def no_argo(k: Kubernetes, p: Json) -> None:
    del k.answers["/apis/argoproj.io/v1alpha1"]


@fault("CRDs of Argo", "no workflowtemplates.argoproj.io", "kubectl get crd workflowtemplates.argoproj.io")
def no_templates(k: Kubernetes, p: Json) -> None:
    k.answers["/apis/argoproj.io/v1alpha1"] = resources("workflows", "workflowtaskresults", "workflowtasksets")


@fault("Argo's controller", "there is none in argo", "argo.system")
def no_controller(k: Kubernetes, p: Json) -> None:
    k.answers[CONTROLLER] = listed()


@fault("Argo's controller", "no pod of it is ready in argo", "kubectl logs deployment/workflow-controller -n argo")
def controller_down(k: Kubernetes, p: Json) -> None:
    k.answers[CONTROLLER] = listed(controller(ready=0))


@fault("Argo's controller", "looks at workflows of argo only, and not of team-ads", "argo.namespace: argo")
def namespaced(k: Kubernetes, p: Json) -> None:
    k.answers[CONTROLLER] = listed(controller("--namespaced"))


@fault("Argo's controller", "looks at workflows of others only", "--managed-namespace team-ads")
def namespaced_elsewhere(k: Kubernetes, p: Json) -> None:
    k.answers[CONTROLLER] = listed(controller("--namespaced", "--managed-namespace=others"))


@fault("Argo's controller", "with instanceID blue; ours have none", "argo.instance: blue")
def of_an_instance(k: Kubernetes, p: Json) -> None:
    k.answers[SETTINGS] = named("workflow-controller-configmap", data={"instanceID": "blue"})


@fault("Argo's controller", "without instanceID; ours have green", "leave out argo.instance")
def instance_of_ours(k: Kubernetes, p: Json) -> None:
    p["argo"]["instance"] = "green"


@fault("Argo's controller", "version 3.4 is older than 3.5", "upgrade to 3.5")
def too_old(k: Kubernetes, p: Json) -> None:
    k.answers[CONTROLLER] = listed(controller(version="v3.4.11"))


@fault("permission to submit", "may not create workflows.argoproj.io", "argo.submitters")
def may_not_submit(k: Kubernetes, p: Json) -> None:
    k.denied = {("create", "workflows")}


@fault("permissions of the pods", "may not create workflowtaskresults", "--resource=workflowtaskresults.argo")
def may_not_report(k: Kubernetes, p: Json) -> None:
    k.denied_pods = {("create", "workflowtaskresults")}


@fault("artifact repository", "argo.report is set, and there is none", "artifactRepository")
def no_repository(k: Kubernetes, p: Json) -> None:
    p["argo"]["report"] = True


@pytest.mark.parametrize("broken", FAULTS)
def test_a_fault_of_argo_is_one_line_with_what_mends_it(
    broken: str, argo: Kubernetes, profile: Json, doctor: Callable[..., Result]
) -> None:
    change, check, said, mend = FAULTS[broken]
    change(argo, profile)
    found = doctor("--json")
    (one,) = [one for one in findings(found) if one["status"] != "ok"]
    assert (one["check"], one["status"], found.exit_code) == (check, "failed", 1)
    assert said in one["said"], one
    assert mend in one["mend"], one


@pytest.mark.parametrize("version", ["v3.5.15", "v3.6.19", "v3.7.18", "v4.0.8", "v4.1.2"])
def test_what_differs_between_versions_is_named(version: str, argo: Kubernetes, doctor: Callable[..., Result]) -> None:
    argo.answers[CONTROLLER] = listed(controller(version=version))
    found = doctor("--json", "--strict")
    assert found.exit_code == 0
    (said,) = [one["said"] for one in findings(found) if one["check"] == "Argo's controller"]
    assert said.startswith(f"{version[1:4]}, 1 ready in argo")
    assert ("no cap on the pauses" in said) == (version < "v3.7")
    assert ("one mutex" in said) == version.startswith("v3.5")
    argo.answers[CONTROLLER] = listed(controller(version="v5.0.0"))
    assert "is newer than" in doctor("--json").stdout


def test_a_controller_of_a_chart_and_its_settings_in_one_key_are_found(argo: Kubernetes, profile: Json) -> None:
    one = controller("--configmap", "its-settings", "--namespaced=false", name="argo-workflows-workflow-controller")
    argo.answers[CONTROLLER] = listed(named("argo-server", spec={}), one)
    argo.answers[f"/api/v1/namespaces/{ARGO}/configmaps/its-settings"] = named(
        "its-settings", data={"config": "instanceID: blue\nartifactRepository: {s3: {bucket: b}}\n"}
    )
    profile["argo"] |= {"instance": "blue", "report": True}
    (found,) = check_controller(Profile.model_validate(profile), connect())
    assert found.status == "ok", found


def test_a_repository_of_the_namespace_is_enough(
    argo: Kubernetes, profile: Json, doctor: Callable[..., Result]
) -> None:
    profile["argo"]["report"] = True
    key = "workflows.argoproj.io/default-artifact-repository"
    argo.answers[f"{HOME}/configmaps/artifact-repositories"] = {
        "metadata": {"name": "artifact-repositories", "annotations": {key: "s3"}},
        "data": {"s3": "s3: {bucket: b}"},
    }
    assert doctor("--strict").exit_code == 0


def test_settings_that_may_not_be_read_are_unknown(argo: Kubernetes, doctor: Callable[..., Result]) -> None:
    argo.answers[SETTINGS] = refusal(403, "configmaps is forbidden")
    (one,) = [one for one in findings(doctor("--json")) if one["status"] != "ok"]
    assert (one["check"], one["status"]) == ("Argo's controller", "unknown")


RETRIES = {
    "OnError": (
        "a pod that is deleted, as by preemption or a drained node, is tried again; a task that fails",
        "warning",
    ),
    "": ("a task that fails is tried again; a pod that is deleted, as by preemption", "warning"),
    "OnTransientError": ("only what Argo calls transient is tried again; a deleted pod is not", "warning"),
    "Always": ("failed tasks and deleted pods are tried again", "ok"),
}


@pytest.mark.parametrize("policy", RETRIES)
def test_what_kubeflows_controller_tries_again_is_said(
    policy: str, cluster: Kubernetes, doctor: Callable[..., Result]
) -> None:
    kubeflows_settings(cluster, policy)
    (one,) = [one for one in findings(doctor("--json")) if one["check"] == "Argo's retries"]
    said, status = RETRIES[policy]
    assert one["said"].startswith(said)
    assert one["status"] == status
    assert ("retryPolicy: Always" in one["mend"]) == (status == "warning")


def test_the_roles_of_the_chart_are_enough_for_argo() -> None:
    from support.chart import one, render

    rules = one(render("argo"), "Role", "press-lmmpress-submit")["rules"]
    given = {
        (verb, group, resource)
        for rule in rules
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert {(right.verb, right.group, right.resource) for right in SUBMITTING_TO_ARGO} <= given


COMPLYING = {"runAsNonRoot": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
             "seccompProfile": {"type": "RuntimeDefault"}}  # fmt: skip


@pytest.mark.parametrize(
    ("version", "given", "status"),
    [
        ("v4.0.8", None, "ok"),
        ("v3.5.15", None, "failed"),
        ("latest", None, "unknown"),
        ("v3.5.15", COMPLYING, "ok"),
        ("v4.0.8", {"runAsNonRoot": True}, "failed"),
    ],
)
def test_argos_own_containers_in_a_restricted_namespace(
    version: str, given: Json | None, status: str, argo: Kubernetes, doctor: Callable[..., Result]
) -> None:
    argo.answers[HOME]["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": "restricted"}
    argo.answers[CONTROLLER] = listed(controller(version=version))
    data = {"executor": json.dumps({"securityContext": given})} if given else {}
    argo.answers[SETTINGS] = named("workflow-controller-configmap", data=data)
    (one,) = [one for one in findings(doctor("--json")) if one["check"] == "namespace"]
    assert one["status"] == status
