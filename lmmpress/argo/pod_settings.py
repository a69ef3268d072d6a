"""A profile applied to the container of one part, as a template of Argo's."""

import json
from collections.abc import Mapping
from typing import Any, cast

from hera.workflows import Container, EmptyDirVolume, Env, ExistingVolume, FieldEnv, Parameter, SecretEnv
from hera.workflows.models import (
    Affinity,
    Capabilities,
    NodeAffinity,
    NodeSelector,
    NodeSelectorRequirement,
    NodeSelectorTerm,
    PreferredSchedulingTerm,
    ResourceRequirements,
    SeccompProfile,
    SecurityContext,
    Toleration,
    ValueFrom,
)
from hera.workflows.models import PodSecurityContext as PodSecurity

from lmmpress.argo.metrics import part_metrics
from lmmpress.argo.retries import retry_strategy
from lmmpress.host.patience import PATIENCE
from lmmpress.host.pod import IMAGE, MLFLOW_PAGES, NAMESPACE, NODE, PAGES, PART_LABEL, POD, STAGE_LABEL, WORKFLOW
from lmmpress.progress.log import LOG, LogForm
from lmmpress.tasks import cluster_profile as profiles
from lmmpress.tasks.cluster_profile import ON_GPU, Profile
from lmmpress.tasks.training_manifest import CACHE, training_variable
from lmmpress.tasks.tries import LAST_EXIT, LAST_MESSAGE, RETRIES, TRY

RESULTS = "/tmp/result"
RESULT, REPORT, COMPARISON = (f"{RESULTS}/{name}" for name in ("result.json", "report.html", "comparison.html"))
RESULT_OUTPUT = "result"
"""The output parameter of every container that has one: the whole file of its result."""


