"""Checks the Kubernetes API and the namespace of the pods."""

from lmmpress.doctor.argo import controller_of, executor_complies
from lmmpress.doctor.finding import Finding, failed, ok, unknown, warning
from lmmpress.doctor.pod_demands import home, system
from lmmpress.pods.cluster_reader import Cluster, UnseenError, at, text
from lmmpress.tasks.cluster_profile import Profile

OLDEST = (1, 28)
"""The oldest version of Kubernetes that these checks were written for; Kubeflow has no such limit."""


def check_api(profile: Profile, cluster: Cluster) -> list[Finding]:
    """Check that the API is reachable, accepts our credentials, and is not too old."""
    name = "API"
    try:
        answer = cluster.get("/version")
    except UnseenError as error:
        if error.status in (401, 403):
            mend = "log in again, or name the right context: kubectl config get-contexts, then --context"
            return [failed(name, f"{cluster.host} does not accept this login: {error}", mend)]
        mend = "kubectl cluster-info; is the VPN up, and is this the right --context?"
        return [failed(name, f"{cluster.host} ({cluster.name}): {error}", mend)]
    version = text(answer.get("gitVersion"))
    try:
        major, minor = (int(text(answer.get(key)).rstrip("+")) for key in ("major", "minor"))
    except ValueError:
        return [unknown(name, f"{cluster.host} answers, but reports no version", "kubectl version")]
    if (major, minor) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        mend = f"upgrade the cluster to Kubernetes {oldest} or newer"
        return [warning(name, f"Kubernetes {version} is older than {oldest}, the oldest these checks know", mend)]
    return [ok(name, f"{cluster.host}: Kubernetes {version}")]


def check_namespace(profile: Profile, cluster: Cluster) -> list[Finding]:
    """Check that the namespace exists, is not being deleted, and has a PodSecurity level that admits our pods and
    Argo's containers."""
    name, namespace = "namespace", home(profile)
    answer = cluster.named(f"/api/v1/namespaces/{namespace}")
    if answer is None:
        mend = f"kubectl create namespace {namespace}, or name another in {profile.engine}.namespace"
        return [failed(name, f"there is no namespace {namespace}", mend)]
    if at(answer, "status", "phase") == "Terminating":
        mend = f"kubectl get namespace {namespace} -o yaml says what blocks it; create it again when it is gone"
        return [failed(name, f"{namespace} is being deleted", mend)]
    level = text(at(answer, "metadata", "labels", "pod-security.kubernetes.io/enforce"))
    if level in ("", "privileged", "baseline"):
        return [ok(name, f"{namespace}, PodSecurity {level or 'of the cluster, none set here'}")]
    if level != "restricted":
        mend = f"kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=baseline --overwrite"
        return [failed(name, f"{namespace}: there is no PodSecurity level {level!r}", mend)]
    mend = (
        "set executor.securityContext in workflow-controller-configmap (runAsNonRoot, seccompProfile RuntimeDefault, "
        f"drop ALL), or kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=baseline --overwrite"
    )
    said = f"{namespace} is restricted; what Argo's own containers are given could not be read"
    try:
        controller = controller_of(profile, cluster)
    except UnseenError as error:
        return [unknown(name, f"{said}: {error}", mend)]
    if controller is None or controller.unseen:
        why = controller.unseen if controller else f"there is no controller in {system(profile)}"
        return [unknown(name, f"{said}: {why}", mend)]
    complies = executor_complies(controller)
    if complies is None:
        return [unknown(name, f"{said}: {controller.image or 'its image'} shows no version", mend)]
    if complies:
        return [ok(name, f"{namespace}, PodSecurity restricted, and Argo's containers comply")]
    return [failed(name, f"{namespace} is restricted, but Argo's own containers do not comply", mend)]
