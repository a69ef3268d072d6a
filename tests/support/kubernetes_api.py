"""The part of Kubernetes' API that the doctor uses, over real HTTP: a healthy cluster, in which a test breaks one
thing."""

import copy
import json
import threading
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.kubeconfig import write_kubeconfig

Object = dict[str, Any]
HOME = "/api/v1/namespaces/team-ads"
DEPLOYMENTS = "/apis/apps/v1/namespaces/kubeflow/deployments"
KUEUE = "/apis/kueue.x-k8s.io/v1beta1"
TRAINER = "/apis/trainer.kubeflow.org/v1alpha1"
RETRIED = {"templateDefaults": {"retryStrategy": {"limit": "2", "retryPolicy": "Always"}}}
REVIEWS = "/apis/authorization.k8s.io/v1"


@dataclass
class Raw:
    """An answer as it is: a status, a body, and whether it is cut off."""

    status: int
    body: bytes
    kind: str = "application/json"
    cut: int = 0


def refusal(status: int, message: str) -> Raw:
    told = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": status}
    return Raw(status, json.dumps(told).encode())


def listed(*items: Object) -> Object:
    return {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": list(items)}


def named(name: str, **parts: Any) -> Object:
    return {"metadata": {"name": name}} | parts


def secret(name: str, *keys: str) -> Object:
    return named(name, type="Opaque", data={key: b64encode(b"x").decode() for key in keys})


def node(name: str, gpus: int = 8, **spec: Any) -> Object:
    allocatable = {"cpu": "63500m", "memory": "500Gi", "pods": "110", "ephemeral-storage": "900Gi"}
    if gpus:
        allocatable["nvidia.com/gpu"] = str(gpus)
    taint = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
    return {
        "metadata": {"name": name, "labels": {"pool": "gpu", "gpu.kind": "H100", "kubernetes.io/hostname": name}},
        "spec": {"taints": [taint]} | spec,
        "status": {"allocatable": allocatable, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def pod(name: str, place: str, phase: str = "Running", **requests: str) -> Object:
    container = {
        "name": "main",
        "resources": {"requests": {key.replace("gpu", "nvidia.com/gpu"): requests[key] for key in requests}},
    }
    return named(name, spec={"nodeName": place, "containers": [container]}, status={"phase": phase})


def deployment(image: str, ready: int = 1) -> Object:
    spec = {"template": {"spec": {"containers": [{"image": image}]}}}
    return {"spec": spec, "status": {"readyReplicas": ready}}


def claim(storage_class: str = "nfs", phase: str = "Bound", mode: str = "ReadWriteMany") -> Object:
    return {
        "spec": {"storageClassName": storage_class, "accessModes": [mode]},
        "status": {"phase": phase, "capacity": {"storage": "500Gi"}},
    }


def resources(*names: str) -> Object:
    return {"kind": "APIResourceList", "resources": [{"name": name, "namespaced": True} for name in names]}


def training_schemas(*fields: str) -> Object:
    """How the API describes the trainings of Kubeflow Trainer, with the fields of their spec."""
    spec = {"type": "object", "properties": {name: {} for name in fields}}
    kind = {"group": "trainer.kubeflow.org", "kind": "TrainJob", "version": "v1alpha1"}
    job = {"properties": {"spec": spec}, "x-kubernetes-group-version-kind": [kind]}
    schemas = {"io.k8s.apimachinery.pkg.apis.meta.v1.Status": {}, "org.kubeflow.trainer.v1alpha1.TrainJob": job}
    return {"openapi": "3.0.0", "components": {"schemas": schemas}}


def training_runtime() -> Object:
    """What the chart makes, as far as the doctor reads it."""
    pod = {"spec": {"containers": [{"name": "node"}]}}
    labels = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    job = {"name": "node", "template": {"metadata": {"labels": labels}, "spec": {"template": pod}}}
    spec = {"mlPolicy": {"numNodes": 1, "torch": {}}, "template": {"spec": {"replicatedJobs": [job]}}}
    return named("lmmpress", spec=spec)


def active() -> Object:
    return {"conditions": [{"type": "Active", "status": "True"}]}


def healthy() -> dict[str, Any]:
    """The answers of a healthy cluster, by path."""
    login = {"auths": {"registry.example.com": {"auth": "eDp5"}}}
    flavor = {
        "name": "h100",
        "resources": [
            {"name": "cpu", "nominalQuota": "256"},
            {"name": "memory", "nominalQuota": "2Ti"},
            {"name": "nvidia.com/gpu", "nominalQuota": "16"},
        ],
    }
    covered = [{"coveredResources": ["cpu", "memory", "nvidia.com/gpu"], "flavors": [flavor]}]
    return {
        "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.2"},
        HOME: named("team-ads", status={"phase": "Active"}),
        "/apis/argoproj.io/v1alpha1": resources(
            "workflows", "workflows/status", "workflowtaskresults", "workflowtasksets"
        ),
        "/apis/kubeflow.org/v1beta1": resources("scheduledworkflows", "viewers"),
        f"{DEPLOYMENTS}/ml-pipeline": deployment("ghcr.io/kubeflow/kfp-api-server:2.17.0"),
        f"{DEPLOYMENTS}/ml-pipeline-persistenceagent": deployment("ghcr.io/kubeflow/kfp-persistence-agent:2.17.0"),
        f"{DEPLOYMENTS}/workflow-controller": deployment("quay.io/argoproj/workflow-controller:v3.7.3"),
        "/apis/apps/v1/namespaces/team-ads/deployments": listed(),
        DEPLOYMENTS: listed(named("workflow-controller", **deployment("quay.io/argoproj/workflow-controller:v3.7.3"))),
        "/api/v1/namespaces/kubeflow/configmaps/workflow-controller-configmap": named(
            "workflow-controller-configmap", data={"workflowDefaults": json.dumps({"spec": RETRIED})}
        ),
        f"{HOME}/serviceaccounts/lmmpress": named("lmmpress"),
        f"{HOME}/secrets/lmmpress-store": secret("lmmpress-store", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        f"{HOME}/secrets/lmmpress-mlflow": secret(
            "lmmpress-mlflow", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
        ),
        f"{HOME}/secrets/registry": named(
            "registry",
            type="kubernetes.io/dockerconfigjson",
            data={".dockerconfigjson": b64encode(json.dumps(login).encode()).decode()},
        ),
        f"{HOME}/persistentvolumeclaims/lmmpress-cache": claim(),
        f"{HOME}/persistentvolumeclaims/ads": claim(mode="ReadOnlyMany"),
        "/apis/storage.k8s.io/v1/storageclasses": listed(named("nfs", provisioner="nfs")),
        "/apis/storage.k8s.io/v1/storageclasses/nfs": named("nfs", volumeBindingMode="Immediate"),
        "/apis/kueue.x-k8s.io": {"kind": "APIGroup", "preferredVersion": {"version": "v1beta1"}},
        f"{KUEUE}/namespaces/team-ads/localqueues/gpu-team-ads": named(
            "gpu-team-ads", spec={"clusterQueue": "gpus"}, status=active()
        ),
        f"{KUEUE}/clusterqueues/gpus": named("gpus", spec={"resourceGroups": covered}, status=active()),
        TRAINER: resources("trainjobs", "trainjobs/status", "trainingruntimes", "clustertrainingruntimes"),
        f"/openapi/v3{TRAINER}": training_schemas("runtimeRef", "trainer", "runtimePatches", "suspend"),
        "/apis/jobset.x-k8s.io/v1alpha2": resources("jobsets", "jobsets/status"),
        f"{TRAINER}/clustertrainingruntimes/lmmpress": training_runtime(),
        f"{HOME}/resourcequotas": listed(),
        f"{HOME}/limitranges": listed(),
        "/api/v1/nodes": listed(node("gpu-1"), node("gpu-2")),
        "/api/v1/pods": listed(pod("serving", "gpu-1", cpu="4", memory="64Gi", gpu="2")),
    }


class Kubernetes:
    """Answers with `answers` by path: JSON, or a `Raw`. `denied` are the (verb, resource) that the user may not, and
    `denied_pods` those that the pods' service account may not. `token`, where it is set, is required."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = copy.deepcopy(healthy())
        self.denied: set[tuple[str, str]] = set()
        self.denied_pods: set[tuple[str, str]] = set()
        self.everything: Raw | None = None
        self.token: str | None = None
        self.asked: list[tuple[str, str]] = []
        self.jobs: dict[str, Object] = {}
        self.on_job: Callable[[Object], None] = lambda job: None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.host = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=lambda: self._server.serve_forever(0.05), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def kubeconfig(self, folder: Path, **user: Any) -> Path:
        return write_kubeconfig(folder, self.host, user)

    def answer(self, method: str, path: str, body: Any) -> Any:
        parts = urlsplit(path)
        self.asked.append((method, path))
        if self.everything is not None:
            return self.everything
        if path == f"{REVIEWS}/selfsubjectaccessreviews" and path not in self.answers:
            return self._review(body, self.denied)
        if parts.path.endswith("/localsubjectaccessreviews") and parts.path not in self.answers:
            assert body["spec"]["user"] == "system:serviceaccount:team-ads:lmmpress"
            return self._review(body, self.denied_pods)
        if parts.path.endswith(("/jobs", "/trainjobs")) and method == "POST" and parts.path not in self.answers:
            self.jobs[body["metadata"]["name"]] = body
            self.on_job(body)
            return body
        if "/jobs/" in parts.path or "/trainjobs/" in parts.path:
            job = self.jobs.get(parts.path.rpartition("/")[2])
            if job and method == "DELETE":
                del self.jobs[parts.path.rpartition("/")[2]]
            return job or refusal(404, "not found")
        found = self.answers.get(parts.path)
        if isinstance(found, dict) and "metadata" not in found and "spec" in found:
            found = named(parts.path.rpartition("/")[2]) | found
        after = parse_qs(parts.query).get("continue")
        if callable(found):
            return found(after[0] if after else None)
        return refusal(404, f"{parts.path} not found") if found is None else found

    @staticmethod
    def _review(body: Any, denied: set[tuple[str, str]]) -> Object:
        wanted = body["spec"]["resourceAttributes"]
        assert wanted["namespace"] == "team-ads"
        return dict(body) | {"status": {"allowed": (wanted["verb"], wanted["resource"]) not in denied}}


def _handler(cluster: Kubernetes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body at once: else each answer waits for an acknowledgement
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            if cluster.token and self.headers.get("Authorization") != f"Bearer {cluster.token}":
                found: Any = refusal(401, "Unauthorized")
            else:
                found = cluster.answer(self.command, self.path, body)
            raw = found if isinstance(found, Raw) else Raw(200, json.dumps(found).encode())
            self.send_response(raw.status)
            self.send_header("Content-Type", raw.kind)
            self.send_header("Content-Length", str(len(raw.body) + raw.cut))
            self.end_headers()
            self.wfile.write(raw.body)
            self.close_connection = bool(raw.cut)

        do_POST = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
