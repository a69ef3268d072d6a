"""Checks the volume claims that pods mount, and their storage classes."""

from lmmpress.doctor.finding import Finding, failed, ok, unknown, warning
from lmmpress.doctor.pod_demands import home
from lmmpress.pods.cluster_reader import Cluster, Node, UnseenError, at, mapping, text
from lmmpress.tasks.cluster_profile import Profile

_DEFAULT = "storageclass.kubernetes.io/is-default-class"


def check_storage(profile: Profile, cluster: Cluster) -> list[Finding]:
    """Check that each claim of the profile exists, is bound or can be, and can be mounted by pods of several nodes."""
    claims = [volume.claim for volume in profile.volumes] + ([profile.cache.claim] if profile.cache.claim else [])
    if not claims:
        return [ok("claims", f"the profile names none: the cache ({profile.cache.size}) is a folder of each node")]
    return [_claim(claim, home(profile), cluster) for claim in dict.fromkeys(claims)]


def _claim(claim: str, namespace: str, cluster: Cluster) -> Finding:
    name = f"claim {claim}"
    answer = cluster.named(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}")
    if answer is None:
        mend = f"kubectl get pvc -n {namespace}; create it (accessModes: [ReadWriteMany]), or change the profile"
        return failed(name, f"there is none in {namespace}", mend)
    phase, kind = text(at(answer, "status", "phase")), text(at(answer, "spec", "storageClassName"))
    if phase == "Lost":
        return failed(name, "its volume is lost", f"kubectl describe pvc {claim} -n {namespace}; create it again")
    if phase != "Bound":
        fault = _class_fault(kind, cluster, f"kubectl describe pvc {claim} -n {namespace}")
        if fault:
            return Finding(name, fault.status, f"is not bound: {fault.said}", fault.mend)
    modes = at(answer, "spec", "accessModes")
    size = text(at(answer, "status", "capacity", "storage")) or text(
        at(answer, "spec", "resources", "requests", "storage")
    )
    summary = f"{phase.lower() or 'no phase'}, {size or 'no size'}, {kind or 'no storage class'}"
    if isinstance(modes, list) and not {"ReadWriteMany", "ReadOnlyMany"} & {str(mode) for mode in modes}:
        mend = "use a storage class with ReadWriteMany, or one node for all pods (node_selector)"
        return warning(name, f"{summary}: only pods of one node can mount it ({', '.join(map(str, modes))})", mend)
    return ok(name, summary)


def _class_fault(kind: str, cluster: Cluster, look: str) -> Finding | None:
    """What is wrong with the storage class of an unbound claim; None if the claim waits for its first pod."""
    try:
        if kind:
            storage_class = cluster.named(f"/apis/storage.k8s.io/v1/storageclasses/{kind}")
            if storage_class is None:
                return failed("", f"there is no storage class {kind}", f"kubectl get storageclasses; {look}")
        else:
            storage_class = _default(cluster.items("/apis/storage.k8s.io/v1/storageclasses"))
            if storage_class is None:
                mend = f"kubectl annotate storageclass NAME {_DEFAULT}=true, or name one in the claim"
                return failed("", "it names no storage class, and the cluster has no default", mend)
    except UnseenError as error:
        return unknown("", f"its storage class could not be read: {error}", look)
    if storage_class.get("volumeBindingMode") == "WaitForFirstConsumer":
        return None
    return failed("", f"{kind or 'the default class'} has not created a volume for it yet", look)


def _default(classes: list[Node]) -> Node | None:
    for one in classes:
        if mapping(at(one, "metadata", "annotations")).get(_DEFAULT) == "true":
            return one
    return None
