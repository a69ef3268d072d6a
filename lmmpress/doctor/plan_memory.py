"""Checks that a plan fits into the memory of the pods and of the cluster's cards, by the numbers of `lmmpress plan`."""

from dataclasses import replace
from typing import TYPE_CHECKING

from lmmpress.doctor.finding import Finding, failed, ok, warning
from lmmpress.errors import UserError
from lmmpress.plan import Plan
from lmmpress.pods.cluster_reader import Cluster, UnseenError, at, text
from lmmpress.printing.numbers import in_gib
from lmmpress.tasks.cluster_profile import Profile
from lmmpress.tasks.granularity import Granularity
from lmmpress.tasks.pod_memory import memory_warnings
from lmmpress.tasks.reached_model import reached_anatomy

if TYPE_CHECKING:  # torch takes seconds to import
    from lmmpress.pruning.foreseen import Foresight

_NAME = "memory of the plan"
_MIB = 1 << 20
_LABEL = "nvidia.com/gpu.memory"
"""A node's label, in MiB, which NVIDIA's GPU feature discovery writes."""


def check_plan_memory(plan: Plan, granularity: Granularity, profile: Profile, cluster: Cluster) -> list[Finding]:
    """Check the memory of the pods, and that of the largest card, where nodes say how much their cards have and the
    model can be read from here."""
    mend = "set its limits.memory in the profile"
    found = [warning(_NAME, line, mend) for line in memory_warnings(plan, profile, granularity)]
    try:
        labels = [text(at(node, "metadata", "labels", _LABEL)) for node in cluster.items("/api/v1/nodes")]
    except UnseenError:  # the check of the nodes says so
        return found
    cards, count = [int(one) for one in labels if one.isdigit()], profile.pod("distill").gpus
    seen = _on_card(plan, max(cards) * _MIB, count) if cards and count else None
    if seen is None:
        return found
    said = (
        f"at most {in_gib(seen.worst.memory)} of the {in_gib(seen.hardware.memory)} of the largest card "
        f"({seen.worst.part} of {seen.worst.name}; rows are assumed)"
    )
    return [*found, ok(_NAME, said) if seen.fits else failed(_NAME, said, seen.advice)]


def _on_card(plan: Plan, memory: int, count: int) -> "Foresight | None":
    """What a plan takes on cards of so much memory, with rows of assumed lengths; None if its model is out of reach, or
    the plan does not fit it: the first task says so."""
    from lmmpress.pruning.amounts import with_numbers
    from lmmpress.pruning.foreseen import foresight
    from lmmpress.pruning.hardware import hardware_of
    from lmmpress.pruning.row_shapes import assumed_rows

    anatomy = reached_anatomy(plan)
    if anatomy is None:
        return None
    card = replace(hardware_of("a100-80gb", 1), name="the cluster's card", memory=memory, count=count)
    try:
        plan = with_numbers(plan, anatomy)
        return foresight(anatomy, plan, card, assumed_rows(plan, anatomy))
    except UserError:
        return None
