"""Checks the permissions that submitting and running need, by access reviews of Kubernetes."""

import os
from dataclasses import dataclass

from lmmpress.doctor.finding import Finding, failed, ok, unknown, warning
from lmmpress.doctor.pod_demands import account, home
from lmmpress.pods.cluster_reader import Cluster, Node, UnseenError, at, mapping, text
from lmmpress.tasks.cluster_profile import Engine, Profile

REVIEWS = "/apis/authorization.k8s.io/v1"


@dataclass(frozen=True)
class Right:
    """One permission."""

    verb: str
    group: str
    resource: str
    name: str = ""

    def __str__(self) -> str:
        group = f".{self.group}" if self.group else ""
        return f"{self.verb} {self.resource}{group}" + (f"/{self.name}" if self.name else "")

    def attributes(self, namespace: str) -> Node:
        """The `resourceAttributes` of an access review for this permission."""
        resource, _, part = self.resource.partition("/")
        fields = {"namespace": namespace, "verb": self.verb, "group": self.group, "resource": resource}
        return fields | ({"name": self.name} if self.name else {}) | ({"subresource": part} if part else {})


SUBMITTING = tuple(
    Right(verb, "pipelines.kubeflow.org", resource)
    for resource in ("experiments", "runs")
    for verb in ("create", "get", "list")
)
"""The permissions of the user who submits, if Kubeflow has several users; with one user it checks none."""

SUBMITTING_TO_ARGO = (
    *(Right(verb, "argoproj.io", "workflows") for verb in ("create", "get", "list", "watch")),
    Right("list", "", "pods"),
)
"""The permissions of the user who submits workflows to Argo alone, and follows them."""

REPORTING = tuple(Right(verb, "argoproj.io", "workflowtaskresults") for verb in ("create", "patch"))
"""The permissions of the pods' service account with Argo alone: its executor reports results."""

RUNNING = (
    *REPORTING,
    Right("get", "argoproj.io", "workflows"),
    Right("get", "", "configmaps", "kfp-launcher"),
    Right("get", "", "pods"),
)
"""The permissions of the pods' service account, from the source of Kubeflow 2.17 and Argo 4.0: Argo's executor reports
results; Kubeflow's driver and launcher read their run, their pod and the settings of the namespace."""

TRAINING = (
    *(Right(verb, "trainer.kubeflow.org", "trainjobs") for verb in ("create", "get", "delete")),
    *(Right(verb, "", "pods") for verb in ("get", "list")),
    Right("get", "", "pods/log"),
)
"""The permissions of the pods' service account where several nodes distil: the task makes a training of Kubeflow
Trainer, follows its pods, and removes it."""

INSIDE = (
    Right("create", "batch", "jobs"),
    Right("delete", "batch", "jobs"),
    Right("list", "", "pods"),
    Right("get", "", "pods/log"),
)
"""The permissions of the user who calls doctor with --inside."""


def rights_of_pods(profile: Profile) -> tuple[Right, ...]:
    """The permissions of the pods' service account, each once."""
    rights = REPORTING if profile.engine is Engine.argo else RUNNING
    return tuple(dict.fromkeys((*rights, *(TRAINING if profile.training else ()))))


def check_submitting(profile: Profile, cluster: Cluster) -> list[Finding]:
    name, namespace = "permission to submit", home(profile)
    if profile.engine is Engine.argo:
        return [_submitting_to_argo(name, namespace, cluster)]
    if namespace == profile.kubeflow.system:
        return [ok(name, f"pipelines run in {namespace}, where Kubeflow requires none")]
    lacking = _lacking_of_ours(cluster, namespace, SUBMITTING)
    if not lacking:
        return [ok(name, f"may create and read experiments and runs in {namespace}")]
    said = f"may not {', '.join(map(str, lacking))} in {namespace}"
    mend = (
        f"kubectl create rolebinding lmmpress-submit -n {namespace} --clusterrole=kubeflow-edit --user=YOU, by an "
        "administrator"
    )
    from lmmpress.kubeflow.submit import TOKEN, TOKEN_FILE

    if used := next((one for one in (TOKEN, TOKEN_FILE) if os.environ.get(one)), None):
        # Kubeflow checks the owner of the token; this check is about another user
        return [warning(name, f"this kubeconfig's user {said}; requests to Kubeflow use {used} instead", mend)]
    return [failed(name, said, mend)]


