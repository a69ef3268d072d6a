"""What the chart writes for lmmpress and Kubeflow: the profile, plans, settings of the launcher."""

import json
from pathlib import Path

import yaml
from support.chart import CASES, containers, in_all_cases, one, parsed, pods, render, render_text

from lmmpress.plan import parse_plan
from lmmpress.tasks.cluster_profile import Profile, read_profile
from lmmpress.tasks.training_manifest import training_manifest


@in_all_cases
def test_the_profile_is_one_that_compile_reads(case: str, tmp_path: Path) -> None:
    objects = render(case)
    path = tmp_path / "cluster.yaml"
    path.write_text(one(objects, "ConfigMap", "press-lmmpress-cluster")["data"]["cluster.yaml"], "utf-8")
    profile = read_profile(path)
    on_argo = CASES[case][0].get("engine") == "argo"
    assert (profile.argo if on_argo else profile.kubeflow).namespace == "team"
    assert profile.environment["MLFLOW_EXPERIMENT_NAME"] == "lmmpress"
    assert (profile.engine, profile.patience) == ("argo" if on_argo else "kubeflow", "30m" if case == "argo" else "10m")
    assert profile.log == ("json" if case == "argo" else "text")
    retries = profile.pod("distill").retries
    assert retries is not None
    assert (retries.count, retries.seconds, retries.factor) == (5 if case == "argo" else 2, 30, 2)
    assert profile.image in [container["image"] for pod in pods(objects).values() for container in containers(pod)]
    assert bool(profile.warnings()) == ("image" not in CASES[case][0]), "without a digest there is a warning"
    if case == "everything":
        path.write_text(one(objects, "ConfigMap", "press-lmmpress-cluster")["data"]["small.yaml"], "utf-8")
        small = read_profile(path)
        assert (small.pod("distill").gpus, small.pod("distill").shm, small.ttl) == (1, "4Gi", profile.ttl)
        assert profile.ttl == 2592000
        assert profile.pod("distill").gpus == 4
        assert profile.environment["NCCL_DEBUG"] == "INFO"
        assert profile.environment["AWS_CA_BUNDLE"] == "/kfp/certs/ca.crt"
        assert profile.cache.claim == one(objects, "PersistentVolumeClaim", "press-lmmpress-cache")["metadata"]["name"]
        assert profile.queue == one(objects, "LocalQueue", "lmmpress")["metadata"]["name"]
        assert profile.pull_secrets == ["registry"]
        plan = yaml.safe_load(one(objects, "ConfigMap", "press-lmmpress-plans")["data"]["antgmm.yaml"])
        assert parse_plan(plan).model == "s3://models/antgmm"
    trainings = [found["metadata"]["name"] for found in objects if found["kind"] == "ClusterTrainingRuntime"]
    assert trainings == ([profile.trainer.runtime] if case == "trainer" else [])
    if case == "trainer":
        assert profile.trainer.runtime == "team.press-lmmpress", "one for the whole cluster"
        assert profile.training is not None
        assert (profile.training.nodes, profile.training.gpus) == (2, 4)
        assert profile.queue == one(objects, "LocalQueue", "lmmpress")["metadata"]["name"]
    if case == "external":
        assert profile.secrets.mlflow is not None
        assert profile.secrets.mlflow.keys["username"] == "MLFLOW_TRACKING_USERNAME"
        assert profile.environment["AWS_ENDPOINT_URL"] == "https://s3.example.org:8443"
    if case == "argo":
        argo = profile.argo
        assert (argo.system, argo.instance, argo.ui) == ("workflows", "ads", "https://argo.example.org")
        assert (argo.deadline, argo.priority_class, argo.report) == (604800, "high", True)
        assert "AWS_CA_BUNDLE" not in profile.environment, "only Kubeflow puts a file there"
    if case == "database":
        assert profile.secrets.store is None, "the role of the service account"
        assert "AWS_ENDPOINT_URL" not in profile.environment


def test_kubeflows_plugin_gets_only_settings_that_it_knows() -> None:
    """Kubeflow Pipelines 2.17 refuses unknown settings."""
    known = {"experimentDescription", "defaultExperimentName", "injectUserEnvVars", "credentialSecretRef"}
    for case in ("everything", "external"):
        data = one(render(case), "ConfigMap", "kfp-launcher")["data"]
        said = json.loads(data["plugins.mlflow"])
        assert said.keys() == {"settings"}
        assert said["settings"].keys() <= known
        assert ("credentialSecretRef" in said["settings"]) == (case == "external")
    assert not [found for found in render("minimal") if found["metadata"]["name"] == "kfp-launcher"]


def test_a_training_finds_in_the_runtime_what_it_patches() -> None:
    objects = render("trainer")
    said = yaml.safe_load(one(objects, "ConfigMap", "press-lmmpress-cluster")["data"]["cluster.yaml"])
    manifest = training_manifest(Profile.model_validate(said))
    assert manifest is not None
    (found,) = (found for found in objects if found["kind"] == "ClusterTrainingRuntime")
    assert manifest["spec"]["runtimeRef"] == {"name": found["metadata"]["name"]}
    (job,) = found["spec"]["template"]["spec"]["replicatedJobs"]
    (patch,) = manifest["spec"]["runtimePatches"]
    (patched,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert patched["name"] == job["name"]
    pod, change = job["template"]["spec"]["template"], patched["template"]["spec"]["template"]
    names = [[container["name"] for container in one_of["spec"]["containers"]] for one_of in (pod, change)]
    assert names[0] == names[1]
    labels = pod["metadata"]["labels"]
    assert labels.items() <= (labels | change["metadata"]["labels"]).items(), "policies still select it"
    for key in ("serviceAccountName", "imagePullSecrets"):
        assert change["spec"][key] == pod["spec"][key]
    assert change["spec"]["securityContext"].items() <= pod["spec"]["securityContext"].items()
    assert {"name": "tmp", "mountPath": "/tmp"} in change["spec"]["containers"][0]["volumeMounts"]


def test_an_existing_runtime_is_named_and_none_is_made() -> None:
    values = {"trainer": {"enabled": True, "runtime": {"create": False, "name": "shared"}}}
    objects = parsed(render_text(values, ("trainer.kubeflow.org/v1alpha1",)))
    assert not [found for found in objects if found["kind"] == "ClusterTrainingRuntime"]
    said = yaml.safe_load(one(objects, "ConfigMap", "press-lmmpress-cluster")["data"]["cluster.yaml"])
    assert said["trainer"] == {"runtime": "shared"}
