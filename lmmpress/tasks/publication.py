"""Task `publish`: the result is checked, reported and registered."""

from pathlib import Path

from lmmpress.tasks.exit_codes import for_people
from lmmpress.tasks.outcome import Outcome, of_result
from lmmpress.tasks.session import working


@for_people
def publish(store: str, run: str, report: str) -> Outcome:
    """Check that plain transformers loads what is left, register it, and write the report to the path `report`."""
    from lmmpress.engine.final_result import close
    from lmmpress.engine.parts.load import load_as_users_do
    from lmmpress.engine.run import known_steps
    from lmmpress.reporting import write_report

    with working(store, run, "load") as session:
        known = known_steps(session.run, session.state)
        result = close(session.run, known)
        load_as_users_do(session.run.materials, result.compressed.checkpoint)
        Path(report).parent.mkdir(parents=True, exist_ok=True)
        write_report(result, session.run.plan, Path(report))
        session.record(known)
        if session.recorder:
            session.recorder.end(result, None)
        session.state.release()
        return of_result(result)
