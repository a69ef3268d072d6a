"""The decided steps of a run: read from its state, found by their number, and added. Needs no torch."""

from lmmpress.engine.algorithm import Planned, next_step
from lmmpress.engine.resume import read_history, read_step, write_step
from lmmpress.errors import UserError
from lmmpress.plan import Plan
from lmmpress.progress import note, say
from lmmpress.result import StepResult, metric_title
from lmmpress.store import Store
from lmmpress.store.run_state import RunState


def decided_steps(store: Store, plan: Plan, original: str, state: RunState) -> list[StepResult]:
    """The steps decided so far."""
    return read_history(store, plan, original, state.history())


def position(plan: Plan, original: str, known: list[StepResult], stage: str, index: int) -> tuple[int, Planned]:
    """A step's number in the run, and the step: a known one or the next one. UserError if it is neither."""
    for number in range(len(known) + 1):
        planned = next_step(plan, original, known[:number])
        if isinstance(planned, Planned) and (planned.stage.name, planned.index) == (stage, index):
            return number, planned
    raise UserError(f"step {index + 1} of stage {stage} is not due: {len(known)} steps of this run are decided")


def enter(store: Store, plan: Plan, state: RunState, number: int, planned: Planned, result: StepResult) -> StepResult:
    """Write a step's result to the run state, as the one with that number. If another process has decided the step
    first, that process's result is returned."""
    entry = state.decide(number, write_step(result))
    step = read_step(store, planned, number, entry)
    report_step(step, number + 1, plan)
    return step


def report_step(step: StepResult, number: int, plan: Plan) -> None:
    """Say what was decided of a step, in one line; `number` counts from 1."""
    after = "not finite" if step.accuracy is None else f"{step.accuracy:.4f}"
    rate = f" at {step.learning_rate:.2g}" if step.learning_rate else ""
    most = "" if plan.schedule else f"/{sum(map(plan.most_steps, plan.stages))}"  # a warm run makes as few as it can
    line = (
        f"step {number}{most} {step.title}: {step.parameters:,} parameters, {metric_title(step.metrics)} "
        f"{step.accuracy_pruned:.4f} pruned, {after} distilled{rate}: {step.decision} ({step.reason})"
    )
    say(line)
    note(step=line)
