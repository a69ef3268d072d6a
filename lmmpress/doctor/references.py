"""Checks the objects that the profile names: Secrets, service account, pull secrets and queue."""

import base64
import binascii
import json
from decimal import Decimal

from lmmpress.doctor.finding import Finding, failed, ok, some, unknown, warning
from lmmpress.doctor.pod_demands import Demand, account, demands_of, home, in_words
from lmmpress.pods.cluster_reader import Cluster, Node, UnseenError, amount, at, mapping, mappings, text
from lmmpress.tasks.cluster_profile import Profile, Secret

_LOGIN = {"kubernetes.io/dockerconfigjson": ".dockerconfigjson", "kubernetes.io/dockercfg": ".dockercfg"}


def check_secrets(profile: Profile, cluster: Cluster) -> list[Finding]:
    """Check that each Secret exists and has every key that a pod reads, none of them empty."""
    named = {"store": profile.secrets.store, "mlflow": profile.secrets.mlflow}
    return [_secret(use, secret, home(profile), cluster) for use, secret in named.items() if secret]


def _secret(use: str, secret: Secret, namespace: str, cluster: Cluster) -> Finding:
    name = f"secret {secret.name} ({use})"
    make = f"kubectl create secret generic {secret.name} -n {namespace} " + " ".join(
        f"--from-literal={key}=..." for key in secret.keys
    )
    try:
        answer = cluster.named(f"/api/v1/namespaces/{namespace}/secrets/{secret.name}")
    except UnseenError as error:
        keys = ", ".join(secret.keys)
        mend = f"ask an administrator: kubectl describe secret {secret.name} -n {namespace}; it needs {keys}"
        return unknown(name, f"may not be read: {error}", mend)
    if answer is None:
        return failed(name, f"there is none in {namespace}", make)
    data = mapping(answer.get("data"))
    lacking = [key for key in secret.keys if not data.get(key)]
    if lacking:
        said = f"has no {', '.join(lacking)}" + (f"; it has {some(sorted(data))}" if data else "; it is empty")
        return failed(name, said, f"{make} --dry-run=client -o yaml | kubectl apply -f -, or change secrets.{use}.keys")
    return ok(name, f"has {', '.join(secret.keys)}")


def check_account(profile: Profile, cluster: Cluster) -> list[Finding]:
    name, namespace = "service account", home(profile)
    if cluster.named(f"/api/v1/namespaces/{namespace}/serviceaccounts/{account(profile)}") is None:
        mend = f"kubectl create serviceaccount {account(profile)} -n {namespace}, or change service_account"
        return [failed(name, f"there is no {account(profile)} in {namespace}", mend)]
    return [ok(name, f"{account(profile)} in {namespace}")]


def check_pull_secrets(profile: Profile, cluster: Cluster) -> list[Finding]:
    """Check that each pull secret exists and is for the image's registry."""
    return [_pull_secret(name, profile, cluster) for name in profile.pull_secrets]


def _pull_secret(secret: str, profile: Profile, cluster: Cluster) -> Finding:
    name, namespace = f"pull secret {secret}", home(profile)
    registry = registry_of(profile.image)
    make = (
        f"kubectl create secret docker-registry {secret} -n {namespace} --docker-server={registry} "
        "--docker-username=... --docker-password=..."
    )
    try:
        answer = cluster.named(f"/api/v1/namespaces/{namespace}/secrets/{secret}")
    except UnseenError as error:
        return unknown(name, f"may not be read: {error}", f"kubectl describe secret {secret} -n {namespace}")
    if answer is None:
        return failed(name, f"there is none in {namespace}", make)
    kind = text(answer.get("type"))
    if kind not in _LOGIN:
        return failed(name, f"is of type {kind or 'none'}: it logs in to no registry", make)
    try:
        content = json.loads(base64.b64decode(text(at(answer, "data", _LOGIN[kind]))))
    except (ValueError, RecursionError, binascii.Error):
        return failed(name, "its content cannot be read", make)
    logins = mapping(content.get("auths") if kind.endswith("json") and isinstance(content, dict) else content)
    if not any(registry in one for one in logins):
        said = f"logs in to {some(sorted(logins)) or 'nothing'}; the image is from {registry}"
        return warning(name, said, make)
    return ok(name, f"for {registry}")


