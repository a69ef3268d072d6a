"""Task `stage`: all steps of a stage in one task, which can be started again at any moment."""

from typing import TYPE_CHECKING

from lmmpress.engine.algorithm import Planned, next_step
from lmmpress.errors import UserError
from lmmpress.tasks.exit_codes import for_people
from lmmpress.tasks.outcome import Outcome, accuracy_text, address_left, of_step, table
from lmmpress.tasks.session import working

if TYPE_CHECKING:
    from lmmpress.engine.part_names import Part
    from lmmpress.plan import Plan


@for_people
def compress_stage(store: str, run: str, stage: str) -> Outcome:
    """Make the open steps of a stage, if it is its turn; after the last stage, take the closing measurements."""
    from lmmpress.engine.final_result import measure_ends
    from lmmpress.engine.run import check_original, make_steps

    parts: tuple[Part, ...] = ("sight", "importance", "prune", "distill", "evaluate", "speed")
    with working(store, run, *parts) as session:
        opened, recorder = session.run, session.recorder
        check_original(opened)
        session.begin_recording()
        known = make_steps(opened, session.state, recorder.step if recorder else lambda step: None, stage)
        own = [step for step in known if step.stage == stage]
        planned = next_step(opened.plan, opened.original, known)
        if not isinstance(planned, Planned):
            measure_ends(opened, known)
        elif not own and not _is_passed(opened.plan, stage, planned):
            raise UserError(f"stage {stage} cannot begin: a stage before it has not ended")
        if not own:
            summary = "A step of an earlier stage has gone over this one, or nothing of it was left to do."
            left = address_left(opened.store, known[-1]) if known else opened.store.address(opened.original)
            return session.with_link(Outcome(left, summary))
        rows = [[step.index + 1, step.decision, step.parameters, accuracy_text(step.accuracy)] for step in own]
        summary = table(["step", "decision", "parameters", "accuracy"], rows)
        left, metrics = address_left(opened.store, own[-1]), of_step(opened.store, own[-1]).metrics
        return session.with_link(Outcome(left, summary, metrics))


def _is_passed(plan: "Plan", stage: str, planned: Planned) -> bool:
    """Whether the step that is due belongs to a stage after this one."""
    names = [one.name for one in plan.stages]
    return names.index(planned.stage.name) > names.index(stage)
