"""Pods, roles and policies of the chart: the restricted standard, a policy scan, no right too many."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from support.chart import CASES, Object, containers, in_all_cases, one, pods, render, runtime, unavailable
from support.real_checkov import find_checkov

from lmmpress.doctor.permissions import SUBMITTING, Right, rights_of_pods
from lmmpress.doctor.pod_demands import account, home
from lmmpress.tasks.cluster_profile import Profile


def restricted(name: str, pod: Object) -> None:
    """The pod has no token and keeps to the restricted standard of Kubernetes."""
    spec = pod["spec"]
    assert spec["automountServiceAccountToken"] is False, name
    assert spec["securityContext"]["runAsNonRoot"] is True, name
    assert spec["securityContext"]["runAsUser"] > 0, name
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
    allowed = {"name", "configMap", "emptyDir", "secret", "persistentVolumeClaim", "projected"}
    assert all(volume.keys() <= allowed for volume in spec.get("volumes", [])), name
    for container in containers(pod):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["readOnlyRootFilesystem"] is True, name
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        assert context["privileged"] is False, name
        assert container["terminationMessagePolicy"] == "FallbackToLogsOnError", name


@in_all_cases
def test_pods_keep_to_the_restricted_standard(case: str) -> None:
    found = pods(render(case))
    assert found
    for name, pod in found.items():
        restricted(name, pod)
        for container in containers(pod):
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}, name
            assert "memory" in container["resources"]["limits"], name
            assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"], name


def test_the_pods_of_a_training_have_what_a_training_cannot_set_itself() -> None:
    """Its TrainJob sets command, resources, volumes and nodes; it can patch neither the token nor the pull policy."""
    objects = render("trainer")
    profile = Profile.model_validate(
        yaml.safe_load(one(objects, "ConfigMap", "press-lmmpress-cluster")["data"]["cluster.yaml"])
    )
    pod = runtime(objects)["spec"]["template"]
    restricted("training", pod)
    spec = pod["spec"]
    assert spec["serviceAccountName"] == account(profile)
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["priorityClassName"] == "high"
    (container,) = spec["containers"]
    assert (container["name"], container["image"]) == ("node", profile.image)
    assert container["imagePullPolicy"] == profile.pull_policy
    assert pod["metadata"]["annotations"] == {"k8s.v1.cni.cncf.io/networks": "rdma"}
    assert pod["metadata"]["labels"]["tier"] == "training"


def test_a_training_begins_again_unless_its_input_is_at_fault() -> None:
    objects = render("trainer")
    (found,) = (found for found in objects if found["kind"] == "ClusterTrainingRuntime")
    policy = found["spec"]["template"]["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 3
    (rule,) = policy["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    job = runtime(objects)["spec"]
    assert job["backoffLimit"] == 0, "one pod cannot go on without the others, so none is started alone"
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {"containerName": "node", "operator": "In", "values": [2]}, "as tasks end for people"


# Findings of checkov, the objects that they are about, and why they are accepted. Without an account checkov reports no
# severities, so every finding counts.
CHECKS = "check-store check-mlflow check-engine check-trigger"
EVERY = f"mlflow minio postgresql prepare trigger {CHECKS}"
EXPLAINED = {
    "CKV_K8S_8": (CHECKS, "liveness of a pod that looks and ends"),
    "CKV_K8S_9": (CHECKS, "readiness of the same"),
    "CKV_K8S_11": (EVERY, "a limit of CPU slows a server down on an idle node; memory has one"),
    "CKV_K8S_15": (EVERY, "what a digest names is the same whenever it is pulled; pullPolicy is a value"),
    "CKV_K8S_35": (
        EVERY.replace(" check-engine", ""),
        "Secrets as variables: that is how the clients of S3, PostgreSQL and MLflow read them",
    ),
    "CKV_K8S_40": ("postgresql", "its image has a user below 10000; a value"),
    "CKV_K8S_43": (EVERY, "digests are given by who installs; the notes warn where ours has none"),
}


@pytest.mark.long
def test_a_policy_scan_finds_nothing_that_is_not_explained(tmp_path: Path) -> None:
    program, why = find_checkov()
    if program is None:
        unavailable(why)
    for case in CASES:
        (tmp_path / f"{case}.yaml").write_text(yaml.safe_dump_all(render(case)), "utf-8")
    command = [str(program), "--directory", str(tmp_path), "--framework", "kubernetes", "--output", "json", "--compact"]
    done = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", check=False, env=os.environ | {"LOG_LEVEL": "ERROR"}
    )
    results = json.loads(done.stdout)["results"]
    assert len(results["passed_checks"]) > 1000, "it has looked"
    found: dict[str, set[str]] = {}
    for one_of in results["failed_checks"]:
        found.setdefault(one_of["check_id"], set()).add(one_of["resource"].partition("press-lmmpress-")[2])
    assert found == {check: set(objects.split()) for check, (objects, _) in EXPLAINED.items()}


@in_all_cases
def test_roles_name_what_they_allow(case: str) -> None:
    objects = render(case)
    for role in (found for found in objects if found["kind"] == "Role"):
        for rule in role["rules"]:
            assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
            assert "pods/exec" not in rule["resources"]
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
            if {"secrets", "configmaps"} & set(rule["resources"]):
                assert rule["resourceNames"], "every Secret of the namespace would be open"
                assert rule["verbs"] == ["get"]
    assert not [found for found in objects if found["kind"].startswith("ClusterRole")]
    accounts = {found["metadata"]["name"]: found for found in objects if found["kind"] == "ServiceAccount"}
    with_token = [name for name, found in accounts.items() if found["automountServiceAccountToken"]]
    assert len(with_token) == 1, "only the pipeline's pods call Kubernetes"
    others = {name: pod for name, pod in pods(objects).items() if not name.endswith("check-engine")}
    assert {pod["spec"]["serviceAccountName"] for pod in others.values()} == accounts.keys() - set(with_token)
    (as_pipeline,) = (pod for name, pod in pods(objects).items() if name not in others)
    assert [as_pipeline["spec"]["serviceAccountName"]] == with_token


def test_the_trigger_may_submit_follow_and_end_runs_and_nothing_else() -> None:
    def rights(case: str) -> set[Right]:
        role = one(render(case), "Role", "press-lmmpress-trigger")
        return {
            Right(verb, group, resource)
            for rule in role["rules"]
            for verb in rule["verbs"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
        }

    assert rights("trigger") == {*SUBMITTING, Right("terminate", "pipelines.kubeflow.org", "runs")}
    # it neither lists nor watches workflows, and sees no pods
    assert rights("trigger-argo") == {Right(verb, "argoproj.io", "workflows") for verb in ("create", "get", "update")}
    for case in ("trigger", "trigger-argo"):
        (subject,) = one(render(case), "RoleBinding", "press-lmmpress-trigger")["subjects"]
        for pod in ("press-lmmpress-trigger", "press-lmmpress-check-trigger"):
            assert pods(render(case))[pod]["spec"]["serviceAccountName"] == subject["name"]
    assert not [found for found in render("minimal") if "trigger" in found["metadata"]["name"]]


def test_tokens_are_mounted_for_who_is_to_read_them() -> None:
    """Kubeflow gets a token that Kubernetes does not take; without Kubeflow there is none of it."""

    def tokens(case: str) -> dict[str, str]:
        spec = pods(render(case))["press-lmmpress-trigger"]["spec"]
        mounts = {mount["name"]: mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
        return {
            f"{mounts[volume['name']]}/{source['serviceAccountToken']['path']}": source["serviceAccountToken"].get(
                "audience", ""
            )
            for volume in spec["volumes"]
            for source in volume.get("projected", {}).get("sources", [])
            if "serviceAccountToken" in source
        }

    assert tokens("trigger") == {"/var/run/secrets/kubeflow/pipelines/token": "pipelines.kubeflow.org"}
    assert tokens("trigger-argo") == {"/var/run/secrets/kubernetes.io/serviceaccount/token": ""}
    (container,) = pods(render("trigger"))["press-lmmpress-trigger"]["spec"]["containers"]
    variables = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert variables["KFP_TOKEN_FILE"] in tokens("trigger")


@pytest.mark.parametrize("case", ["minimal", "trainer", "argo"])
def test_the_rights_of_pods_are_those_that_the_doctor_asks_for(case: str) -> None:
    objects = render(case)
    profile = Profile.model_validate(
        yaml.safe_load(one(objects, "ConfigMap", "press-lmmpress-cluster")["data"]["cluster.yaml"])
    )
    binding = one(objects, "RoleBinding", "press-lmmpress-pipeline")
    assert [(home(profile), account(profile))] == [(one["namespace"], one["name"]) for one in binding["subjects"]]
    given = {
        (verb, group, resource, name)
        for rule in one(objects, "Role", binding["roleRef"]["name"])["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
    }
    asked = {(right.verb, right.group, right.resource, right.name) for right in rights_of_pods(profile)}
    # the doctor does not check what not every cluster needs: the Secret of Kubeflow's object store, and why pods wait
    unasked = {("get", "", "secrets", "mlpipeline-minio-artifact")} if profile.engine == "kubeflow" else set()
    if profile.training:
        unasked |= {("list", "", "events", ""), ("list", "kueue.x-k8s.io", "workloads", "")}
    assert given - asked == unasked
    assert asked <= given
