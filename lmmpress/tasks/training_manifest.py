"""A cluster profile as the TrainJob of a distillation on several nodes; what it is called and which step it makes is
filled in when it begins."""

import json
import os
from typing import Any

from lmmpress.host.patience import PATIENCE
from lmmpress.host.pod import IMAGE, NODE, PART_LABEL, POD
from lmmpress.progress.log import LOG, LogForm
from lmmpress.tasks.cluster_profile import DISTILLS, Pod, Profile, Resources
from lmmpress.tasks.plain_scheduling import node_affinity, toleration

TRAINING = "LMMPRESS_TRAINING"
"""The variable with the manifest, in the pod of the task that begins and follows the training."""
CACHE = "/cache"
TASK = "distill_node"
"""The task that each node runs."""
TRAINS = (DISTILLS, "stage")
"""The components whose pods begin a training and follow it."""
CONTAINER, JOB = "node", "node"
"""What Kubeflow Trainer calls the container that trains, and its job in a runtime."""

Node = dict[str, Any]


def training_manifest(profile: Profile) -> Node | None:
    """The TrainJob, without name and arguments; None if one node distils."""
    pod = profile.training
    if pod is None:
        return None
    queue = {"kueue.x-k8s.io/queue-name": profile.queue} if profile.queue else {}
    trainer = {
        "image": profile.image,
        "command": ["lmmpress", "task", TASK],
        "env": _environment(profile),
        "numNodes": pod.nodes,
        "numProcPerNode": pod.gpus or 1,
        "resourcesPerNode": _resources(pod),
    }
    template = {"metadata": {"labels": {PART_LABEL: DISTILLS}}, "spec": _pod(profile, pod)}
    jobs = [{"name": JOB, "template": {"spec": {"template": template}}}]
    patch = {"manager": "lmmpress/distill", "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": jobs}}}}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"labels": {PART_LABEL: DISTILLS} | queue},
        "spec": {"runtimeRef": {"name": profile.trainer.runtime}, "trainer": trainer, "runtimePatches": [patch]},
    }


def training_variable(profile: Profile, component: str) -> dict[str, str]:
    """The variable that tells a component's pod of the training to begin; nothing if it distils by itself, or not at
    all."""
    manifest = training_manifest(profile) if component in TRAINS else None
    return {TRAINING: json.dumps(manifest, separators=(",", ":"))} if manifest else {}


def asked_training() -> Node | None:
    """The TrainJob that the profile of this pipeline asks for; None if this pod distils by itself."""
    text = os.environ.get(TRAINING)
    return json.loads(text) if text else None


def _environment(profile: Profile) -> list[Node]:
    given = {"HOME": "/tmp", "LMMPRESS_CACHE": CACHE, PATIENCE: profile.patience, IMAGE: profile.image}
    given |= {LOG: profile.log.value} if profile.log is not LogForm.text else {}
    found: list[Node] = [{"name": name, "value": value} for name, value in (given | profile.environment).items()]
    for name, path in {POD: "metadata.name", NODE: "spec.nodeName"}.items():
        found.append({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
    secret = profile.secrets.store  # nodes record nothing in MLflow
    for key, name in secret.keys.items() if secret else ():
        reference = {"name": secret.name, "key": key}  # type: ignore[union-attr]
        found.append({"name": name, "valueFrom": {"secretKeyRef": reference}})
    return found


def _resources(pod: Pod) -> Node:
    def of(given: Resources | None) -> Node:
        return given.model_dump(exclude_none=True) if given else {}

    gpus = {str(pod.gpu_type): str(pod.gpus)} if pod.gpus else {}
    found = {"requests": of(pod.requests), "limits": of(pod.limits) | gpus}
    return {key: value for key, value in found.items() if value}


def _pod(profile: Profile, pod: Pod) -> Node:
    volumes: dict[str, tuple[str, Node]] = {"tmp": ("/tmp", {"emptyDir": {}})}
    cache = profile.cache
    volumes["cache"] = (CACHE, _claim(cache.claim) if cache.claim else {"emptyDir": {"sizeLimit": cache.size}})
    if pod.shm or (pod.gpus or 0) > 1:
        volumes["shm"] = ("/dev/shm", {"emptyDir": {"medium": "Memory", "sizeLimit": pod.shm or "8Gi"}})
    for number, volume in enumerate(profile.volumes):
        volumes[f"volume-{number}"] = (volume.path, _claim(volume.claim))
    container = {
        "name": CONTAINER,
        "volumeMounts": [{"name": name, "mountPath": path} for name, (path, _) in volumes.items()],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
        },
    }
    found = {
        "serviceAccountName": profile.service_account,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": profile.security.user,
            "runAsGroup": profile.security.group,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [{"name": name} | source for name, (_, source) in volumes.items()],
        "containers": [container],
        "imagePullSecrets": [{"name": name} for name in profile.pull_secrets],
        "nodeSelector": pod.node_selector,
        "affinity": node_affinity(pod.affinity or []),
        "tolerations": [toleration(one) for one in pod.tolerations or []],
    }
    return {key: value for key, value in found.items() if value}


def _claim(name: str) -> Node:
    return {"persistentVolumeClaim": {"claimName": name}}
