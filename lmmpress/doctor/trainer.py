"""Checks Kubeflow Trainer, where several nodes distil: its kinds, its version, the runtime, shared memory."""

from lmmpress.doctor.finding import Finding, failed, ok, unknown, warning
from lmmpress.doctor.kubeflow import served
from lmmpress.pods.cluster_reader import Cluster, Node, at, mapping, mappings, text
from lmmpress.pods.trainings import API
from lmmpress.tasks.cluster_profile import Profile
from lmmpress.tasks.training_manifest import CONTAINER, JOB

_ANCESTOR = "trainer.kubeflow.org/trainjob-ancestor-step"
_TRAINER = "trainer"
"""The label of the job of a training's nodes, and its value."""
_INSTALL = "https://www.kubeflow.org/docs/components/trainer/operator-guides/installation"


def check_trainer(profile: Profile, cluster: Cluster) -> list[Finding]:
    """Check that the cluster has Kubeflow Trainer with JobSet, and that its trainings take patches of their runtime,
    which came with 2.2. Every user of the cluster may read that."""
    if profile.training is None:
        return []
    jobset = served("JobSet", "jobset.x-k8s.io", "v1alpha2", ("jobsets",), _INSTALL, cluster)
    kinds = ("trainjobs", "clustertrainingruntimes")
    _, _, group, version = API.split("/")
    trainer = served("Kubeflow Trainer", group, version, kinds, _INSTALL, cluster)
    return [jobset, trainer, *([_version(cluster)] if trainer.status == "ok" else [])]


def _version(cluster: Cluster) -> Finding:
    name = "Kubeflow Trainer"
    answer = cluster.find(f"/openapi/v3{API}")
    schemas = [mapping(one) for one in mapping(at(answer, "components", "schemas")).values()]
    of_trainings = [one for one in schemas if "TrainJob" in _kinds(one)]
    fields = mapping(at(of_trainings, 0, "properties", "spec", "properties"))
    if not fields:
        mend = "kubectl explain trainjob.spec.runtimePatches shows whether it is 2.2 or newer"
        return unknown(name, "its version is not seen: the API does not describe its trainings", mend)
    if "runtimePatches" not in fields:
        mend = f"upgrade Kubeflow Trainer to 2.2 or newer: {_INSTALL}"
        return failed(name, "is older than 2.2: a TrainJob takes no runtimePatches", mend)
    return ok(name, "2.2 or newer: a TrainJob takes runtimePatches")


def _kinds(schema: Node) -> set[str]:
    return {text(one.get("kind")) for one in mappings(schema.get("x-kubernetes-group-version-kind"))}


def check_runtime(profile: Profile, cluster: Cluster) -> list[Finding]:
    """Check that the runtime of trainings exists, and is one for processes of torch that our trainings can patch."""
    if profile.training is None:
        return []
    runtime = profile.trainer.runtime
    name, change = f"runtime {runtime}", "trainer.enabled in the chart's values makes one that fits"
    answer = cluster.named(f"{API}/clustertrainingruntimes/{runtime}")
    if answer is None:
        mend = f"{change}; kubectl get clustertrainingruntimes lists the existing ones: name one in trainer.runtime"
        return [failed(name, "there is no such ClusterTrainingRuntime", mend)]
    if at(answer, "metadata", "deletionTimestamp"):
        mend = f"kubectl get trainjobs -A: it goes when none names it any more; then {change}"
        return [failed(name, "is being deleted", mend)]
    if not isinstance(at(answer, "spec", "mlPolicy", "torch"), dict):
        said = "is not for torch: without spec.mlPolicy.torch its pods do not know of each other"
        return [failed(name, said, change)]
    jobs = mappings(at(answer, "spec", "template", "spec", "replicatedJobs"))
    job = mapping(next((one for one in jobs if one.get("name") == JOB), None))
    containers = mappings(at(job, "template", "spec", "template", "spec", "containers"))
    if CONTAINER not in [one.get("name") for one in containers]:
        return [failed(name, f"has no replicatedJob {JOB} with a container {CONTAINER}, which trainings patch", change)]
    if at(job, "template", "metadata", "labels", _ANCESTOR) != _TRAINER:
        said = f"its replicatedJob {JOB} lacks the label {_ANCESTOR}: {_TRAINER}, so a training would not set its nodes"
        return [failed(name, said, change)]
    return [ok(name, f"a runtime for torch with the replicatedJob {JOB}")]


def check_shared_memory(profile: Profile, cluster: Cluster) -> list[Finding]:
    """Warn where the pods of a training have only the /dev/shm of a container. With several GPUs in a pod lmmpress
    mounts a larger one by itself."""
    training = profile.training
    if training is None or not training.gpus:
        return []
    name = "shared memory"
    if training.shm or training.gpus > 1:
        return [ok(name, f"/dev/shm of {training.shm or '8Gi'} in each pod of a training")]
    said = "/dev/shm is the container's own, mostly 64Mi, which is little for NCCL between nodes"
    return [warning(name, said, "set components.distill.shm in the profile, such as 8Gi")]
