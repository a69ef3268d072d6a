"""Task `stage`: all steps of a stage in one task, which can be started again at any moment."""

from typing import TYPE_CHECKING

from lmmpress.engine.algorithm import Planned, next_step
from lmmpress.errors import UserError
from lmmpress.tasks.exit_codes import for_people
from lmmpress.tasks.outcome import Outcome, accuracy_text, address_left, of_step, table
from lmmpress.tasks.session import working

if TYPE_CHECKING:
    from lmmpress.engine.part_names import Part


@for_people
def compress_stage(store: str, run: str, stage: str) -> Outcome:
    """All steps of a stage that are not made yet, if it is its turn; after the last stage the closing measurements."""
    from lmmpress.engine.final_result import measure_ends
    from lmmpress.engine.run import check_original, describe, make_steps

    parts: tuple[Part, ...] = ("sight", "importance", "prune", "distill", "evaluate", "speed")
    with working(store, run, *parts) as session:
        opened, recorder = session.run, session.recorder
        check_original(opened)
        start = describe(opened)
        if recorder:
            recorder.begin(start)
        known = make_steps(opened, session.state, recorder.step if recorder else lambda step: None, stage)
        own = [step for step in known if step.stage == stage]
        if not own:
            raise UserError(f"stage {stage} cannot begin: a stage before it has not ended")
        if not isinstance(next_step(opened.plan, opened.original, known), Planned):
            measure_ends(opened, known)
        rows = [[step.index + 1, step.decision, step.parameters, accuracy_text(step.accuracy)] for step in own]
        summary = table(["step", "decision", "parameters", "accuracy"], rows)
        return Outcome(address_left(opened.store, own[-1]), summary, of_step(opened.store, own[-1]).metrics)
