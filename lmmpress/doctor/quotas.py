"""Quotas and limit ranges: would a pod be refused before any node is looked at?"""

from dataclasses import replace
from decimal import Decimal

from lmmpress.doctor.demands import Asked, asked, home, in_words
from lmmpress.doctor.finding import Finding, failed, ok, unknown, warning
from lmmpress.doctor.reader import Cluster, Node, amount, at, mapping, mappings, text
from lmmpress.tasks.profile import Profile


def check_quotas(profile: Profile, cluster: Cluster, components: tuple[str, ...]) -> list[Finding]:
    """Each quota and limit range that stands in the way of a component; one line where none does."""
    namespace = home(profile)
    quotas = cluster.items(f"/api/v1/namespaces/{namespace}/resourcequotas")
    ranges = cluster.items(f"/api/v1/namespaces/{namespace}/limitranges")
    found: list[Finding] = []
    for one in asked(profile, components):
        with_defaults = _defaulted(one, ranges)
        for limit_range in ranges:
            found += _in_range(with_defaults, limit_range, namespace)
        for quota in quotas:
            found += _in_quota(with_defaults, quota, namespace)
    told = f"{len(quotas)} quotas and {len(ranges)} limit ranges" if quotas or ranges else "no quota and no limit range"
    return found or [ok("quotas", f"{told} in {namespace}; nothing stands in the way of a pod")]


def _in_quota(one: Asked, quota: Node, namespace: str) -> list[Finding]:
    """More than the quota ever gives fails; more than is left of it waits."""
    name = f"quota {text(at(quota, 'metadata', 'name'))} for {one}"
    change = f"kubectl edit resourcequota {text(at(quota, 'metadata', 'name'))} -n {namespace}"
    counts = _counts(one, quota)
    if counts is None:
        mend = f"kubectl describe resourcequota {text(at(quota, 'metadata', 'name'))} -n {namespace}"
        return [unknown(name, "whether it counts our pods depends on what is not known here (its scopes)", mend)]
    if not counts:
        return []
    hard = mapping(at(quota, "status", "hard")) or mapping(at(quota, "spec", "hard"))
    found = []
    for key, value in hard.items():
        limit, used = amount(value), amount(at(quota, "status", "used", key)) or Decimal(0)
        wanted = _wanted(one, key)
        if limit is None or wanted is None:
            continue
        if wanted == 0:
            if key in ("requests.cpu", "requests.memory", "limits.cpu", "limits.memory", "cpu", "memory"):
                kind, _, resource = key.rpartition(".")
                mend = f"set {kind or 'requests'}.{resource} in the profile's defaults, or a LimitRange with a default"
                found.append(failed(name, f"a pod has to say its {key} there, and says none", mend))
        elif wanted > limit:
            said = f"{key}: a pod asks for {in_words(key, wanted)}, the quota is {in_words(key, limit)} in all"
            found.append(failed(name, said, f"ask for less in the profile, or {change}"))
        elif wanted > limit - used:
            left = in_words(key, max(limit - used, Decimal(0)))
            said = f"{key}: a pod asks for {in_words(key, wanted)}, and {left} of {in_words(key, limit)} are left"
            found.append(warning(name, said, f"wait for other pods to end, or {change}"))
    return found


def _counts(one: Asked, quota: Node) -> bool | None:
    """Whether a quota counts such a pod, by its scopes; None where that cannot be said."""
    said = bool(one.requests or one.limits)
    known = {"Terminating": bool(one.pod.timeout), "NotTerminating": not one.pod.timeout}
    known |= {"BestEffort": not said, "NotBestEffort": said}
    scopes = at(quota, "spec", "scopes") or []
    if at(quota, "spec", "scopeSelector") or not isinstance(scopes, list):
        return None
    told = [known.get(text(scope)) for scope in scopes]
    return False if False in told else None if None in told else True


def _wanted(one: Asked, key: str) -> Decimal | None:
    """What a quota's key counts of a pod; None where it counts something else."""
    if key in ("pods", "count/pods"):
        return Decimal(1)
    kind, _, resource = key.partition(".")
    if key in ("cpu", "memory"):
        kind, resource = "requests", key
    if kind not in ("requests", "limits") or resource in ("storage", "ephemeral-storage"):
        return None
    known = one.requests if kind == "requests" else one.limits
    if resource not in ("cpu", "memory") and resource not in known:
        return None
    return known.get(resource, Decimal(0))


def _defaulted(one: Asked, ranges: list[Node]) -> Asked:
    """With the defaults that limit ranges give to containers that say nothing."""
    requests, limits = dict(one.requests), dict(one.limits)
    for limit_range in ranges:
        for limit in mappings(at(limit_range, "spec", "limits")):
            if limit.get("type") != "Container":
                continue
            for name in ("cpu", "memory"):
                least, most = amount(at(limit, "defaultRequest", name)), amount(at(limit, "default", name))
                if most is not None:
                    limits.setdefault(name, most)
                if least is not None or most is not None:
                    requests.setdefault(name, least if least is not None else most or Decimal(0))
    return replace(one, requests=requests, limits=limits)


def _in_range(one: Asked, limit_range: Node, namespace: str) -> list[Finding]:
    """A container above the most or below the least that is allowed."""
    called = text(at(limit_range, "metadata", "name"))
    name, found = f"limit range {called} for {one}", []
    change = f"kubectl edit limitrange {called} -n {namespace}"
    for limit in mappings(at(limit_range, "spec", "limits")):
        if limit.get("type") not in ("Container", "Pod"):
            continue
        for resource in sorted({*one.requests, *one.limits, *mapping(limit.get("max"))}):
            if "/" in resource and resource not in one.requests:
                continue
            most, least = amount(at(limit, "max", resource)), amount(at(limit, "min", resource))
            ratio = amount(at(limit, "maxLimitRequestRatio", resource))
            asks, may = one.requests.get(resource), one.limits.get(resource)
            largest = max((value for value in (asks, may) if value is not None), default=None)
            said = ""
            if most is not None and may is None:
                said = f"{resource}: a limit has to be said there, and is not"
            elif most is not None and largest is not None and largest > most:
                said = f"{resource}: {in_words(resource, largest)} is more than {in_words(resource, most)}"
            elif least is not None and asks is not None and asks < least:
                said = f"{resource}: {in_words(resource, asks)} is less than {in_words(resource, least)}"
            elif ratio is not None and asks and may is not None and may / asks > ratio:
                said = f"{resource}: the limit is {may / asks:.1f} times the request, at most {ratio} are allowed"
            if said:
                mend = f"change requests and limits in the profile, or {change}"
                found.append(failed(name, said, mend))
    return found
