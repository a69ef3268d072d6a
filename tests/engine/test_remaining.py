"""How long the steps of a run still take: by what the steps before have taken, if the gate accepts every step."""

import pytest
from support.algorithm import follow

from lmmpress.engine.algorithm import Planned
from lmmpress.engine.remaining import most_steps_after, outlook, step_name
from lmmpress.plan import Plan, parse_plan
from lmmpress.progress import Outlook
from lmmpress.result import StepResult

STAGES = {"block": {"step": 4, "max": 12}, "ffn": {"step": 768, "max": 1536}}
TOOK = {"importance": 10.0, "prune": 5.0, "distill": 100.0, "evaluate": 20.0}


@pytest.fixture
def plan() -> Plan:
    return parse_plan({"model": "s3://m/m", "data": "s3://m/d", "stages": STAGES})


def known(steps: list[StepResult], **seconds: float) -> list[StepResult]:
    return [step.model_copy(update={"seconds": TOOK | seconds}) for step in steps]


def planned_after(plan: Plan, *decisions: str) -> tuple[list[StepResult], Planned]:
    _, steps, planned = follow(plan, list(decisions))  # type: ignore[arg-type]
    assert isinstance(planned, Planned)
    return steps, planned


def test_nothing_is_known_of_the_first_step(plan: Plan) -> None:
    steps, planned = planned_after(plan)
    assert outlook(plan, steps, planned) == Outlook("block, step 1 of 3")


def test_later_are_the_parts_and_the_steps_that_are_to_come(plan: Plan) -> None:
    """After the first of five steps, of which each took 135 s: three come after the second."""
    steps, planned = planned_after(plan, "accepted")
    found = outlook(plan, known(steps), planned)
    assert found.step == "block, step 2 of 3"
    assert found.usual == TOOK
    assert found.later == {
        "importance": 3 * 135 + 125,
        "prune": 3 * 135 + 120,
        "distill": 3 * 135 + 20,
        "evaluate": 3 * 135,
    }


def test_a_stage_that_has_ended_takes_no_longer(plan: Plan) -> None:
    steps, planned = planned_after(plan, "rolled back")
    found = outlook(plan, known(steps), planned)
    assert (found.step, found.later["evaluate"]) == ("ffn, step 1 of 2", 135)
    steps, planned = planned_after(plan, "rolled back", "accepted")
    assert outlook(plan, known(steps), planned).later["evaluate"] == 0


def test_the_mean_of_the_steps_counts(plan: Plan) -> None:
    steps, planned = planned_after(plan, "accepted", "accepted")
    first, second = known(steps)
    found = outlook(plan, [first, *known([second], distill=50.0)], planned)
    assert found.usual["distill"] == 75


def test_of_a_warm_run_nothing_is_said(plan: Plan) -> None:
    warm = plan.model_copy(update={"start_from": "last"})
    assert step_name(warm, "block", 2) == "block, step 2"
    steps, planned = planned_after(plan, "accepted")
    scheduled = plan.model_copy(update={"schedule": object()})
    assert outlook(scheduled, known(steps), planned) == Outlook("block, step 2")


def test_every_tower_of_a_stage_counts(plan: Plan) -> None:
    wide = plan.model_copy(update={"towers": ["language", "vision"]})
    assert most_steps_after(wide, "block", 0) == 5 + 4
    assert most_steps_after(wide, "ffn", 3) == 0
