"""Releases, on a server that keeps objects: secrets that survive, keys of old charts, notes."""

import copy
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.chart import CASES, CHART, Object, Values, containers, one, parsed, pods, render, render_text, run_helm
from support.kubernetes_objects import TRAINER, ObjectServer

from lmmpress.tasks.cluster_profile import Profile


@pytest.fixture
def kubernetes(tmp_path: Path) -> Iterator[ObjectServer]:
    server = ObjectServer(tmp_path)
    yield server
    server.close()
    assert server.unknown == []


def release(server: ObjectServer, *arguments: str, values: Values | None = None) -> subprocess.CompletedProcess[str]:
    command = [*arguments, "--kubeconfig", str(server.config), "--namespace", "team", "--no-hooks"]
    command += ["--qps", "1000", "--burst-limit", "1000"]
    if arguments[0] in ("install", "upgrade"):
        command.append("--disable-openapi-validation")
    return run_helm(*command, values=values)


OWN_SECRETS = ("store", "pipeline-store", "mlflow-store", "postgresql")


def test_secrets_survive_upgrade_rollback_and_removal(kubernetes: ObjectServer) -> None:
    def done(*arguments: str, values: Values | None = None) -> None:
        result = release(kubernetes, *arguments, values=values)
        assert result.returncode == 0, result.stderr

    def secrets() -> list[dict[str, str]]:
        return [kubernetes.secret("team", f"lmmpress-{name}") for name in OWN_SECRETS]

    def workers() -> str:
        (found,) = (found for found in kubernetes.objects.values() if found["kind"] == "Deployment")
        arguments = found["spec"]["template"]["spec"]["containers"][0]["args"]
        return str(arguments[arguments.index("--workers") + 1])

    done("install", "lmmpress", str(CHART))
    first = secrets()
    assert [sorted(len(value) for value in one.values()) for one in first] == [[20, 40], [20, 40], [20, 40], [40]]
    assert len({value for one in first for value in one.values()}) == 7, "nobody has what is another's"
    before = copy.deepcopy(kubernetes.objects)
    done("upgrade", "lmmpress", str(CHART))
    for path, found in kubernetes.objects.items():
        if "helm.sh.release" not in path and "/secrets/sh.helm" not in path:
            assert {key: value for key, value in found.items() if key != "metadata"} == {
                key: value for key, value in before[path].items() if key != "metadata"
            }, path
    done("upgrade", "lmmpress", str(CHART), values={"mlflow": {"workers": 5}})
    assert (secrets(), workers()) == (first, "5")
    done("rollback", "lmmpress", "1")
    assert (secrets(), workers()) == (first, "2")
    done("uninstall", "lmmpress")
    assert kubernetes.named("Secret") == {f"lmmpress-{name}" for name in OWN_SECRETS}
    assert {found["kind"] for found in kubernetes.objects.values()} == {"Secret"}
    done("install", "lmmpress", str(CHART))
    assert secrets() == first


def test_mlflow_can_read_the_secrets_of_its_webhooks_after_an_upgrade(kubernetes: ObjectServer) -> None:
    values = CASES["trigger-argo"][0]
    keys: list[str] = []
    for command in ("install", "upgrade", "uninstall", "install"):
        arguments = [command, "lmmpress", *([] if command == "uninstall" else [str(CHART)])]
        result = release(kubernetes, *arguments, values=None if command == "uninstall" else values)
        assert result.returncode == 0, result.stderr
        keys += kubernetes.secret("team", "lmmpress-mlflow-webhooks").values()
    assert len(keys) == 4
    assert len(set(keys)) == 1


def test_the_notes_say_where_mlflow_delivers_to(kubernetes: ObjectServer) -> None:
    values = copy.deepcopy(CASES["trigger"][0])
    values["trigger"]["ingress"]["enabled"] = False  # the server keeps no such objects
    result = release(kubernetes, "install", "lmmpress", str(CHART), values=values)
    assert result.returncode == 0, result.stderr
    assert "http://lmmpress-trigger.team.svc.cluster.local:8080/webhooks/mlflow" in result.stdout
    assert "The trigger watches antgmm." in result.stdout
    assert "trigger.image.digest is empty" in result.stdout
    assert "this cluster has no Gateway API" in result.stdout
    assert "networkPolicy.triggerClients is empty" not in result.stdout


