"""The keys of a store: enough for it, and for nothing else?"""

from collections.abc import Callable

from lmmpress.doctor.finding import Finding, failed, ok, warning
from lmmpress.errors import UserError
from lmmpress.store.bucket import BucketObjects
from lmmpress.store.objects import DeniedError
from lmmpress.store.probe import Prober
from lmmpress.store.rights import LIST, READ, Place


def check_enough(name: str, address: str, where: Place, patience: float) -> Finding | None:
    """A failure that names the rights which the keys lack; None where they lack none."""
    lacking = Prober(where, patience).lacking()
    if lacking:
        return failed(name, f"the keys lack {', '.join(lacking)}", mend_rights(address))
    return None


def check_readable(name: str, objects: BucketObjects, landmark: str) -> Finding | None:
    """A failure that names the rights which the keys lack to read a folder; None where they lack none."""
    tried: dict[str, Callable[[], object]] = {
        LIST: lambda: next(iter(objects.entries(landmark)), None),
        READ[0]: lambda: objects.read(landmark),
    }
    lacking = []
    for right, request in tried.items():
        try:
            request()
        except UserError as error:
            if not denied(error):
                raise
            lacking.append(right)
    if lacking:
        mend = f"lmmpress store policy STORE --read {objects.address} prints what they need: give it to their user"
        return failed(name, f"the keys lack {', '.join(lacking)}", mend)
    return None


def denied(error: UserError) -> bool:
    """Whether it says that the server denied a request."""
    return isinstance(error, DeniedError)


def check_excess(address: str, where: Place, known: list[Place], patience: float, here: bool) -> Finding:
    """A warning with what the keys may do that no task needs. `known`: the places that the plan names."""
    name, whose = f"keys of {address}", "the keys here" if here else "they"
    found = Prober(where, patience).excess(known)
    if not found:
        return ok(name, "nothing that was tried outside of it is allowed")
    mend = f"keys of their own for pipelines, with the policy that `lmmpress store policy {address}` prints"
    if here:
        mend = f"if pods have the same (--inside tells): {mend}"
    return warning(name, f"{whose} may also {', '.join(found)}: no task needs that", mend)


def mend_rights(address: str) -> str:
    return f"lmmpress store policy {address} prints what they need: give it to their user"
