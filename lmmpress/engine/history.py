"""What was decided of a run so far, as records: read from its state, and held against its plan."""

from collections.abc import Iterable
from typing import Any

from lmmpress.engine.algorithm import Planned, next_step
from lmmpress.errors import UserError
from lmmpress.plan import Plan
from lmmpress.result import StepResult
from lmmpress.store import Store
from lmmpress.store.state import step_of


def read_history(store: Store, plan: Plan, original: str, entries: Iterable[dict[str, Any]]) -> list[StepResult]:
    """The steps that a state's entries say were made of the teacher with digest `original`.

    Raises UserError where one is no step, or not the one that the plan asks for there.
    """
    steps: list[StepResult] = []
    for entry in entries:
        steps.append(read_step(store, next_step(plan, original, steps), len(steps), entry))
    return steps


def read_step(store: Store, planned: Planned | str, number: int, entry: dict[str, Any]) -> StepResult:
    """One entry of a state as the record of the step that was planned; `number` counts from 0."""
    try:
        step = step_of(entry)
    except ValueError:
        raise UserError(
            f"{store.root_address}: step {number + 1} of this run is none of lmmpress's; "
            "`lmmpress store verify --discard` sets the run aside, and it is made again of its records"
        ) from None
    wanted = (planned.parent, planned.stage.name, planned.amount) if isinstance(planned, Planned) else None
    if (step.parent, step.stage, step.removed) != wanted:
        raise UserError(f"{store.root_address}: step {number + 1} of this run is of another plan")
    # where a store lies may change, what was decided does not
    return step.model_copy(update={"address": store.address(step.checkpoint) if step.checkpoint else None})


def write_step(step: StepResult) -> dict[str, Any]:
    """A step as an entry of a state."""
    return step.model_dump(mode="json", exclude={"address"})
