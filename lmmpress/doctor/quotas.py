"""Checks whether a quota or a limit range would reject a pod before it is scheduled."""

from dataclasses import replace
from decimal import Decimal

from lmmpress.doctor.finding import Finding, failed, ok, unknown, warning
from lmmpress.doctor.pod_demands import Demand, demands_of, home, in_words
from lmmpress.pods.cluster_reader import Cluster, Node, amount, at, mapping, mappings, text
from lmmpress.tasks.cluster_profile import Profile


def check_quotas(profile: Profile, cluster: Cluster, components: tuple[str, ...]) -> list[Finding]:
    """The quotas and limit ranges that would stop pods of these components; one finding if there are none."""
    namespace = home(profile)
    quotas = cluster.items(f"/api/v1/namespaces/{namespace}/resourcequotas")
    ranges = cluster.items(f"/api/v1/namespaces/{namespace}/limitranges")
    found: list[Finding] = []
    for one in demands_of(profile, components):
        with_defaults = _defaulted(one, ranges)
        for limit_range in ranges:
            found += _in_range(with_defaults, limit_range, namespace)
        for quota in quotas:
            found += _in_quota(with_defaults, quota, namespace)
    count = f"{len(quotas)} quotas and {len(ranges)} limit ranges" if quotas or ranges else "no quota, no limit range"
    return found or [ok("quotas", f"{count} in {namespace}; nothing stops a pod")]


def _in_quota(one: Demand, quota: Node, namespace: str) -> list[Finding]:
    """Compare a pod with a quota: failed if it needs more than the whole quota, a warning if more than is free now."""
    name = f"quota {text(at(quota, 'metadata', 'name'))} for {one}"
    change = f"kubectl edit resourcequota {text(at(quota, 'metadata', 'name'))} -n {namespace}"
    counts = _counts(one, quota)
    if counts is None:
        mend = f"kubectl describe resourcequota {text(at(quota, 'metadata', 'name'))} -n {namespace}"
        return [unknown(name, "its scopes do not show whether it counts our pods", mend)]
    if not counts:
        return []
    hard = mapping(at(quota, "status", "hard")) or mapping(at(quota, "spec", "hard"))
    found = []
    for key, value in hard.items():
        limit, used = amount(value), amount(at(quota, "status", "used", key)) or Decimal(0)
        requested = _at_once(one, key)
        if limit is None or requested is None:
            continue
        if requested == 0:
            if key in ("requests.cpu", "requests.memory", "limits.cpu", "limits.memory", "cpu", "memory"):
                kind, _, resource = key.rpartition(".")
                mend = f"set {kind or 'requests'}.{resource} in the profile's defaults, or a LimitRange with a default"
                found.append(failed(name, f"a pod must set {key} there, but ours does not", mend))
        elif requested > limit:
            said = f"{key}: {one.ask} {in_words(key, requested)}, the quota is {in_words(key, limit)} in all"
            found.append(failed(name, said, f"ask for less in the profile, or {change}"))
        elif requested > limit - used:
            left = in_words(key, max(limit - used, Decimal(0)))
            said = f"{key}: {one.ask} {in_words(key, requested)}, but {left} of {in_words(key, limit)} are left"
            found.append(warning(name, said, f"wait for other pods to end, or {change}"))
    return found


def _counts(one: Demand, quota: Node) -> bool | None:
    """Whether a quota counts such a pod, by its scopes; None if that is not certain."""
    has_resources = bool(one.requests or one.limits)
    known = {"Terminating": bool(one.pod.timeout), "NotTerminating": not one.pod.timeout}
    known |= {"BestEffort": not has_resources, "NotBestEffort": has_resources}
    scopes = at(quota, "spec", "scopes") or []
    if at(quota, "spec", "scopeSelector") or not isinstance(scopes, list):
        return None
    matched = [known.get(text(scope)) for scope in scopes]
    return False if False in matched else None if None in matched else True


def _at_once(one: Demand, key: str) -> Decimal | None:
    """The amount of all pods of a demand that counts for a quota's key; None if the key does not concern pods, 0 if a
    pod does not set it."""
    requested = _requested(one, key)
    if not requested or one.beside is None:
        return requested
    return one.count * requested + (_requested(one.beside, key) or Decimal(0))


def _requested(one: Demand, key: str) -> Decimal | None:
    """The amount of a pod that counts for a quota's key; None if the key does not concern pods."""
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


def _defaulted(one: Demand, ranges: list[Node]) -> Demand:
    """A demand with the defaults that limit ranges give to containers without requests and limits."""
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
    beside = one.beside and _defaulted(one.beside, ranges)
    return replace(one, requests=requests, limits=limits, beside=beside)


def _in_range(one: Demand, limit_range: Node, namespace: str) -> list[Finding]:
    """Compare a container with the maximum, the minimum and the ratio of a limit range."""
    range_name = text(at(limit_range, "metadata", "name"))
    name, found = f"limit range {range_name} for {one}", []
    change = f"kubectl edit limitrange {range_name} -n {namespace}"
    for limit in mappings(at(limit_range, "spec", "limits")):
        if limit.get("type") not in ("Container", "Pod"):
            continue
        for resource in sorted({*one.requests, *one.limits, *mapping(limit.get("max"))}):
            if "/" in resource and resource not in one.requests:
                continue
            most, least = amount(at(limit, "max", resource)), amount(at(limit, "min", resource))
            ratio = amount(at(limit, "maxLimitRequestRatio", resource))
            request, cap = one.requests.get(resource), one.limits.get(resource)
            largest = max((value for value in (request, cap) if value is not None), default=None)
            said = ""
            if most is not None and cap is None:
                said = f"{resource}: a pod must set a limit there, but ours does not"
            elif most is not None and largest is not None and largest > most:
                said = f"{resource}: {in_words(resource, largest)} is more than {in_words(resource, most)}"
            elif least is not None and request is not None and request < least:
                said = f"{resource}: {in_words(resource, request)} is less than {in_words(resource, least)}"
            elif ratio is not None and request and cap is not None and cap / request > ratio:
                said = f"{resource}: the limit is {cap / request:.1f} times the request, at most {ratio} are allowed"
            if said:
                mend = f"change requests and limits in the profile, or {change}"
                found.append(failed(name, said, mend))
    return found