def _submitting_to_argo(name: str, namespace: str, cluster: Cluster) -> Finding:
    lacking = _lacking_of_ours(cluster, namespace, SUBMITTING_TO_ARGO)
    if not lacking:
        return ok(name, f"may create and follow workflows in {namespace}")
    mend = (
        "by an administrator: argo.submitters in the chart's values, or kubectl create rolebinding lmmpress-submit "
        f"-n {namespace} --role=lmmpress-submit --user=YOU"
    )
    return failed(name, f"may not {', '.join(map(str, lacking))} in {namespace}", mend)


def check_inside(profile: Profile, cluster: Cluster) -> list[Finding]:
    name, namespace = "permission to look inside", home(profile)
    lacking = _lacking_of_ours(cluster, namespace, INSIDE)
    if not lacking:
        return [ok(name, f"may start and remove a Job in {namespace}")]
    mend = f"kubectl create rolebinding lmmpress-doctor -n {namespace} --clusterrole=edit --user=YOU, or no --inside"
    return [failed(name, f"may not {', '.join(map(str, lacking))} in {namespace}", mend)]


def check_running(profile: Profile, cluster: Cluster) -> list[Finding]:
    """Check the permissions of the pods' service account; not every user is allowed to check them."""
    name, namespace = "permissions of the pods", home(profile)
    who = f"system:serviceaccount:{namespace}:{account(profile)}"
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
    lacking = []
    whose = "what Argo does" if profile.engine is Engine.argo else "what Argo and Kubeflow do"
    if profile.training:
        whose = f"{whose}, and make trainings,"
    try:
        for right in rights_of_pods(profile):
            spec = {"user": who, "groups": groups, "resourceAttributes": right.attributes(namespace)}
            body = _review("LocalSubjectAccessReview", spec) | {"metadata": {"namespace": namespace}}
            if not _allowed(cluster, f"{REVIEWS}/namespaces/{namespace}/localsubjectaccessreviews", body):
                lacking.append(right)
    except UnseenError as error:
        first = RUNNING[0]
        mend = f"by an administrator: kubectl auth can-i {first.verb} {first.resource}.{first.group} -n {namespace}"
        return [unknown(name, f"cannot be checked for {account(profile)}: {error}", f"{mend} --as={who}")]
    if not lacking:
        return [ok(name, f"{account(profile)} may do {whose} in a pod")]
    mend = " && ".join(
        _role(f"lmmpress-pods-{number}", of_group, namespace, account(profile))
        for number, of_group in enumerate(_by_group(lacking), 1)
    )
    return [failed(name, f"{account(profile)} may not {', '.join(map(str, lacking))}", mend)]


def _by_group(rights: list[Right]) -> list[list[Right]]:
    return [[right for right in rights if right.group == group] for group in sorted({one.group for one in rights})]


def _role(name: str, rights: list[Right], namespace: str, who: str) -> str:
    """The commands that grant these permissions."""
    verbs = ",".join(sorted({right.verb for right in rights}))
    resources = ",".join(sorted({f"{right.resource}.{right.group}".rstrip(".") for right in rights}))
    return (
        f"kubectl create role {name} -n {namespace} --verb={verbs} --resource={resources} && kubectl create "
        f"rolebinding {name} -n {namespace} --role={name} --serviceaccount={namespace}:{who}"
    )


def _lacking_of_ours(cluster: Cluster, namespace: str, rights: tuple[Right, ...]) -> list[Right]:
    lacking = []
    for right in rights:
        body = _review("SelfSubjectAccessReview", {"resourceAttributes": right.attributes(namespace)})
        if not _allowed(cluster, f"{REVIEWS}/selfsubjectaccessreviews", body):
            lacking.append(right)
    return lacking


def _review(kind: str, spec: Node) -> Node:
    return {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}


def _allowed(cluster: Cluster, path: str, body: Node) -> bool:
    answer = cluster.post(path, body)
    allowed = at(answer, "status", "allowed")
    if not isinstance(allowed, bool):
        fault = text(mapping(answer.get("status")).get("evaluationError"))
        raise UnseenError(200, fault or "the answer does not say whether it is allowed")
    return allowed
