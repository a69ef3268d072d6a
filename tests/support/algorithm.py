"""Algorithm 1 without models: decisions that a test tells, and the steps that follow them."""

from lmmpress.engine.algorithm import Planned, next_step
from lmmpress.plan import Plan
from lmmpress.result import Decision, StepResult


def decided(planned: Planned, decision: Decision, number: int) -> StepResult:
    return StepResult(
        stage=planned.stage.name,
        index=planned.index,
        tower="language",
        removed=planned.removed,
        decision=decision,
        reason="told so by the test",
        parent=planned.parent,
        checkpoint=f"checkpoint {number}",
        address=None,
        parameters=1,
        parameters_by_tower={},
        accuracy_pruned=None,
        accuracy=None,
        accuracy_by_task={},
        reference=1.0,
        drop=None,
        drop_interval=None,
        score_reliability=None,
        loss=[],
        seconds={},
        jump=list(planned.jump),
    )


def follow(plan: Plan, decisions: list[Decision]) -> tuple[list[Planned], list[StepResult], Planned | str]:
    """The planned steps, each with the next of the decisions, until these end."""
    steps: list[Planned] = []
    history: list[StepResult] = []
    for number, decision in enumerate(decisions):
        planned = next_step(plan, "original", history)
        if isinstance(planned, str):
            break
        steps.append(planned)
        history.append(decided(planned, decision, number))
    return steps, history, next_step(plan, "original", history)