def secret(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


def test_a_secret_that_lacks_its_key_is_not_replaced(kubernetes: ObjectServer) -> None:
    kubernetes.put("team", secret("lmmpress-postgresql", other="eA=="))
    result = release(kubernetes, "install", "lmmpress", str(CHART))
    assert result.returncode != 0
    assert "Secret lmmpress-postgresql exists but has no key password" in result.stderr
    assert kubernetes.named("Secret") == {"lmmpress-postgresql"}


def test_kubeflows_copy_of_mlflows_credentials(kubernetes: ObjectServer) -> None:
    kubernetes.put("team", secret("own", username="bWU=", password="cGFzcw==", other="eA=="))
    values = copy.deepcopy(CASES["external"][0])
    values["mlflow"]["external"]["existingSecret"] = "own"
    result = release(kubernetes, "install", "lmmpress", str(CHART), values=values)
    assert result.returncode == 0, result.stderr
    assert kubernetes.secret("team", "kfp-mlflow-credentials") == {"username": "me", "password": "pass"}
    assert "me" not in result.stdout.split()
    assert "pass" not in result.stdout.split()


def test_pipelines_and_mlflow_never_have_the_keys_of_minio_itself() -> None:
    objects = render("everything")
    root = {"press-lmmpress-minio", "press-lmmpress-prepare"}
    for name, pod in pods(objects).items():
        named = {
            variable["name"]: variable["valueFrom"]["secretKeyRef"]["name"]
            for container in containers(pod)
            for variable in container["env"]
            if "valueFrom" in variable
        }
        assert ("press-lmmpress-store" in named.values()) == (name in root), name
        if name.endswith(("check-store", "check-mlflow")):
            assert named["AWS_ACCESS_KEY_ID"] == "press-lmmpress-pipeline-store", "what a task has"
        if name.endswith("lmmpress-mlflow"):
            assert named["AWS_ACCESS_KEY_ID"] == "press-lmmpress-mlflow-store"
    data = one(objects, "ConfigMap", "press-lmmpress-cluster")["data"]
    secret = Profile.model_validate(yaml.safe_load(data["cluster.yaml"])).secrets.store
    assert secret is not None
    assert secret.name == "press-lmmpress-pipeline-store"
    assert "press-lmmpress-store" not in json.dumps(data)


def test_existing_secrets_take_precedence_over_those_of_the_chart() -> None:
    values: Values = {
        "pipeline": {"existingSecret": "ours"},
        "mlflow": {"artifacts": {"existingSecret": "servers"}},
        "objectStorage": {"existingSecret": "root"},
    }
    objects = parsed(render_text(values))
    assert {found["metadata"]["name"] for found in objects if found["kind"] == "Secret"} == {
        "press-lmmpress-postgresql"
    }
    for pod, variable, secret in (
        ("press-lmmpress-minio", "MINIO_ROOT_USER", "root"),
        ("press-lmmpress-prepare", "AWS_ACCESS_KEY_ID", "root"),
        ("press-lmmpress-prepare", "PIPELINE_ACCESS_KEY_ID", "ours"),
        ("press-lmmpress-prepare", "MLFLOW_ACCESS_KEY_ID", "servers"),
        ("press-lmmpress-check-store", "AWS_ACCESS_KEY_ID", "ours"),
        ("press-lmmpress-mlflow", "AWS_ACCESS_KEY_ID", "servers"),
    ):
        (found,) = (entry for entry in containers(pods(objects)[pod])[0]["env"] if entry["name"] == variable)
        assert found["valueFrom"]["secretKeyRef"]["name"] == secret, (pod, variable)
    # an outside server: one Secret for all, or one for each
    outside = {"minio": {"enabled": False}, "objectStorage": {"existingSecret": "all"}}
    for more, pipelines, server in (({}, "all", "all"), ({"pipeline": {"existingSecret": "ours"}}, "ours", "all")):
        objects = parsed(render_text(outside | more))
        check, tracking = (
            containers(pods(objects)[f"press-lmmpress-{name}"])[0]["env"] for name in ("check-store", "mlflow")
        )
        for env, name in ((check, pipelines), (tracking, server)):
            (found,) = (entry for entry in env if entry["name"] == "AWS_ACCESS_KEY_ID")
            assert found["valueFrom"]["secretKeyRef"]["name"] == name
        assert "USERS" not in [entry["name"] for entry in containers(pods(objects)["press-lmmpress-prepare"])[0]["env"]]


def test_an_upgrade_from_one_shared_pair_of_keys_makes_the_others_and_says_so(kubernetes: ObjectServer) -> None:
    assert release(kubernetes, "install", "lmmpress", str(CHART)).returncode == 0
    root = kubernetes.secret("team", "lmmpress-store")
    # as an earlier chart left it: one Secret, which pipelines that were compiled then still name
    for path in [
        path for path in kubernetes.objects if path.endswith(("/lmmpress-pipeline-store", "/lmmpress-mlflow-store"))
    ]:
        del kubernetes.objects[path]
    done = release(kubernetes, "upgrade", "lmmpress", str(CHART))
    assert done.returncode == 0, done.stderr
    assert "pipelines have their own keys, in the Secret lmmpress-pipeline-store" in done.stdout
    assert "use the root keys of MinIO, in the Secret lmmpress-store, and still" in done.stdout
    assert kubernetes.secret("team", "lmmpress-store") == root
    made = [kubernetes.secret("team", f"lmmpress-{name}") for name in OWN_SECRETS]
    again = release(kubernetes, "upgrade", "lmmpress", str(CHART))
    assert "keys of their own" not in again.stdout, "once"
    assert [kubernetes.secret("team", f"lmmpress-{name}") for name in OWN_SECRETS] == made


def test_the_notes_show_the_next_commands(kubernetes: ObjectServer) -> None:
    result = release(kubernetes, "install", "lmmpress", str(CHART), values=CASES["everything"][0])
    assert result.returncode == 0, result.stderr
    for line in (
        "helm test lmmpress -n team",
        "kubectl get configmap lmmpress-cluster -n team -o jsonpath='{.data.cluster\\.yaml}' > cluster.yaml",
        "kubectl get configmap lmmpress-plans -n team -o jsonpath='{.data.antgmm\\.yaml}' > plan.yaml",
        "lmmpress submit plan.yaml --cluster cluster.yaml --set store=s3://lmmpress/store --wait",
        "WARNING: Kueue is not installed in this cluster",
    ):
        assert line in result.stdout
    assert "image.digest is empty" not in result.stdout


CLAIM = "/api/v1/namespaces/team/persistentvolumeclaims/lmmpress-cache"
CACHED: Values = {"pipeline": {"cache": {"enabled": True, "storageClass": "shared"}}}


def test_the_cache_outlives_its_release_and_is_taken_over(kubernetes: ObjectServer) -> None:
    assert release(kubernetes, "install", "lmmpress", str(CHART), values=CACHED).returncode == 0
    first = kubernetes.objects[CLAIM]["metadata"]["uid"]
    assert release(kubernetes, "uninstall", "lmmpress").returncode == 0
    assert CLAIM in kubernetes.objects
    again = release(kubernetes, "install", "lmmpress", str(CHART), values=CACHED)
    assert again.returncode == 0, again.stderr
    assert kubernetes.objects[CLAIM]["metadata"]["uid"] == first
    # also from a release that no longer wants it
    assert release(kubernetes, "upgrade", "lmmpress", str(CHART)).returncode == 0
    assert CLAIM in kubernetes.objects


def test_a_claim_that_cannot_be_taken_over_is_refused_with_one_line(kubernetes: ObjectServer) -> None:
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "lmmpress-cache"}}
    kubernetes.put("team", claim | {"spec": {"storageClassName": "old"}})
    refused = release(kubernetes, "install", "lmmpress", str(CHART), values=CACHED)
    assert refused.returncode != 0
    assert 'has the storage class "old", and pipeline.cache.storageClass is "shared"' in refused.stderr
    kubernetes.objects[CLAIM]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    refused = release(kubernetes, "install", "lmmpress", str(CHART), values=CACHED)
    assert refused.returncode != 0
    assert "claim lmmpress-cache of namespace team is being deleted" in refused.stderr
    assert "kubectl describe pvc lmmpress-cache -n team names the pods" in refused.stderr
    assert not kubernetes.named("Deployment"), "nothing is begun"


