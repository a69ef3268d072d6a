"""Checks bucket and MLflow from inside the cluster: a short Job with the image, Secrets and account of a task."""

import json
import re
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, replace

from lmmpress.doctor.external_services import ASKED, MARK, Addresses
from lmmpress.doctor.finding import Finding, failed, unknown
from lmmpress.doctor.names import resolvers_of
from lmmpress.doctor.pod_demands import account, home
from lmmpress.doctor.resolvers import mend_of
from lmmpress.host.pod import PART_LABEL
from lmmpress.pods.cluster_reader import Cluster, Node, UnseenError, at, mapping, mappings, text
from lmmpress.tasks.cluster_profile import Engine, Profile
from lmmpress.tasks.plain_scheduling import node_affinity, toleration

SECONDS = 300.0  # time limit for pulling the image and running the checks
PAUSE = 2.0
_STUCK = {
    "ErrImagePull": "check image and pull_secrets in the profile",
    "ImagePullBackOff": "check image and pull_secrets in the profile",
    "InvalidImageName": "check image in the profile",
    "CreateContainerConfigError": "check the names and keys in secrets of the profile",
    "CreateContainerError": "check the image: it has to have python3",
    "RunContainerError": "check the image: it has to have python3",
}


def check_from_inside(profile: Profile, cluster: Cluster, addresses: Addresses) -> list[Finding]:
    """Run the checks in a pod and return its findings; the Job is always removed afterwards."""
    namespace, job = home(profile), manifest(profile, addresses)
    job_name = str(at(job, "metadata", "name"))
    jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    try:
        cluster.post(jobs, job)
    except UnseenError as error:
        mend = f"kubectl auth can-i create jobs -n {namespace}; quotas and policies of {namespace}"
        return [failed("inside", f"the Job is refused: {error}", mend)]
    try:
        return _follow(cluster, namespace, job_name, jobs)
    finally:
        with suppress(UnseenError):
            cluster.delete(f"{jobs}/{job_name}")


def _follow(cluster: Cluster, namespace: str, job_name: str, jobs: str) -> list[Finding]:
    until, waits = time.monotonic() + SECONDS, "no pod was made"
    mend = f"kubectl describe job {job_name} -n {namespace} while `lmmpress doctor --inside` runs"
    while time.monotonic() < until:
        pods = cluster.items(f"/api/v1/namespaces/{namespace}/pods", labelSelector=f"job-name={job_name}")
        phase = text(at(pods, 0, "status", "phase"))
        if phase in ("Succeeded", "Failed"):
            return _read(cluster, namespace, text(at(pods, 0, "metadata", "name")), phase)
        for status in mappings(at(pods, 0, "status", "containerStatuses")):
            waiting = mapping(at(status, "state", "waiting"))
            reason = text(waiting.get("reason"))
            if reason in _STUCK:
                return [
                    failed(
                        "inside", f"the pod does not start: {reason}: {text(waiting.get('message'))}", _STUCK[reason]
                    )
                ]
            waits = reason or waits
        for condition in mappings(at(pods, 0, "status", "conditions")):
            if condition.get("reason") == "Unschedulable":
                waits = f"no node takes the pod: {text(condition.get('message'))}"
        if not pods:
            for condition in mappings(at(cluster.find(f"{jobs}/{job_name}"), "status", "conditions")):
                if condition.get("type") == "Failed" and condition.get("status") == "True":
                    return [failed("inside", f"the Job failed: {text(condition.get('message'))}", mend)]
        time.sleep(PAUSE)
    return [failed("inside", f"no answer after {SECONDS:.0f} s: {waits}", mend)]


