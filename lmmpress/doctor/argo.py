"""Checks the controller of Argo Workflows: which workflows it looks at, its version, its retries, its artifacts."""

import re

from lmmpress.doctor.finding import Finding, failed, ok, unknown, warning
from lmmpress.doctor.pod_demands import home, system
from lmmpress.pods.argo_controller import CONFIG_MAP, DEPLOYMENT, NEWEST, OLDEST, Controller, find_controller
from lmmpress.pods.cluster_reader import Cluster, at, mapping, text
from lmmpress.tasks.cluster_profile import Engine, Profile

NAME = "Argo's controller"
_INSTALL = "https://argo-workflows.readthedocs.io/en/latest/installation"
_DIFFERENCES = {
    (3, 5): "it knows one mutex for a workflow and no list, and no cap on the pauses between retries",
    (3, 6): "it knows no cap on the pauses between retries",
    (4, 1): "its pendingTimeout and resourceClaims are not used",
}
"""What differs from the version that the pipelines were tried with."""


def controller_of(profile: Profile, cluster: Cluster) -> Controller | None:
    """The controller in its namespace, else in that of the pods."""
    return find_controller(cluster, (system(profile), home(profile)))


def executor_complies(controller: Controller) -> bool | None:
    """Whether the containers that Argo adds to each pod comply with the PodSecurity level `restricted`; None if neither
    the settings nor the version say it. From 3.6 on they do by themselves."""
    given = at(controller.settings, "executor", "securityContext")
    if not isinstance(given, dict):
        return controller.version >= (3, 6) if controller.version else None
    dropped = at(given, "capabilities", "drop")
    return (
        given.get("runAsNonRoot") is True
        and given.get("allowPrivilegeEscalation") is False
        and at(given, "seccompProfile", "type") in ("RuntimeDefault", "Localhost")
        and isinstance(dropped, list)
        and "ALL" in dropped
    )


def check_controller(profile: Profile, cluster: Cluster) -> list[Finding]:
    """Check that a controller runs, looks at the namespace and the instance id of our workflows, and is of a version
    that they were made for."""
    if profile.engine is not Engine.argo:
        return []
    where, namespace = system(profile), home(profile)
    controller = controller_of(profile, cluster)
    if controller is None:
        mend = (
            f"kubectl get deployment -A | grep {DEPLOYMENT}; name its namespace in argo.system, or install: {_INSTALL}"
        )
        return [failed(NAME, f"there is none in {where}", mend)]
    look = f"kubectl logs deployment/{controller.name} -n {controller.namespace}"
    if controller.ready < 1:
        return [failed(NAME, f"no pod of it is ready in {controller.namespace}", look)]
    if controller.watched not in (None, namespace):
        mend = f"argo.namespace: {controller.watched}, or at the controller --managed-namespace {namespace}"
        said = (
            f"looks at workflows of {controller.watched} only, and not of {namespace}, where ours would wait for ever"
        )
        return [failed(NAME, said, mend)]
    if controller.unseen:
        mend = f"ask an administrator: kubectl get configmap {CONFIG_MAP} -n {controller.namespace} -o yaml"
        return [unknown(NAME, f"its settings could not be read: {controller.unseen}", mend), *_version(controller)]
    instance = controller.instance
    if instance != (profile.argo.instance or ""):
        ours = f"have {profile.argo.instance}" if profile.argo.instance else "have none"
        said = (
            f"takes only workflows {f'with instanceID {instance}' if instance else 'without instanceID'}; ours {ours}"
        )
        mend = f"argo.instance: {instance}" if instance else "leave out argo.instance"
        return [failed(NAME, said, f"{mend} in the profile (argo.instance in the chart's values)")]
    return _version(controller)