RUNTIME = "/apis/trainer.kubeflow.org/v1alpha1/clustertrainingruntimes/team.lmmpress"


def trains(restarts: int) -> Values:
    return {"trainer": {"enabled": True, "runtime": {"maxRestarts": restarts}}}


def test_the_runtime_of_trainings_comes_and_goes_with_its_release(kubernetes: ObjectServer) -> None:
    kubernetes.kinds |= TRAINER
    for command in ("install", "upgrade"):
        result = release(kubernetes, command, "lmmpress", str(CHART), values=trains(3))
        assert result.returncode == 0, result.stderr
        assert "Kubeflow Trainer is not installed" not in result.stdout
        assert kubernetes.named("ClusterTrainingRuntime") == {"team.lmmpress"}
    without = release(kubernetes, "upgrade", "lmmpress", str(CHART), values={"trainer": {"enabled": False}})
    assert without.returncode == 0, without.stderr
    assert not kubernetes.named("ClusterTrainingRuntime")
    assert release(kubernetes, "upgrade", "lmmpress", str(CHART), values=trains(3)).returncode == 0
    assert release(kubernetes, "uninstall", "lmmpress").returncode == 0
    assert not kubernetes.named("ClusterTrainingRuntime")


def test_restarts_that_kubernetes_does_not_change_are_refused_with_one_line(kubernetes: ObjectServer) -> None:
    """In the definition of a runtime the failure policy is immutable."""
    kubernetes.kinds |= TRAINER
    assert release(kubernetes, "install", "lmmpress", str(CHART), values=trains(3)).returncode == 0
    refused = release(kubernetes, "upgrade", "lmmpress", str(CHART), values=trains(5))
    assert refused.returncode != 0
    assert "ClusterTrainingRuntime team.lmmpress has maxRestarts 3, and trainer.runtime.maxRestarts is 5" in (
        refused.stderr
    )
    del kubernetes.objects[RUNTIME]
    again = release(kubernetes, "upgrade", "lmmpress", str(CHART), values=trains(5))
    assert again.returncode == 0, again.stderr
    assert kubernetes.objects[RUNTIME]["spec"]["template"]["spec"]["failurePolicy"]["maxRestarts"] == 5