def _read(cluster: Cluster, namespace: str, pod: str, phase: str) -> list[Finding]:
    """The findings that the pod has printed."""
    log = cluster.text(f"/api/v1/namespaces/{namespace}/pods/{pod}/log", tailLines="200")
    found = [one for line in log.splitlines() if line.startswith(MARK) and (one := _finding(line.removeprefix(MARK)))]
    if found:
        return [_with_resolvers(one, cluster) for one in found]
    if re.search("No module named '?lmmpress", log):
        mend = "build the image from this version of lmmpress, or name the right one in the profile"
        return [failed("inside", "the image has no doctor: it is older than this lmmpress, or a different image", mend)]
    last = next((line for line in reversed(log.splitlines()) if line.strip()), "it printed nothing")
    if phase == "Failed":
        return [failed("inside", f"the pod failed: {last}", "run the image by hand: kubectl run -it --rm")]
    return [unknown("inside", f"the pod ended without a finding: {last}")]


def _with_resolvers(finding: Finding, cluster: Cluster) -> Finding:
    """Add to a finding about names which value lets pods ask the resolver: that is seen from outside only."""
    if finding.status == "failed" and (addresses := resolvers_of(finding)):
        return replace(finding, mend=mend_of(addresses, cluster))
    return finding


def _finding(line: str) -> Finding | None:
    try:
        printed = json.loads(line)
    except (ValueError, RecursionError):
        return None
    parts = [text(mapping(printed).get(key)) for key in ("check", "status", "said", "mend")]
    name, status, said, mend = parts
    if status not in ("ok", "warning", "failed", "unknown"):
        return None
    return Finding(f"inside: {name}", status, said, mend)  # type: ignore[arg-type]


def manifest(profile: Profile, addresses: Addresses) -> Node:
    """The Job's manifest: image, account, Secrets and environment of a task, small requests, and a short lifetime."""
    pod = profile.pod("prepare")
    environment: list[Node] = [
        {"name": name, "value": value}
        for name, value in {"HOME": "/tmp", "LMMPRESS_CACHE": "/tmp/cache", **profile.environment}.items()
    ]
    environment.append({"name": ASKED, "value": json.dumps(asdict(addresses))})
    for secret in (profile.secrets.store, profile.secrets.mlflow):
        for key, name in secret.keys.items() if secret else ():
            reference = {"name": secret.name, "key": key}  # type: ignore[union-attr]
            environment.append({"name": name, "valueFrom": {"secretKeyRef": reference}})
    container = {
        "name": "doctor",
        "image": profile.image,
        "imagePullPolicy": profile.pull_policy,
        "command": ["python3", "-m", "lmmpress.doctor.external_services"],
        "env": environment,
        "resources": {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    spec: Node = {
        "restartPolicy": "Never",
        "serviceAccountName": account(profile),
        "securityContext": {
            "runAsUser": profile.security.user,
            "runAsGroup": profile.security.group,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        "imagePullSecrets": [{"name": name} for name in profile.pull_secrets],
    }
    if pod.node_selector:
        spec["nodeSelector"] = pod.node_selector
    if pod.tolerations:
        spec["tolerations"] = [toleration(one) for one in pod.tolerations]
    if affinity := node_affinity(pod.affinity or []):
        spec["affinity"] = affinity
    job_name = f"lmmpress-doctor-{uuid.uuid4().hex[:8]}"
    labels = {"app.kubernetes.io/name": "lmmpress-doctor"}
    # the labels by which policies select the pods of pipelines; Kubeflow's writer of metadata passes over such pods
    as_pipeline = {"workflows.argoproj.io/workflow": job_name, PART_LABEL: "doctor"}
    if profile.engine is Engine.kubeflow:
        as_pipeline["pipelines.kubeflow.org/v2_component"] = "true"
    queue = {"kueue.x-k8s.io/queue-name": profile.queue} if profile.queue else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": job_name, "labels": labels | queue},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": int(SECONDS),
            "ttlSecondsAfterFinished": 300,
            "template": {
                # Istio's proxy would keep the Job running after our container has ended
                "metadata": {"labels": labels | as_pipeline | {"sidecar.istio.io/inject": "false"}},
                "spec": spec,
            },
        },
    }
