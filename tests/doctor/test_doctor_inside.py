"""The doctor's checks from inside the cluster: a Job starts a pod with the Secrets."""

import json
import os
import re
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.findings import Json, findings, only
from support.kubernetes_api import HOME, Kubernetes, Raw, listed, named, refusal, secret
from support.mlflow_stub import Mlflow
from support.plans import PLAN, PROFILE
from typer.testing import CliRunner

from lmmpress.cli.app import app
from lmmpress.doctor.external_services import Addresses, as_pods_see
from lmmpress.doctor.in_cluster import check_from_inside, manifest
from lmmpress.pods.cluster_reader import connect
from lmmpress.tasks.cluster_profile import Profile

pytestmark = pytest.mark.usefixtures("bare_environment")


INSIDE = PROFILE | {"kubeflow": {"namespace": "team-ads"}}


WITH_A_RESOLVER = """
import runpy, socket
ask = socket.getaddrinfo
def answer(host, *rest, **more):
    if str(host).endswith(".cluster.local."):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return ask(host, *rest, **more)
socket.getaddrinfo = answer
runpy.run_module("{name}", run_name="__main__")
"""
"""The cluster's resolver, which this machine has not: it answers that there is no such name."""


def as_kubelet(cluster: Kubernetes, own: dict[str, str] | None = None) -> Callable[[Json], None]:
    """Run the container of a Job as a process, with its environment and the values of its Secrets, and keep its log."""

    def start(job: Json) -> None:
        spec = job["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        for one in container["env"]:
            if "value" in one:
                environment[one["name"]] = one["value"]
            else:
                reference = one["valueFrom"]["secretKeyRef"]
                data = cluster.answers[f"{HOME}/secrets/{reference['name']}"]["data"][reference["key"]]
                environment[one["name"]] = b64decode(data).decode()
        python, module, name = container["command"]
        assert (python, module) == ("python3", "-m")
        done = subprocess.run(
            [sys.executable, "-c", WITH_A_RESOLVER.format(name=name)],
            env=environment | (own or {}),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=600,
        )
        phase = "Succeeded" if done.returncode == 0 else "Failed"
        ended(cluster, phase, done.stdout + done.stderr)

    return start


def ended(cluster: Kubernetes, phase: str, log: str, **status: Any) -> None:
    cluster.answers[f"{HOME}/pods"] = listed(named("doctor-x", status={"phase": phase} | status))
    cluster.answers[f"{HOME}/pods/doctor-x/log"] = Raw(200, log.encode(), "text/plain")


def test_the_pod_inside_checks_bucket_and_mlflow_with_the_secrets(
    cluster: Kubernetes, mlflow: Mlflow, new_bucket: Callable[[], str], s3_server: Any, tmp_path: Path
) -> None:
    address = new_bucket()
    keys = {"AWS_ACCESS_KEY_ID": s3_server.access_key, "AWS_SECRET_ACCESS_KEY": s3_server.secret_key}
    held = secret("lmmpress-store") | {"data": {key: b64encode(keys[key].encode()).decode() for key in keys}}
    cluster.answers[f"{HOME}/secrets/lmmpress-store"] = held
    cluster.on_job = as_kubelet(cluster)
    inner = {"AWS_ENDPOINT_URL": s3_server.endpoint, "MLFLOW_TRACKING_URI": mlflow.host}
    plan, profile = PLAN | {"model": "/data/antgmm", "store": address}, INSIDE | {"environment": inner}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan), "utf-8")
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(profile), "utf-8")
    command = ["doctor", "--cluster", str(tmp_path / "cluster.yaml"), "--plan", str(tmp_path / "plan.yaml")]
    found = CliRunner().invoke(app, [*command, "--inside", "--json"])
    told = {one["check"]: one for one in findings(found)}
    assert told["permission to look inside"]["status"] == "ok"
    assert told["inside: names"]["status"] == "ok", told
    assert told[f"inside: store {address}"]["status"] == "ok", told
    assert told[f"inside: MLflow {mlflow.host}"]["said"] == "MLflow 3.17.2, its registry answers"
    assert any("Basic" in headers.get("Authorization", "") for headers in mlflow.headers)
    assert found.exit_code == 0
    assert cluster.jobs == {}
    assert s3_server.secret_key not in found.stdout