def test_the_notes_say_that_there_is_no_trainer(kubernetes: ObjectServer) -> None:
    result = release(kubernetes, "install", "lmmpress", str(CHART), values=trains(3))
    assert result.returncode == 0, result.stderr
    assert "WARNING: Kubeflow Trainer is not installed in this cluster" in result.stdout
    kubernetes.kinds |= TRAINER
    result = release(kubernetes, "upgrade", "lmmpress", str(CHART), values=trains(3))
    assert kubernetes.named("ClusterTrainingRuntime") == {"team.lmmpress"}
    assert "Kubeflow Trainer is not installed" not in result.stdout


def test_the_notes_say_who_may_submit_to_argo(kubernetes: ObjectServer) -> None:
    result = release(kubernetes, "install", "lmmpress", str(CHART), values={"engine": "argo"})
    assert result.returncode == 0, result.stderr
    for line in (
        "looked for in namespace argo.",
        "WARNING: this cluster has no Argo Workflows",
        "kubectl create rolebinding lmmpress-submit -n team --role=lmmpress-submit --user=...",
        "kubectl logs -n team deployment/lmmpress-mlflow -c migrate --tail 1",
    ):
        assert line in result.stdout
    result = release(kubernetes, "upgrade", "lmmpress", str(CHART), values=CASES["argo"][0])
    assert "with instanceID ads" in result.stdout
    assert "Nobody but administrators" not in result.stdout
    assert "WARNING: ca.pathInPipelines is a path where only Kubeflow puts a file" in result.stdout