def container(
    name: str,
    component: str,
    profile: Profile,
    arguments: str,
    inputs: tuple[str, ...] = (),
    command: tuple[str, ...] = (),
    task: str | None = None,
    has_result: bool = False,
    global_name: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Container:
    """The template that runs a task in a pod of its own, with the profile's settings for its component.

    `arguments` is an expression for the task's arguments, of the template's `inputs`. `command` are further options.
    `task` is the task's name, if the template has another. With `has_result` the file of its result becomes an output,
    which expressions read, also of other templates if it has a `global_name`.
    """
    part = task or name
    pod = profile.task_pod(component)
    labels = {PART_LABEL: part}
    if "stage" in inputs:
        labels[STAGE_LABEL] = "{{inputs.parameters.stage}}"
    if profile.queue:
        labels["kueue.x-k8s.io/queue-name"] = profile.queue
    made = Container(
        name=name.replace("_", "-"),
        image=profile.image,
        image_pull_policy=profile.pull_policy,
        command=["lmmpress", "task", part],
        args=["--arguments", "{{=toJson(" + arguments + ")}}", "--result", RESULT, *command],
        inputs=[Parameter(name=name) for name in inputs],
        labels=labels,
        env=[
            *_environment(profile, {**(environment or {}), **training_variable(profile, component)}),
            *_retry_environment(pod),
            *_secrets(profile),
        ],
        resources=_resources(pod),
        volumes=_volumes(component, pod, profile),
        node_selector=pod.node_selector or None,
        tolerations=[_toleration(one) for one in pod.tolerations or []] or None,
        affinity=_affinity(pod.affinity or []),
        active_deadline_seconds=pod.timeout or None,
        retry_strategy=retry_strategy(pod.retries or profiles.Retries()),
        security_context=SecurityContext(
            allow_privilege_escalation=False,
            capabilities=Capabilities(drop=["ALL"]),
            read_only_root_filesystem=True,
            run_as_non_root=True,
        ),
        termination_message_policy="FallbackToLogsOnError",
        metrics=part_metrics(part, pod, "stage" in inputs),
    )
    if has_result:
        made.outputs = [Parameter(name=RESULT_OUTPUT, value_from=ValueFrom(path=RESULT), global_name=global_name)]
    return made


def restricted_patch() -> str:
    """What Argo's own containers lack for Kubernetes' `restricted` profile, where the controller does not set it."""
    own = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    init, wait = ([{"name": name, "securityContext": own}] for name in ("init", "wait"))
    return json.dumps({"initContainers": init, "containers": wait})


def pod_security(profile: Profile) -> PodSecurity:
    """The security context of every pod, Argo's own containers included."""
    return PodSecurity(
        run_as_non_root=True,
        run_as_user=profile.security.user,
        run_as_group=profile.security.group,
        seccomp_profile=SeccompProfile(type="RuntimeDefault"),
    )


def _environment(profile: Profile, more: Mapping[str, str]) -> list[Env | FieldEnv]:
    # tasks write only below /tmp and the cache, so the image is mounted read-only
    given = {
        "HOME": "/tmp",
        "LMMPRESS_CACHE": CACHE,
        PATIENCE: profile.patience,
        IMAGE: profile.image,
        WORKFLOW: "{{workflow.name}}",
        NAMESPACE: "{{workflow.namespace}}",
        **({LOG: profile.log.value} if profile.log is not LogForm.text else {}),
        **({PAGES: profile.argo.ui} if profile.argo.ui else {}),
        **({MLFLOW_PAGES: profile.mlflow.ui} if profile.mlflow.ui else {}),
        **profile.environment,
        **more,
    }
    return [
        *(Env(name=name, value=value) for name, value in given.items()),
        FieldEnv(name=POD, field_path="metadata.name"),
        FieldEnv(name=NODE, field_path="spec.nodeName"),
    ]


def _retry_environment(pod: profiles.Pod) -> list[Env]:
    """What a try has to know of those before it; see lmmpress/tasks/tries.py."""
    given = {
        TRY: "{{retries}}",
        LAST_EXIT: "{{lastRetry.exitCode}}",
        LAST_MESSAGE: "{{lastRetry.message}}",
        RETRIES: str(pod.retries.count if pod.retries else 0),
    }
    return [Env(name=name, value=value) for name, value in given.items()]


def _secrets(profile: Profile) -> list[SecretEnv]:
    named = [secret for secret in (profile.secrets.store, profile.secrets.mlflow) if secret]
    return [
        SecretEnv(name=variable, secret_name=secret.name, secret_key=key)
        for secret in named
        for key, variable in secret.keys.items()
    ]


def _resources(pod: profiles.Pod) -> ResourceRequirements | None:
    def of(given: profiles.Resources | None, gpus: bool) -> Any:  # hera's models take texts as quantities
        values = given.model_dump(exclude_none=True) if given else {}
        if gpus and pod.gpus:
            values[str(pod.gpu_type)] = str(pod.gpus)
        return values or None

    requests, limits = of(pod.requests, gpus=False), of(pod.limits, gpus=True)
    return ResourceRequirements(requests=requests, limits=limits) if requests or limits else None


def _volumes(component: str, pod: profiles.Pod, profile: Profile) -> list[EmptyDirVolume | ExistingVolume]:
    volumes: list[EmptyDirVolume | ExistingVolume] = [EmptyDirVolume(name="tmp", mount_path="/tmp")]
    size, shm = cast("Any", profile.cache.size), cast("Any", pod.shm or "8Gi")
    if profile.cache.claim:
        volumes.append(ExistingVolume(name="cache", claim_name=profile.cache.claim, mount_path=CACHE))
    else:
        volumes.append(EmptyDirVolume(name="cache", mount_path=CACHE, size_limit=size))
    if pod.shm or (component in ON_GPU and (pod.gpus or 0) > 1):
        volumes.append(EmptyDirVolume(name="shm", mount_path="/dev/shm", medium="Memory", size_limit=shm))
    for number, volume in enumerate(profile.volumes):
        volumes.append(ExistingVolume(name=f"volume-{number}", claim_name=volume.claim, mount_path=volume.path))
    return volumes


def _toleration(one: profiles.Toleration) -> Toleration:
    return Toleration(
        key=one.key,
        operator=one.operator,
        value=one.value,
        effect=one.effect,
        toleration_seconds=one.toleration_seconds,
    )


def _affinity(given: list[profiles.NodeAffinity]) -> Affinity | None:
    """Required terms are joined as Kubeflow joins them: each entry is one more term, any of which is enough."""
    required = [_term(one) for one in given if one.weight is None]
    preferred = [PreferredSchedulingTerm(weight=one.weight, preference=_term(one)) for one in given if one.weight]
    if not given:
        return None
    return Affinity(
        node_affinity=NodeAffinity(
            required_during_scheduling_ignored_during_execution=NodeSelector(node_selector_terms=required)
            if required
            else None,
            preferred_during_scheduling_ignored_during_execution=preferred or None,
        )
    )


def _term(one: profiles.NodeAffinity) -> NodeSelectorTerm:
    return NodeSelectorTerm(
        match_expressions=[
            NodeSelectorRequirement(key=each.key, operator=each.operator, values=each.values or None)
            for each in one.expressions
        ]
    )
