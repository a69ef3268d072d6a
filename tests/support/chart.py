"""The chart: its cases, and real Helm that renders them."""

import copy
import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from support.paths import ROOT
from support.real_helm import find_helm
from support.s3 import MiniStack

CHART = ROOT / "helm" / "lmmpress"
VERSIONS = ("1.28.0", "1.31.0", "1.34.0", "1.37.0")
APIS = ("monitoring.coreos.com/v1", "kueue.x-k8s.io/v1beta1", "gateway.networking.k8s.io/v1")
CUSTOM = {
    "ServiceMonitor": "everything",
    "PrometheusRule": "everything",
    "LocalQueue": "everything",
    "HTTPRoute": "trigger",
    "ClusterTrainingRuntime": "trainer",
}
"""Kinds that are not Kubernetes' own, and a case that has one."""
DIGEST = "sha256:" + "1" * 64
PLAN = {"model": "s3://models/antgmm", "data": "s3://models/maad", "stages": {"ffn": {"step": 768, "max": 6144}}}
SCHEDULED = {
    "nodeSelector": {"pool": "system"},
    "tolerations": [{"key": "system", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "priorityClassName": "high",
}
Values = dict[str, Any]
Object = dict[str, Any]
CASES: dict[str, tuple[Values, tuple[str, ...]]] = {
    "minimal": ({}, ()),
    "everything": (
        {
            "commonLabels": {"team": "ads"},
            "imagePullSecrets": ["registry"],
            "image": {"registry": "registry.example.org", "digest": DIGEST},
            "mlflow": SCHEDULED
            | {
                "replicas": 2,
                "allowedHosts": ["mlflow.example.org"],
                "tls": {"existingSecret": "mlflow-tls"},
                "extraEnv": {"MLFLOW_LOGGING_LEVEL": "DEBUG"},
                "podAnnotations": {"note": "a"},
                "podLabels": {"tier": "tracking"},
                "topologySpreadConstraints": [
                    {
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": {"matchLabels": {"app.kubernetes.io/component": "mlflow"}},
                    }
                ],
            },
            "postgresql": SCHEDULED
            | {"tls": {"existingSecret": "postgresql-tls"}, "persistence": {"storageClass": "fast"}},
            "minio": SCHEDULED | {"tls": {"existingSecret": "minio-tls"}, "persistence": {"storageClass": "slow"}},
            "ca": {"existingConfigMap": "authorities", "key": "all.pem"},
            "pipeline": {
                "serviceAccount": {"name": "compression", "annotations": {"role": "arn:of:a:role"}},
                "cache": {"enabled": True, "storageClass": "shared"},
            },
            "profile": {
                "ttl": 2592000,
                "defaults": {"requests": {"cpu": 4, "memory": "16Gi"}, "timeout": 86400},
                "components": {"distill": {"gpus": 4, "shm": "16Gi"}},
                "environment": {"NCCL_DEBUG": "INFO"},
            },
            "profiles": {"small": {"components": {"distill": {"gpus": 1, "shm": "4Gi"}}}},
            "plans": {"antgmm": PLAN},
            "kubeflow": {
                "host": "https://kubeflow.example.org/pipeline",
                "mlflowPlugin": {"enabled": True, "defaultPipelineRoot": "s3://kubeflow/root"},
            },
            "kueue": {"enabled": True, "clusterQueue": "gpus"},
            "prepare": SCHEDULED | {"serviceAccountAnnotations": {"role": "arn:of:another"}},
            "networkPolicy": {
                "scope": "namespace",
                "pipelineEgress": [{"to": [{"ipBlock": {"cidr": "10.3.0.0/16"}}], "ports": [{"port": 443}]}],
                "mlflowClients": [{"podSelector": {"matchLabels": {"app": "proxy"}}}],
                "minioClients": [{"podSelector": {"matchLabels": {"app": "notebook"}}}],
            },
            "monitoring": {"labels": {"release": "prometheus"}},
        },
        APIS,
    ),
    "external": (
        {
            "mlflow": {
                "enabled": False,
                "external": {"url": "https://mlflow.example.org", "existingSecret": "kfp-mlflow-credentials"},
            },
            "minio": {"enabled": False},
            "objectStorage": {"external": {"endpoint": "https://s3.example.org:8443"}, "existingSecret": "own-s3"},
            "kubeflow": {"mlflowPlugin": {"enabled": True}},
            "networkPolicy": {"objectStorage": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]},
        },
        (),
    ),
    "database": (
        {
            "postgresql": {
                "enabled": False,
                "external": {"host": "postgres.example.org", "port": 6432},
                "existingSecret": "own-database",
            },
            "ca": {"existingConfigMap": "authorities"},
            "minio": {"enabled": False},
            "networkPolicy": {"postgresql": [{"ipBlock": {"cidr": "10.2.0.0/16"}}], "objectStoragePorts": [9000]},
        },
        (),
    ),
    "airgapped": (
        {
            "imageRegistry": "mirror.example.org:5000/all",
            "imagePullSecrets": ["mirror"],
            "image": {"digest": DIGEST},
            "mlflow": {"image": {"digest": DIGEST}},
        },
        (),
    ),
    "argo": (
        {
            "engine": "argo",
            "argo": {
                "namespace": "workflows",
                "ui": "https://argo.example.org",
                "instance": "ads",
                "deadline": 604800,
                "priorityClassName": "high",
                "report": True,
                "submitters": [{"kind": "Group", "name": "ads", "apiGroup": "rbac.authorization.k8s.io"}],
            },
            "pipeline": {"patience": "30m", "log": "json", "retries": {"count": 5}, "cache": {"enabled": True}},
            "ca": {"existingConfigMap": "authorities"},
        },
        (),
    ),
    "trigger": (
        {
            "plans": {"antgmm": PLAN, "small": PLAN | {"store": "s3://lmmpress/store/small"}},
            "profiles": {"small": {"components": {"distill": {"gpus": 1}}}},
            "kubeflow": {"host": "https://kubeflow.example.org/pipeline"},
            "mlflow": {"webhooks": {"existingSecret": "mlflow-webhooks", "key": "fernet"}},
            "ca": {"existingConfigMap": "authorities"},
            "trigger": SCHEDULED
            | {
                "enabled": True,
                "settings": {
                    "models": {
                        "antgmm": {
                            "plans": {
                                "usual": {"plan": "plans/antgmm.yaml"},
                                "small": {"plan": "plans/small.yaml", "cluster": "clusters/small.yaml"},
                            },
                            "default": "usual",
                            "policy": {
                                "start": "window",
                                "window": {"opens": "0 22 * * *", "hours": 6, "zone": "Asia/Shanghai"},
                                "most_a_day": 2,
                            },
                        }
                    },
                    "server": {
                        "tokens": [{"name": "ci", "role": "operator", "file": "secrets/ci"}],
                        "webhook_secrets": [{"file": "secrets/webhook"}, {"file": "secrets/webhook-before"}],
                        "limits": {"request_bytes": 1048576},
                        "stop_seconds": 30,
                        "page": {
                            "address": "https://press.example.org",
                            "session_secret": {"file": "secrets/session"},
                            "oidc": {
                                "issuer": "https://login.example.org/realms/ads",
                                "client_id": "lmmpress",
                                "client_secret": {"file": "secrets/sign-in"},
                            },
                            "groups": {"ads-owners": "operator"},
                        },
                    },
                },
                "secrets": {
                    "session": {"secret": "trigger-page", "key": "session"},
                    "sign-in": {"secret": "trigger-page", "key": "client"},
                    "ci": {"secret": "trigger-tokens", "key": "ci"},
                    "webhook": {"secret": "trigger-webhook", "key": "new"},
                    "webhook-before": {"secret": "trigger-webhook", "key": "old"},
                },
                "serviceAccount": {"annotations": {"role": "arn:of:a:third"}},
                "ingress": {
                    "enabled": True,
                    "className": "nginx",
                    "host": "press.example.org",
                    "tlsSecret": "press-tls",
                    "annotations": {"note": "an ingress"},
                },
                "httpRoute": {
                    "enabled": True,
                    "parentRefs": [{"name": "gateway", "namespace": "gateways"}],
                    "hostnames": ["press.example.org"],
                    "annotations": {"note": "a route"},
                },
                "extraEnv": {"MLFLOW_HTTP_REQUEST_TIMEOUT": 20},
                "podAnnotations": {"note": "a"},
                "podLabels": {"tier": "trigger"},
                "topologySpreadConstraints": [
                    {
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": {"matchLabels": {"app.kubernetes.io/component": "trigger"}},
                    }
                ],
            },
            "networkPolicy": {
                "triggerClients": [
                    {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}
                ],
                "triggerEgress": [
                    {"to": [{"ipBlock": {"cidr": "10.4.0.0/16"}}], "ports": [{"port": 587}]},
                    {"to": [{"ipBlock": {"cidr": "10.5.0.1/32"}}], "ports": [{"port": 443}]},
                ],
            },
        },
        APIS,
    ),
    "trigger-argo": (
        {
            "engine": "argo",
            "plans": {"antgmm": PLAN},
            "trigger": {
                "enabled": True,
                "replicas": 2,
                "image": {"digest": DIGEST},
                "settings": {"models": {"antgmm": {"newest": True, "plans": {"usual": {"plan": "plans/antgmm.yaml"}}}}},
            },
        },
        (),
    ),
    "trainer": (
        {
            "imagePullSecrets": ["registry"],
            "image": {"digest": DIGEST},
            "trainer": {
                "enabled": True,
                "runtime": {
                    "podAnnotations": {"k8s.v1.cni.cncf.io/networks": "rdma"},
                    "podLabels": {"tier": "training"},
                    "priorityClassName": "high",
                },
            },
            "kueue": {"enabled": True, "clusterQueue": "gpus"},
            "profile": {"components": {"distill": {"nodes": 2, "gpus": 4, "shm": "16Gi"}}},
            "networkPolicy": {
                "pipelineEgress": [{"to": [{"ipBlock": {"cidr": "10.6.0.0/16"}}], "ports": [{"port": 443}]}],
            },
        },
        ("trainer.kubeflow.org/v1alpha1", "kueue.x-k8s.io/v1beta2"),
    ),
    "kueue": ({"kueue": {"enabled": True, "clusterQueue": "gpus", "localQueue": "team"}}, ("kueue.x-k8s.io/v1beta2",)),
}
in_all_cases = pytest.mark.parametrize("case", CASES)


@functools.cache
def program() -> tuple[Path | None, str]:
    return find_helm()


def unavailable(why: str) -> NoReturn:
    """Skip the test; in continuous integration, where everything must be tested, fail."""
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


def run_helm(*arguments: str, values: Values | None = None) -> subprocess.CompletedProcess[str]:
    helm, why = program()
    if helm is None:
        unavailable(why)
    command = [str(helm), *arguments]
    text = None
    if values is not None:
        command += ["--values", "-"]
        text = yaml.safe_dump(values)
    return subprocess.run(command, input=text, capture_output=True, text=True, encoding="utf-8", check=False)


def render_text(values: Values, apis: tuple[str, ...] = (), version: str = "1.34.0") -> str:
    command = ["template", "press", str(CHART), "--namespace", "team", "--kube-version", version]
    for api in apis:
        command += ["--api-versions", api]
    done = run_helm(*command, values=values)
    assert done.returncode == 0, done.stderr
    return done.stdout


def parsed(text: str) -> list[Object]:
    return [found for found in yaml.load_all(text, Strict) if found]


class Strict(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """Refuses duplicate keys, which YAML's loaders accept."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key is there twice: {keys}"
        return super().construct_mapping(node, deep)


@functools.cache
def _render(case: str, version: str) -> list[Object]:
    values, apis = CASES[case]
    return parsed(render_text(values, apis, version))


def render(case: str, version: str = "1.34.0") -> list[Object]:
    return copy.deepcopy(_render(case, version))


def pods(objects: list[Object]) -> dict[str, Object]:
    """The pods that objects make, by the object's name: metadata and spec."""
    found = {}
    for one in objects:
        if one["kind"] == "Pod":
            found[one["metadata"]["name"]] = one
        elif one["kind"] in ("Deployment", "StatefulSet", "Job"):
            found[one["metadata"]["name"]] = one["spec"]["template"]
    return found


def runtime(objects: list[Object]) -> Object:
    """The Job of the runtime of trainings: metadata and spec."""
    (found,) = (found for found in objects if found["kind"] == "ClusterTrainingRuntime")
    (job,) = found["spec"]["template"]["spec"]["replicatedJobs"]
    return dict(job["template"])


def containers(pod: Object) -> list[Object]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def one(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = (found for found in objects if found["kind"] == kind and found["metadata"]["name"] == name)
    return found


def run_script(name: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a file of the ConfigMap with the interpreter of the tests."""
    data = one(render("minimal"), "ConfigMap", "press-lmmpress-scripts")["data"]
    command = [sys.executable, "-c", data[f"{name}.py"]]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, encoding="utf-8", check=False, timeout=600
    )


def pod_environment(name: str, endpoint: str, server: MiniStack, **more: str) -> dict[str, str]:
    """The variables that a pod of the chart has, with this machine's addresses in place of services."""
    (pod,) = (pod for key, pod in pods(render("minimal")).items() if key.endswith(name))
    secrets = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
    secrets["PGPASSWORD"] = "a password"
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "MLFLOW_"))}
    for user in ("PIPELINE", "MLFLOW"):
        secrets |= {f"{user}_ACCESS_KEY_ID": f"key-of-{user}", f"{user}_SECRET_ACCESS_KEY": f"secret-of-{user}"}
    named = {one["name"]: one.get("value", secrets.get(one["name"])) for one in containers(pod)[0]["env"]}
    # the S3 server of the tests has no API for users: MinIO's is tried by itself
    return kept | named | {"AWS_ENDPOINT_URL": endpoint, "USERS": "{}"} | more
