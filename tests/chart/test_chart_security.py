"""Pods, roles and policies of the chart: the restricted standard, a policy scan, no right too many."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from support.chart import CASES, containers, in_all_cases, one, pods, render, unavailable
from support.real_checkov import find_checkov

from lmmpress.doctor.permissions import RUNNING
from lmmpress.doctor.pod_demands import account, home
from lmmpress.tasks.cluster_profile import Profile


@in_all_cases
def test_pods_keep_to_the_restricted_standard(case: str) -> None:
    found = pods(render(case))
    assert found
    for name, pod in found.items():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        allowed = {"name", "configMap", "emptyDir", "secret", "persistentVolumeClaim", "projected"}
        assert all(volume.keys() <= allowed for volume in spec["volumes"]), name
        for container in containers(pod):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert context["privileged"] is False, name
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}, name
            assert "memory" in container["resources"]["limits"], name
            assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"], name


# Findings of checkov, the objects that they are about, and why they are accepted. Without an account checkov reports no
# severities, so every finding counts.
EVERY = "mlflow minio postgresql prepare check-store check-mlflow"
EXPLAINED = {
    "CKV_K8S_8": ("check-store check-mlflow", "liveness of a pod that looks and ends"),
    "CKV_K8S_9": ("check-store check-mlflow", "readiness of the same"),
    "CKV_K8S_11": (EVERY, "a limit of CPU slows a server down on an idle node; memory has one"),
    "CKV_K8S_15": (EVERY, "what a digest names is the same whenever it is pulled; pullPolicy is a value"),
    "CKV_K8S_35": (EVERY, "Secrets as variables: that is how the clients of S3, PostgreSQL and MLflow read them"),
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
            if {"secrets", "configmaps"} & set(rule["resources"]):
                assert rule["resourceNames"], "every Secret of the namespace would be open"
                assert rule["verbs"] == ["get"]
    assert not [found for found in objects if found["kind"].startswith("Cluster")]
    accounts = {found["metadata"]["name"]: found for found in objects if found["kind"] == "ServiceAccount"}
    with_token = [name for name, found in accounts.items() if found["automountServiceAccountToken"]]
    assert len(with_token) == 1, "only the pipeline's pods call Kubernetes"
    assert {pod["spec"]["serviceAccountName"] for pod in pods(objects).values()} == accounts.keys() - set(with_token)


def test_the_rights_of_pods_are_those_that_the_doctor_asks_for() -> None:
    objects = render("minimal")
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
    asked = {(right.verb, right.group, right.resource, right.name) for right in RUNNING}
    # the doctor does not check the Secret of Kubeflow's object store, which not every store needs
    assert given - asked == {("get", "", "secrets", "mlpipeline-minio-artifact")}
    assert asked <= given
