"""Claims that pods mount, and the storage classes behind them."""

from lmmpress.doctor.demands import home
from lmmpress.doctor.finding import Finding, failed, ok, unknown, warning
from lmmpress.doctor.reader import Cluster, Node, UnseenError, at, mapping, text
from lmmpress.tasks.profile import Profile

_DEFAULT = "storageclass.kubernetes.io/is-default-class"


def check_storage(profile: Profile, cluster: Cluster) -> list[Finding]:
    """Each claim of the profile: there, bound or about to be, and for as many pods as will mount it."""
    claims = [volume.claim for volume in profile.volumes] + ([profile.cache.claim] if profile.cache.claim else [])
    if not claims:
        return [ok("claims", f"the profile names none: the cache ({profile.cache.size}) is a folder of each node")]
    return [_claim(claim, home(profile), cluster) for claim in dict.fromkeys(claims)]


def _claim(claim: str, namespace: str, cluster: Cluster) -> Finding:
    name = f"claim {claim}"
    found = cluster.named(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}")
    if found is None:
        mend = f"kubectl get pvc -n {namespace}; make it (accessModes: [ReadWriteMany]), or change the profile"
        return failed(name, f"there is none in {namespace}", mend)
    phase, kind = text(at(found, "status", "phase")), text(at(found, "spec", "storageClassName"))
    if phase == "Lost":
        return failed(name, "its volume is lost", f"kubectl describe pvc {claim} -n {namespace}; make it anew")
    if phase != "Bound":
        fault = _class_of(kind, cluster, f"kubectl describe pvc {claim} -n {namespace}")
        if fault:
            return Finding(name, fault.status, f"is not bound: {fault.said}", fault.mend)
    modes = at(found, "spec", "accessModes")
    size = text(at(found, "status", "capacity", "storage")) or text(
        at(found, "spec", "resources", "requests", "storage")
    )
    told = f"{phase.lower() or 'of no phase'}, {size or 'of no size'}, {kind or 'no storage class'}"
    if isinstance(modes, list) and not {"ReadWriteMany", "ReadOnlyMany"} & {str(mode) for mode in modes}:
        mend = "a class that has ReadWriteMany; or one node for all pods (node_selector)"
        return warning(name, f"{told}: only pods of one node can mount it ({', '.join(map(str, modes))})", mend)
    return ok(name, told)


def _class_of(kind: str, cluster: Cluster, look: str) -> Finding | None:
    """What is wrong with the class of a claim that is not bound; None where it waits for its first pod."""
    try:
        if kind:
            found = cluster.named(f"/apis/storage.k8s.io/v1/storageclasses/{kind}")
            if found is None:
                return failed("", f"there is no storage class {kind}", f"kubectl get storageclasses; {look}")
        else:
            found = _default(cluster.items("/apis/storage.k8s.io/v1/storageclasses"))
            if found is None:
                mend = f"kubectl annotate storageclass NAME {_DEFAULT}=true, or name one in the claim"
                return failed("", "it names no storage class, and the cluster has no default", mend)
    except UnseenError as error:
        return unknown("", f"its storage class could not be looked at: {error}", look)
    if found.get("volumeBindingMode") == "WaitForFirstConsumer":
        return None
    return failed("", f"{kind or 'the default class'} has not made a volume for it yet", look)


def _default(classes: list[Node]) -> Node | None:
    for one in classes:
        if mapping(at(one, "metadata", "annotations")).get(_DEFAULT) == "true":
            return one
    return None
