"""Checks Kubeflow Pipelines and Argo: their APIs, versions and health."""

import re

from lmmpress.doctor.finding import Finding, failed, ok, unknown, warning
from lmmpress.doctor.pod_demands import home
from lmmpress.errors import UserError
from lmmpress.pods.cluster_reader import Cluster, Node, UnseenError, at, mappings, text, whole
from lmmpress.tasks.cluster_profile import Engine, Profile

_OF_ARGO = ("workflows", "workflowtaskresults", "workflowtasksets")
KINDS: dict[Engine, dict[str, tuple[str, str, tuple[str, ...]]]] = {
    Engine.kubeflow: {
        "Argo": ("argoproj.io", "v1alpha1", _OF_ARGO),
        "Kubeflow Pipelines": ("kubeflow.org", "v1beta1", ("scheduledworkflows",)),
    },
    Engine.argo: {"Argo": ("argoproj.io", "v1alpha1", (*_OF_ARGO, "workflowtemplates"))},
}
"""The kinds that each engine needs: group, version, resources."""
WORKERS = {
    "ml-pipeline": "its API",
    "ml-pipeline-persistenceagent": "without it no run ever ends in Kubeflow",
    "workflow-controller": "Argo, which starts the pods",
}
OLDEST = {"ml-pipeline": (2, 15), "workflow-controller": (3, 5)}
"""Kubeflow's as in docs/kubeflow.md; Argo's is a cautious guess from the source of 3.7 and 4.0."""
_ARGO = "https://argo-workflows.readthedocs.io/en/latest/installation"
_INSTALL = "https://www.kubeflow.org/docs/components/pipelines/operator-guides/installation"


def check_kinds(profile: Profile, cluster: Cluster) -> list[Finding]:
    """Check that the API serves the resources of their CRDs; every user of the cluster may read that."""
    where = _INSTALL if profile.engine is Engine.kubeflow else _ARGO
    return [served(name, *kinds, where, cluster) for name, kinds in KINDS[profile.engine].items()]


def served(name: str, group: str, version: str, kinds: tuple[str, ...], where: str, cluster: Cluster) -> Finding:
    """Whether the API serves the resources of a program's CRDs. `where` is the address that says how to install it."""
    answer = cluster.find(f"/apis/{group}/{version}")
    names = {text(one.get("name")) for one in mappings(at(answer, "resources"))}
    lacking = [f"{kind}.{group}" for kind in kinds if kind not in names]
    if answer is not None and not isinstance(answer.get("resources"), list):
        return unknown(f"CRDs of {name}", f"{group}/{version} is served, but lists no resources")
    if lacking:
        mend = f"install {name} with its cluster-scoped resources: {where}; then kubectl get crd {lacking[0]}"
        return failed(f"CRDs of {name}", f"the cluster has no {', '.join(lacking)} ({version})", mend)
    return ok(f"CRDs of {name}", f"{group}/{version}")


def check_workers(profile: Profile, cluster: Cluster) -> list[Finding]:
    """Check that each deployment of Kubeflow and Argo exists, is ready, and is new enough."""
    if profile.engine is Engine.argo:
        return []  # check_controller looks at Argo's
    return [_worker(name, why, profile, cluster) for name, why in WORKERS.items()]


def _worker(name: str, why: str, profile: Profile, cluster: Cluster) -> Finding:
    namespaces = list(dict.fromkeys((profile.kubeflow.system, home(profile))))
    deployment, namespace, refused = None, namespaces[0], None
    for namespace in namespaces:
        try:
            deployment = cluster.named(f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}")
        except UnseenError as error:
            refused = error
        if deployment is not None:
            break
    if deployment is None and refused is not None:
        mend = f"ask an administrator: kubectl get deployment {name} -n {namespaces[0]}"
        return unknown(name, f"{why}: {refused}", mend)
    if deployment is None:
        said = f"{why}: there is no such deployment in {' or '.join(namespaces)}"
        return unknown(name, said, f"kubectl get deployment -A | grep {name}; is Kubeflow Pipelines installed?")
    ready, image = whole(at(deployment, "status", "readyReplicas")), _image(deployment)
    version = re.search(r":v?(\d+)\.(\d+)[^@/]*(?=@|$)", image)
    if ready < 1:
        mend = f"kubectl describe deployment {name} -n {namespace}; kubectl logs deployment/{name} -n {namespace}"
        return failed(name, f"{why}: no pod of it is ready in {namespace}", mend)
    if version is None:
        return ok(name, f"{why}: ready in {namespace} ({image or 'its image'} shows no version)")
    number, oldest = f"{version[1]}.{version[2]}", OLDEST.get(name)
    if oldest and (int(version[1]), int(version[2])) < oldest:
        needed = ".".join(map(str, oldest))
        mend = f"upgrade to {needed} or newer: {_INSTALL}"
        return failed(name, f"{why}: version {number} in {namespace}; {needed} or newer is needed", mend)
    return ok(name, f"{why}: {image.rpartition(':')[2].partition('@')[0] or number}, {ready} ready in {namespace}")


def _image(deployment: Node) -> str:
    containers = mappings(at(deployment, "spec", "template", "spec", "containers"))
    return text(containers[0].get("image")) if containers else ""


def check_endpoint(profile: Profile, cluster: Cluster) -> list[Finding]:
    """Check that Kubeflow's own API answers, which `submit` uses."""
    name = "Kubeflow's API"
    if profile.engine is Engine.argo:
        return []
    if not profile.kubeflow.host:
        return [warning(name, "the profile has no address to submit pipelines to", "set kubeflow.host")]
    from lmmpress.kubeflow.submit import probe

    try:
        probe(profile.kubeflow)
    except UserError as error:
        mend = f"give kubeflow.host the address that people use, or: kubectl port-forward -n {profile.kubeflow.system} "
        return [failed(name, str(error), f"{mend}svc/ml-pipeline-ui 8080:80 and kubeflow.host: http://localhost:8080")]
    return [ok(name, f"{profile.kubeflow.host} answers")]