def registry_of(image: str) -> str:
    """The registry host of an image."""
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"


def check_queue(profile: Profile, cluster: Cluster, components: tuple[str, ...]) -> list[Finding]:
    """Check Kueue's LocalQueue, its ClusterQueue, and the quota of the latter for pods of these components."""
    if not profile.queue:
        return []
    name, namespace = f"queue {profile.queue}", home(profile)
    group = cluster.find("/apis/kueue.x-k8s.io")
    version = text(at(group, "preferredVersion", "version"))
    if group is None:
        return [failed(name, "the cluster has no Kueue", "install it (https://kueue.sigs.k8s.io), or leave out queue")]
    if not version:
        return [unknown(name, "Kueue reports no version of its API", "kubectl api-versions | grep kueue")]
    base = f"/apis/kueue.x-k8s.io/{version}"
    local_queue = cluster.named(f"{base}/namespaces/{namespace}/localqueues/{profile.queue}")
    if local_queue is None:
        mend = f"kubectl get localqueues -n {namespace} lists the existing ones; name one in queue, or have it created"
        return [failed(name, f"there is no such LocalQueue in {namespace}", mend)]
    cluster_queue = text(at(local_queue, "spec", "clusterQueue"))
    if stopped := _stopped(name, local_queue, f"localqueue {profile.queue} -n {namespace}"):
        return [stopped]
    try:
        answer = cluster.named(f"{base}/clusterqueues/{cluster_queue}") if cluster_queue else None
    except UnseenError as error:
        said = f"takes pods; its ClusterQueue {cluster_queue} could not be read: {error}"
        return [unknown(name, said, f"ask an administrator: kubectl describe clusterqueue {cluster_queue}")]
    if answer is None:
        mend = f"kubectl get clusterqueues, then name one in localqueue {profile.queue}"
        return [failed(name, f"its ClusterQueue {cluster_queue or '(none named)'} does not exist", mend)]
    if stopped := _stopped(name, answer, f"clusterqueue {cluster_queue}"):
        return [stopped]
    return [_covered(name, cluster_queue, answer, demands_of(profile, components))]


def _stopped(name: str, queue: Node, where: str) -> Finding | None:
    policy = text(at(queue, "spec", "stopPolicy"))
    if policy not in ("", "None"):
        mend = f'kubectl patch {where} --type=merge -p \'{{"spec":{{"stopPolicy":"None"}}}}\''
        return failed(name, f"{where} is stopped ({policy})", mend)
    for one in mappings(at(queue, "status", "conditions")):
        if one.get("type") == "Active" and one.get("status") != "True":
            said = f"{where} is not active: {text(one.get('message')) or text(one.get('reason'))}"
            return failed(name, said, f"kubectl describe {where}")
    return None


def _covered(name: str, cluster_queue: str, queue: Node, demands: list[Demand]) -> Finding:
    """Check that a ClusterQueue covers the pods' requests: a pod waits forever for a resource that is not covered.
    Equal pods that run at once share a flavor; the one that follows them may have another."""
    given: dict[str, list[Decimal]] = {}
    for flavor in (
        one for group in mappings(at(queue, "spec", "resourceGroups")) for one in mappings(group.get("flavors"))
    ):
        for resource in mappings(flavor.get("resources")):
            given.setdefault(text(resource.get("name")), []).append(amount(resource.get("nominalQuota")) or Decimal(0))
    alone = not (at(queue, "spec", "cohort") or at(queue, "spec", "cohortName"))
    for one in demands:
        for key, requested in one.requests.items():
            change = f"kubectl edit clusterqueue {cluster_queue}: nominalQuota of {key}"
            if key not in given:
                return failed(name, f"ClusterQueue {cluster_queue} gives no {key}, which {one} asks for", change)
            follower = one.beside.requests.get(key, Decimal(0)) if one.beside else Decimal(0)
            needed = one.count * requested
            for gives, needs in ((max(given[key]), needed), (sum(given[key]), needed + follower)):
                if alone and needs > gives:
                    said = f"gives {in_words(key, Decimal(gives))} {key}; {one} asks for {in_words(key, needs)}"
                    return failed(name, f"ClusterQueue {cluster_queue} {said}", change)
    return ok(
        name, f"ClusterQueue {cluster_queue} gives {', '.join(sorted(given)) or 'no resource, and none is needed'}"
    )
