"""The addresses of a plan that pods have to reach."""

from typing import Any

from lmmpress.errors import UserError
from lmmpress.plan import ADDRESSES, Plan
from lmmpress.tasks.cluster_profile import Profile
from lmmpress.tasks.parameters import arguments_of


def reachable_arguments(plan: Plan, name: str, profile: Profile) -> dict[str, Any]:
    """The arguments of a plan for a cluster; UserError if it has an address that pods cannot reach."""
    arguments = arguments_of(plan, name)
    for key in unreachable(arguments, profile):
        raise UserError(
            f"{key} is {arguments[key] or 'not set'}, which pods cannot reach: give s3://bucket/prefix, or a path "
            "on one of the profile's volumes"
        )
    return arguments


def missing_addresses(arguments: dict[str, Any], profile: Profile, who_asks: str) -> list[str]:
    """A warning for each address that pods cannot reach; `who_asks` says who asks for it, and when."""
    return [
        f"{key} ({arguments[key] or 'not set'}) is no address that pods reach: {who_asks}"
        for key in unreachable(arguments, profile)
    ]


def unreachable(arguments: dict[str, Any], profile: Profile) -> tuple[str, ...]:
    """The names of the addresses that pods cannot reach."""
    return tuple(key for key in ADDRESSES if not _reachable(arguments[key], profile))


def _reachable(address: str | None, profile: Profile) -> bool:
    return address is not None and (address.startswith(("s3://", "models:/")) or profile.holds(address))
