"""Checks that the access keys of a store allow what lmmpress needs, and nothing else."""

from collections.abc import Callable

from lmmpress.doctor.finding import Finding, failed, ok, warning
from lmmpress.errors import UserError
from lmmpress.store.bucket import BucketObjects
from lmmpress.store.objects import DeniedError
from lmmpress.store.rights import LIST, READ, Place
from lmmpress.store.rights_probe import Prober


def check_enough(name: str, address: str, where: Place, patience: float) -> Finding | None:
    """A failed finding with the missing rights of the keys; None if they have all rights."""
    lacking = Prober(where, patience).lacking()
    if lacking:
        return failed(name, f"the keys lack {', '.join(lacking)}", mend_rights(address))
    return None


def check_readable(name: str, objects: BucketObjects, landmark: str) -> Finding | None:
    """A failed finding with the missing rights of the keys to read a folder; None if they have all rights."""
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
    """Whether an error was raised because the server denied a request."""
    return isinstance(error, DeniedError)


def check_excess(address: str, where: Place, known: list[Place], patience: float, here: bool) -> Finding:
    """A warning if the keys allow more than tasks need. `known`: the places that the plan names."""
    name, whose = f"keys of {address}", "the keys here" if here else "they"
    excess = Prober(where, patience).excess(known)
    if not excess:
        return ok(name, "they allow nothing else that was tried")
    mend = f"separate keys for pipelines, with the policy that `lmmpress store policy {address}` prints"
    if here:
        mend = f"if pods have the same keys (--inside shows it): {mend}"
    return warning(name, f"{whose} may also {', '.join(excess)}: no task needs that", mend)


def mend_rights(address: str) -> str:
    return f"lmmpress store policy {address} prints what they need: give it to their user"
