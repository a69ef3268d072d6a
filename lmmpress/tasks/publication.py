"""Task `publish`: the result is checked, reported and registered."""

from pathlib import Path
from typing import TYPE_CHECKING

from lmmpress.progress import say
from lmmpress.tasks.exit_codes import for_people
from lmmpress.tasks.outcome import Outcome, of_result
from lmmpress.tasks.session import Session, working

if TYPE_CHECKING:
    from lmmpress.result import Result


@for_people
def publish(store: str, run: str, report: str) -> Outcome:
    """Check that plain transformers loads the result, register it, and write the report to the path `report`."""
    from lmmpress.engine.final_result import close
    from lmmpress.engine.kept import keep_result, kept_disagreements
    from lmmpress.engine.parts.load import load_as_users_do
    from lmmpress.engine.warm import note_ended
    from lmmpress.reporting import write_report

    with working(store, run, "load") as session:
        result = close(session.run, session.known)
        load_as_users_do(session.run.materials, result.compressed.checkpoint)
        Path(report).parent.mkdir(parents=True, exist_ok=True)
        opened = session.run
        write_report(result, opened.plan, Path(report), kept_disagreements(opened.store, opened.key))
        note_ended(opened.store, opened.key, opened.plan, opened.materials.anatomy, result)
        keep_result(opened.store, opened.key, result)
        record(session, result, store, run)
        if not opened.plan.compare:  # else the task `compare` comes next, and gives the run's lease back
            session.state.release()
        return session.with_link(of_result(result))


def record(session: Session, result: "Result", store: str, run: str) -> bool:
    """Record the whole run in MLflow, which is waited for; whether it is recorded. If not, say how it can be."""
    recorder = session.recorder
    if recorder is None:
        return False
    session.catch_up()
    recorder.end(result, None)
    if recorder.finish(recorder.patience):
        return True
    say(f"{recorder.behind}; nothing is lost: `lmmpress store record {store} {run}` records this run afterwards")
    return False
