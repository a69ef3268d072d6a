"""What the config of a plan's model says, where this machine reaches the model: whoever submits may not."""

from typing import TYPE_CHECKING

from lmmpress.errors import UserError
from lmmpress.plan import Plan

if TYPE_CHECKING:  # torch takes seconds to import
    from lmmpress.lmm.anatomy import Anatomy


def reached_anatomy(plan: Plan) -> "Anatomy | None":
    """The anatomy of a plan's model; None if this machine does not reach the model. The first task of a pipeline says
    what is wrong with it."""
    from lmmpress.lmm.read_anatomy import anatomy_of, read_config
    from lmmpress.store import open_checkpoint

    try:
        return anatomy_of(read_config(open_checkpoint(plan.model, weights=False)))
    except UserError:
        return None


def numbers_where_known(plan: Plan) -> Plan:
    """A plan with whole numbers in place of its shares, for an estimate; as it is if this machine does not reach its
    model, or the model has nothing to remove there."""
    if plan.in_numbers:
        return plan
    from lmmpress.pruning.amounts import with_numbers

    anatomy = reached_anatomy(plan)
    try:
        return plan if anatomy is None else with_numbers(plan, anatomy)
    except UserError:
        return plan
