"""Lists the checks and runs them."""

from collections.abc import Callable

from lmmpress.doctor import (
    api,
    argo,
    kubeflow,
    mlflow_plugin,
    nodes,
    permissions,
    quotas,
    references,
    storage,
    trainer,
)
from lmmpress.doctor.finding import Finding, unknown
from lmmpress.doctor.pod_demands import BY_GRANULARITY
from lmmpress.pods.cluster_reader import Cluster, UnseenError
from lmmpress.tasks.cluster_profile import COMPONENTS, Profile

Check = Callable[[Profile, Cluster], list[Finding]]
Tell = Callable[[str], None]


def checks(components: tuple[str, ...] = COMPONENTS) -> dict[str, Check]:
    """All checks of the cluster by name; queue, quotas and nodes are checked for the pods of these
    components."""
    return {
        "namespace": api.check_namespace,
        "permission to submit": permissions.check_submitting,
        "permissions of the pods": permissions.check_running,
        "CRDs": kubeflow.check_kinds,
        "Kubeflow and Argo": kubeflow.check_workers,
        "Argo's controller": argo.check_controller,
        "Argo's retries": argo.check_retries,
        "artifact repository": argo.check_artifacts,
        "Kubeflow's API": kubeflow.check_endpoint,
        "Kubeflow's MLflow plugin": mlflow_plugin.check_plugin,
        "service account": references.check_account,
        "secrets": references.check_secrets,
        "pull secrets": references.check_pull_secrets,
        "claims": storage.check_storage,
        "queue": lambda profile, cluster: references.check_queue(profile, cluster, components),
        "Kubeflow Trainer": trainer.check_trainer,
        "runtime of trainings": trainer.check_runtime,
        "shared memory": trainer.check_shared_memory,
        "quotas": lambda profile, cluster: quotas.check_quotas(profile, cluster, components),
        "nodes": lambda profile, cluster: nodes.check_nodes(profile, cluster, components),
    }


BEFORE_SUBMITTING = (
    "namespace",
    "permission to submit",
    "permissions of the pods",
    "Argo's controller",
    "artifact repository",
    "service account",
    "secrets",
    "pull secrets",
    "claims",
    "queue",
    "Kubeflow Trainer",
    "runtime of trainings",
    "shared memory",
    "quotas",
    "nodes",
)
"""The checks that run before `submit`. Whether Kubeflow answers, `submit` finds out itself."""


def examine(
    profile: Profile, cluster: Cluster, chosen: dict[str, Check], tell: Tell = lambda name: None
) -> list[Finding]:
    """Run the check of the API, then the chosen ones; if the API does not answer, the others are reported as unknown.

    `tell` gets the name of each check before it runs.
    """
    tell("API")
    found = run_check("API", api.check_api, profile, cluster)
    if any(one.status == "failed" for one in found):
        return found + [unknown(name, "not looked at: the API of Kubernetes does not answer") for name in chosen]
    for name, check in chosen.items():
        tell(name)
        found += run_check(name, check, profile, cluster)
    return found


def run_check(name: str, check: Check, profile: Profile, cluster: Cluster) -> list[Finding]:
    """The findings of a check; one finding of status unknown if the check cannot be run."""
    try:
        return check(profile, cluster)
    except UnseenError as error:
        mend = (
            "ask an administrator, or get the permission: kubectl auth can-i --list"
            if error.status in (401, 403)
            else ""
        )
        return [unknown(name, f"could not be looked at: {error}", mend)]
    except Exception as error:  # an unexpected answer to one check must not stop the other checks
        return [unknown(name, f"unexpected answer ({type(error).__name__}: {error})")]


def before_submitting(profile: Profile, cluster: Cluster, granularity: str) -> list[Finding]:
    """The findings of the checks to run before a pipeline is submitted."""
    every = checks(BY_GRANULARITY[granularity])
    return examine(profile, cluster, {name: every[name] for name in BEFORE_SUBMITTING})
