"""A profile applied to the tasks of a pipeline as it is compiled."""

from kfp import kubernetes
from kfp.dsl.pipeline_task import PipelineTask
from kfp.dsl.structures import ResourceSpec

from lmmpress.host.patience import PATIENCE, USUAL
from lmmpress.host.pod import IMAGE, MLFLOW_PAGES, NAMESPACE, NODE, PAGES, PIPELINE_RUN, POD, SUBMITTER, WORKFLOW
from lmmpress.progress.log import LOG, LogForm
from lmmpress.tasks.cluster_profile import ON_GPU, Pod, Profile, Resources
from lmmpress.tasks.training_manifest import CACHE, training_variable

_OWN = {POD: "metadata.name", NODE: "spec.nodeName"}
_PIPELINES = {
    WORKFLOW: "metadata.labels['workflows.argoproj.io/workflow']",
    PIPELINE_RUN: "metadata.labels['pipeline/runid']",
    NAMESPACE: "metadata.namespace",
}
_LONGER_THAN_ANY_TASK = "31536000s"
"""Retries, and the pod, end this long after the *first* try began: a year, so that this never happens."""


def place(task: PipelineTask, profile: Profile, submitter: str | None = None) -> PipelineTask:
    """Apply the profile's settings for a task's component to the task's pod, and tell the pod who it is. `submitter` is
    who submits the pipeline; only the first task's pod is told."""
    component = _component(task)
    pod = profile.task_pod(component)
    task.set_caching_options(False)
    for variable, field in _OWN.items():
        kubernetes.use_field_path_as_env(task, variable, field)
    _container(task, pod, profile)
    if component == "prepare":
        _about_pipeline(task, profile, submitter)
    _scheduling(task, pod, profile)
    _disks(task, pod, profile)
    for secret in (profile.secrets.store, profile.secrets.mlflow):
        if secret:
            kubernetes.use_secret_as_env(task, secret.name, secret.keys)
    kubernetes.set_security_context(
        task, run_as_user=profile.security.user, run_as_group=profile.security.group, run_as_non_root=True
    )
    kubernetes.set_image_pull_policy(task, profile.pull_policy)
    if profile.pull_secrets:
        kubernetes.set_image_pull_secrets(task, profile.pull_secrets)
    return task


def _component(task: PipelineTask) -> str:
    return str(task.component_spec.name.replace("-", "_"))


def _container(task: PipelineTask, pod: Pod, profile: Profile) -> None:
    """Write image, environment and resources into the fields that the task's setters write. The setters are not used:
    each call of one reads the source of all its callers.
    """
    if task.container_spec is None:
        raise AssertionError(f"{task.name} is no task of one container")
    task.container_spec.image = profile.image
    # tasks write only below /tmp, so the image may be mounted read-only
    environment = {"HOME": "/tmp", "LMMPRESS_CACHE": CACHE, **profile.environment}
    environment |= {PATIENCE: profile.patience} if profile.patience != USUAL else {}
    environment |= {LOG: profile.log.value} if profile.log is not LogForm.text else {}
    environment |= {MLFLOW_PAGES: profile.mlflow.ui} if profile.mlflow.ui else {}
    environment |= training_variable(profile, _component(task))
    task.container_spec.env = {**(task.container_spec.env or {}), **environment}
    requests, limits = pod.requests or Resources(), pod.limits or Resources()
    task.container_spec.resources = ResourceSpec(
        cpu_request=requests.cpu,
        memory_request=requests.memory,
        cpu_limit=limits.cpu,
        memory_limit=limits.memory,
        accelerator_type=pod.gpu_type if pod.gpus else None,
        accelerator_count=str(pod.gpus) if pod.gpus else None,
    )


def _about_pipeline(task: PipelineTask, profile: Profile, submitter: str | None) -> None:
    """What the first task notes of its pipeline. The other pods are not told: Argo repeats each word eight times."""
    for variable, field in _PIPELINES.items():
        kubernetes.use_field_path_as_env(task, variable, field)
    told = {IMAGE: profile.image, PAGES: profile.kubeflow.ui or profile.kubeflow.host, SUBMITTER: submitter}
    assert task.container_spec is not None
    task.container_spec.env = {**(task.container_spec.env or {}), **{name: text for name, text in told.items() if text}}


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
    if pod.shm or (_component(task) in ON_GPU and (pod.gpus or 0) > 1):
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=pod.shm or "8Gi")
    for volume in profile.volumes:
        kubernetes.mount_pvc(task, volume.claim, volume.path)