def _version(controller: Controller) -> list[Finding]:
    shown = f"{controller.ready} ready in {controller.namespace}, looks at {controller.watched or 'every namespace'}"
    if controller.version is None:
        return [ok(NAME, f"{shown} ({controller.image or 'its image'} shows no version)")]
    number = ".".join(map(str, controller.version))
    if controller.version < OLDEST:
        mend = f"upgrade to {'.'.join(map(str, OLDEST))} or newer: {_INSTALL}"
        return [failed(NAME, f"version {number} is older than {'.'.join(map(str, OLDEST))}", mend)]
    if controller.version > NEWEST:
        mend = f"nothing, if workflows run; {'.'.join(map(str, NEWEST))} is the newest that these checks know"
        return [warning(NAME, f"version {number} is newer than the pipelines were made for", mend)]
    differs = _DIFFERENCES.get(controller.version)
    return [ok(NAME, f"{number}, {shown}" + (f"; {differs}" if differs else ""))]


def check_retries(profile: Profile, cluster: Cluster) -> list[Finding]:
    """Say what Argo tries again: with Kubeflow that depends on the controller's settings.

    Argo merges `templateDefaults` into each task's own retryStrategy, and Kubeflow's names no policy.
    """
    name = "Argo's retries"
    if profile.engine is Engine.argo:
        return []
    controller = controller_of(profile, cluster)
    if controller is None:
        return [
            unknown(name, f"there is no {DEPLOYMENT} in {system(profile)}", "kubectl get deployment -A | grep argo")
        ]
    if controller.unseen:
        mend = f"ask an administrator: kubectl get configmap {CONFIG_MAP} -n {controller.namespace} -o yaml"
        return [unknown(name, f"its settings could not be read: {controller.unseen}", mend)]
    strategy = at(controller.settings, "workflowDefaults", "spec", "templateDefaults", "retryStrategy")
    policy = text(at(strategy, "retryPolicy"))
    pattern = controller.environment.get("TRANSIENT_ERROR_PATTERN", "")
    mend = (
        f"kubectl edit configmap {CONFIG_MAP} -n {controller.namespace}: workflowDefaults.spec.templateDefaults."
        'retryStrategy: {limit: "2", retryPolicy: Always}'
    )
    again = "submit the plan again, and it carries on"
    if policy == "Always":
        return [ok(name, "failed tasks and deleted pods are tried again")]
    if policy == "OnError":
        said = (
            "a pod that is deleted, as by preemption or a drained node, is tried again; a task that fails or runs out "
        )
        said += "of memory is not, whatever the profile's retries say (retryPolicy OnError of the controller)"
        return [warning(name, f"{said}: {again}", mend)]
    if policy == "OnTransientError":
        gone = re.search("pod deleted", pattern) is not None
        said = f"only what Argo calls transient is tried again; a deleted pod is {'' if gone else 'not '}"
        return [warning(name, f"{said}(TRANSIENT_ERROR_PATTERN): {again}", mend)]
    said = "a task that fails is tried again; a pod that is deleted, as by preemption or a drained node, is not"
    return [warning(name, f"{said} (retryPolicy OnFailure, Argo's default): {again}", mend)]


def check_artifacts(profile: Profile, cluster: Cluster) -> list[Finding]:
    """Check that there is an artifact repository, if workflows keep the report as an artifact."""
    if profile.engine is not Engine.argo or not profile.argo.report:
        return []
    name, namespace, key = "artifact repository", home(profile), "workflows.argoproj.io/default-artifact-repository"
    own = cluster.named(f"/api/v1/namespaces/{namespace}/configmaps/artifact-repositories")
    if text(at(own, "data", text(at(own, "metadata", "annotations", key)))):
        return [ok(name, f"that of the ConfigMap artifact-repositories in {namespace}")]
    controller = controller_of(profile, cluster)
    if controller is None or controller.unseen:
        said = controller.unseen if controller else f"there is no {DEPLOYMENT} in {system(profile)}"
        return [unknown(name, f"the controller's could not be read: {said}", "argo.report: false leaves it out")]
    given = mapping(controller.settings.get("artifactRepository"))
    kinds = [kind for kind in ("s3", "gcs", "azure", "oss", "artifactory", "hdfs", "plugin") if given.get(kind)]
    if kinds:
        return [ok(name, f"that of the controller ({', '.join(kinds)})")]
    mend = (
        f"artifactRepository in {CONFIG_MAP}, or the ConfigMap artifact-repositories in {namespace}, annotated with "
        f"{key}; or argo.report: false"
    )
    return [failed(name, "argo.report is set, and there is none: the pod that publishes would fail", mend)]
