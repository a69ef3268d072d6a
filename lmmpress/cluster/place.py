"""A profile applied to the tasks of a pipeline as it is compiled."""

from kfp import kubernetes
from kfp.dsl.pipeline_task import PipelineTask

from lmmpress.cluster.profile import ON_GPU, Pod, Profile

CACHE = "/cache"
_LONGER_THAN_ANY_TASK = "31536000s"
"""Backing off ends this long after the *first* try began, and its pod with it: a year, so that it never does."""


def place(task: PipelineTask, profile: Profile) -> PipelineTask:
    """Give a task's pod what the profile says for its component."""
    component = task.component_spec.name.replace("-", "_")
    pod = profile.pod(component)
    task.set_caching_options(False)
    task.set_container_image(profile.image)
    _resources(task, pod)
    _scheduling(task, pod, profile)
    _disks(task, pod, profile)
    for secret in (profile.secrets.store, profile.secrets.mlflow):
        if secret:
            kubernetes.use_secret_as_env(task, secret.name, secret.keys)
    # nothing but /tmp need be written to: so the image may be mounted read-only
    for name, value in {"HOME": "/tmp", "LMMPRESS_CACHE": CACHE, **profile.environment}.items():
        task.set_env_variable(name, value)
    kubernetes.set_security_context(
        task, run_as_user=profile.security.user, run_as_group=profile.security.group, run_as_non_root=True
    )
    kubernetes.set_image_pull_policy(task, profile.pull_policy)
    if profile.pull_secrets:
        kubernetes.set_image_pull_secrets(task, profile.pull_secrets)
    return task


def _resources(task: PipelineTask, pod: Pod) -> None:
    for resources, cpu, memory in (
        (pod.requests, task.set_cpu_request, task.set_memory_request),
        (pod.limits, task.set_cpu_limit, task.set_memory_limit),
    ):
        if resources and resources.cpu:
            cpu(resources.cpu)
        if resources and resources.memory:
            memory(resources.memory)
    if pod.gpus:
        task.set_accelerator_type(pod.gpu_type).set_accelerator_limit(pod.gpus)


def _scheduling(task: PipelineTask, pod: Pod, profile: Profile) -> None:
    if pod.retries and pod.retries.count:
        task.set_retry(
            pod.retries.count,
            backoff_duration=f"{pod.retries.seconds}s",
            backoff_factor=pod.retries.factor,
            backoff_max_duration=_LONGER_THAN_ANY_TASK,
        )
    if pod.timeout:
        kubernetes.set_timeout(task, pod.timeout)
    for key, value in (pod.node_selector or {}).items():
        kubernetes.add_node_selector(task, key, value)
    for one in pod.tolerations or []:
        kubernetes.add_toleration(task, one.key, one.operator, one.value, one.effect, one.toleration_seconds)
    for affinity in pod.affinity or []:
        expressions = [one.model_dump() for one in affinity.expressions]
        kubernetes.add_node_affinity(task, expressions, weight=affinity.weight)
    if profile.queue:
        kubernetes.add_pod_label(task, "kueue.x-k8s.io/queue-name", profile.queue)


def _disks(task: PipelineTask, pod: Pod, profile: Profile) -> None:
    kubernetes.empty_dir_mount(task, "tmp", "/tmp")
    if profile.cache.claim:
        kubernetes.mount_pvc(task, profile.cache.claim, CACHE)
    else:
        kubernetes.empty_dir_mount(task, "cache", CACHE, size_limit=profile.cache.size)
    component = task.component_spec.name.replace("-", "_")
    if pod.shm or (component in ON_GPU and (pod.gpus or 0) > 1):
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=pod.shm or "8Gi")
    for volume in profile.volumes:
        kubernetes.mount_pvc(task, volume.claim, volume.path)
