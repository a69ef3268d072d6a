"""Task `gate`: decides a step. It reads a few small records, needs neither rows nor torch, and takes a second."""

from lmmpress.engine.decisions import decided_steps, enter, position
from lmmpress.engine.measured import noted_decision
from lmmpress.tasks.exit_codes import for_people
from lmmpress.tasks.lineage import link_to_lineage
from lmmpress.tasks.outcome import Outcome, of_step
from lmmpress.tasks.submission import open_submission


@for_people
def gate(store: str, run: str, stage: str, index: int) -> Outcome:
    """Decide a step that was measured, and write the decision to the run's state. The tasks after it record it in
    MLflow."""
    opened, asked = open_submission(store, run)
    with opened.run_state(asked.key, holder=run) as state:
        known = decided_steps(opened, asked.plan, asked.original, state)
        number, planned = position(asked.plan, asked.original, known, stage, int(index))
        if number == len(known):
            result = noted_decision(opened, asked.key, asked.plan, planned)
            known.append(enter(opened, asked.plan, state, number, planned, result))
    return of_step(opened, known[number]).linked(link_to_lineage(opened, asked.key))
