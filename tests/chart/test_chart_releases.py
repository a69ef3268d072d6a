"""Releases, on a server that keeps objects: secrets that survive, keys of old charts, notes."""

import copy
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.chart import CASES, CHART, Object, Values, containers, one, parsed, pods, render, render_text, run_helm
from support.kubernetes_objects import ObjectServer

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
