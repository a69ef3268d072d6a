"""Reads the decided steps of a run from its state, and checks them against its plan."""

from collections.abc import Iterable
from typing import Any

from lmmpress.engine.algorithm import Planned, next_step
from lmmpress.errors import UserError
from lmmpress.plan import Plan
from lmmpress.result import StepResult, metric_title
from lmmpress.store import Store
from lmmpress.store.run_state import step_of


def read_history(store: Store, plan: Plan, original: str, entries: Iterable[dict[str, Any]]) -> list[StepResult]:
    """The steps in the entries of a run state, for the teacher with digest `original`.

    Raises UserError if an entry is not a step, or not the step that the plan has there.
    """
    steps: list[StepResult] = []
    for entry in entries:
        steps.append(read_step(store, next_step(plan, original, steps), len(steps), entry))
    return steps


def read_step(store: Store, planned: Planned | str, number: int, entry: dict[str, Any]) -> StepResult:
    """One entry of a run state as the result of the planned step; `number` counts from 0."""
    try:
        step = step_of(entry)
    except ValueError:
        raise UserError(
            f"{store.root_address}: step {number + 1} of this run cannot be read; `lmmpress store verify --discard` "
            "sets the state of the run aside, and the steps are then rebuilt from their records"
        ) from None
    expected = None
    if isinstance(planned, Planned):
        expected = (planned.parent, planned.stage.name, planned.removed, list(planned.jump))
    if (step.parent, step.stage, step.removed, step.jump) != expected:
        raise UserError(f"{store.root_address}: step {number + 1} of this run is of another plan")
    # addresses are not stored, since a store may move
    return step.model_copy(update={"address": store.address(step.checkpoint) if step.checkpoint else None})


def write_step(step: StepResult) -> dict[str, Any]:
    """A step as an entry of a run state. One that is no jump, with the plan's learning rate and no economy, of rows of
    one task that are right or wrong to the last token, has the form that older versions read, too."""
    known = set() if step.jump else {"jump"}
    known |= {name for name in ("learning_rate", "economy") if getattr(step, name) is None}
    if metric_title(step.metrics) == "accuracy" and len(step.drop_by_task) <= 1:
        known |= {"metrics", "drop_by_task"}  # which say what the other fields say
    return step.model_dump(mode="json", exclude={"address"} | known)
