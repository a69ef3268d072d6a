"""Which granularity a workflow has.

Argo compresses the object of a workflow by itself where it is large. By step it grows by about 9 kB for each step that
is made (0.74 kB a node, measured with Argo 4.0.8; a tenth of that compressed). So what limits a workflow is not its
size, but how deep its templates may call each other.
"""

from dataclasses import dataclass

from lmmpress.argo.template import DEEPEST
from lmmpress.errors import UserError
from lmmpress.plan import Plan
from lmmpress.tasks.granularity import Choice, Granularity, refuse_jumps
from lmmpress.tasks.reached_model import numbers_where_known


@dataclass(frozen=True)
class Fit:
    """The granularity of a workflow, and why, for a person."""

    granularity: Granularity
    said: str


def fit(plan: Plan, choice: Choice = Choice.auto) -> Fit:
    """Choose the granularity of a plan's workflow; UserError if Argo could not follow all steps of a stage."""
    plan = numbers_where_known(plan)
    most, stage = max(((plan.most_steps(stage), stage.name) for stage in plan.stages), default=(0, ""))
    reason = f"stage {stage} may have {most} steps, and by step Argo follows {DEEPEST} of a stage"
    if plan.start_from and choice == Choice.auto:
        return Fit(Granularity.stage, "by stage: start_from makes jumps")
    if choice != Choice.auto:
        refuse_jumps(plan, Granularity(choice))
        if choice == Choice.step and most > DEEPEST:
            raise UserError(f"{reason}: take --granularity stage")
        return Fit(Granularity(choice), f"by {choice}")
    return Fit(Granularity.stage, f"by stage: {reason}") if most > DEEPEST else Fit(Granularity.step, "by step")