def test_the_check_inside_imports_only_what_the_image_has() -> None:
    code = "import sys, lmmpress.doctor.external_services; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8"
    ).stdout.split()
    assert "lmmpress.doctor.external_services" in loaded
    assert {"kubernetes", "kfp", "torch", "mlflow"}.isdisjoint(loaded)


def test_the_job_fits_restricted_namespaces_and_holds_no_secret() -> None:
    job = manifest(Profile.model_validate(INSIDE), Addresses(store="s3://b/s"))
    spec = job["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert (job["spec"]["backoffLimit"], spec["restartPolicy"]) == (0, "Never")
    assert spec["serviceAccountName"] == "lmmpress"
    assert spec["nodeSelector"] == {"pool": "gpu"}
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu-team-ads"
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert labels["workflows.argoproj.io/workflow"] == job["metadata"]["name"], "under the policies of pipelines"
    assert "workflows.argoproj.io/workflow" not in job["metadata"]["labels"]
    assert "workflows.argoproj.io/completed" not in labels, "Argo's controller leaves it alone"
    named_only = [one for one in container["env"] if re.search("KEY|PASSWORD|SECRET", one["name"])]
    assert len(named_only) == 3
    assert all(set(one) == {"name", "valueFrom"} for one in named_only)


JOBS = f"/apis/batch/v1{HOME.removeprefix('/api/v1')}/jobs"
STUCK: dict[str, tuple[Callable[[Kubernetes], Any], str, str]] = {
    "refused": (
        lambda k: k.answers.update({JOBS: refusal(403, "exceeded quota: team")}),
        "the Job is refused: HTTP 403: exceeded quota: team",
        "kubectl auth can-i create jobs -n team-ads",
    ),
    "image": (
        lambda k: ended(
            k,
            "Pending",
            "",
            containerStatuses=[{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "unauthorized"}}}],
        ),
        "ImagePullBackOff: unauthorized",
        "pull_secrets",
    ),
    "node": (
        lambda k: ended(k, "Pending", "", conditions=[{"reason": "Unschedulable", "message": "0/2 nodes"}]),
        "no node takes the pod: 0/2 nodes",
        "kubectl describe job",
    ),
    "old image": (
        lambda k: ended(k, "Failed", "python3: No module named lmmpress.doctor"),
        "older than this lmmpress",
        "build the image",
    ),
    "crash": (lambda k: ended(k, "Failed", "Killed\n\n"), "the pod failed: Killed", "run the image by hand"),
}


@pytest.mark.parametrize("broken", STUCK)
def test_the_reason_why_a_pod_reports_nothing_is_found(
    broken: str, cluster: Kubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmmpress.doctor.in_cluster.SECONDS", 0.3)
    change, said, mend = STUCK[broken]
    change(cluster)
    one = only(check_from_inside(Profile.model_validate(INSIDE), connect(), Addresses()))
    assert (one.check, one.status) == ("inside", "failed")
    assert said in one.said
    assert mend in one.mend
    assert cluster.jobs == {}


def test_no_job_is_started_without_the_right_to(cluster: Kubernetes, mlflow: Mlflow, tmp_path: Path) -> None:
    cluster.denied = {("create", "jobs")}
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(INSIDE), "utf-8")
    found = CliRunner().invoke(app, ["doctor", "--cluster", str(tmp_path / "cluster.yaml"), "--inside", "--json"])
    assert found.exit_code == 1
    told = [one for one in findings(found) if one["status"] == "failed"]
    assert [one["check"] for one in told] == ["permission to look inside"]
    assert not [path for method, path in cluster.asked if method == "POST" and path.endswith("/jobs")]
    assert "--plan PLAN.yaml" in json.dumps(findings(found))  # no plan says which bucket


def test_the_environment_of_pods_fills_in_what_the_own_environment_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://here")
    before = dict(os.environ)
    with as_pods_see({"MLFLOW_TRACKING_URI": "http://there", "AWS_ENDPOINT_URL": "http://s3"}):
        assert os.environ["MLFLOW_TRACKING_URI"] == "http://here"
        assert os.environ["AWS_ENDPOINT_URL"] == "http://s3"
    assert dict(os.environ) == before
