"""Records a run in MLflow afterwards: one that went on while MLflow did not answer."""

from lmmpress.engine.algorithm import Planned, next_step
from lmmpress.errors import UserError
from lmmpress.store import Store, open_store
from lmmpress.store.kinds import RECORDS, stem
from lmmpress.store.records import SUBMISSION
from lmmpress.tasks.lineage import URI, tracking_uri
from lmmpress.tasks.publication import record
from lmmpress.tasks.session import working


def record_run(address: str, run: str) -> tuple[int, bool]:
    """Record the run that a pipeline has made in the store at `address`: how many steps it has, and whether it has
    ended. `run` is the name of a submission, or a run key, or how it begins.

    Raises UserError if there is no such run, if another process works on it, and if MLflow does not answer.
    """
    if not tracking_uri():
        raise UserError(f"{URI} is not set: it names the MLflow that the run is recorded in")
    name = submission_named(open_store(address, make=False), run)
    with working(address, name) as session:
        if session.recorder is None:
            raise UserError(f"{URI} names no MLflow")
        session.recorder.take_over(session.run.key)
        if isinstance(next_step(session.run.plan, session.run.original, session.known), Planned):
            session.catch_up()
            if not session.recorder.finish(60):
                raise session.recorder.behind or UserError("MLflow takes too long; try again")
            ended = False
        else:
            from lmmpress.engine.final_result import close

            if not record(session, close(session.run, session.known), address, name):
                raise session.recorder.behind or UserError("MLflow takes too long; try again")
            ended = True
        session.state.release()
        return len(session.known), ended


def submission_named(store: Store, run: str) -> str:
    """The name of the newest submission of a run; UserError if a store has none."""
    if store.read_record(f"{SUBMISSION}{run}") is not None:
        return run
    entries = list(store.objects.entries(f"{RECORDS.folder}/{SUBMISSION}{run[:12]}")) if len(run) >= 4 else []
    if len({stem(entry.name).removeprefix(SUBMISSION)[:12] for entry in entries}) > 1:
        raise UserError(f"{store.root_address}: several runs have a key that begins with {run}; give more of it")
    if not entries:
        raise UserError(
            f"{store.root_address}: no pipeline has made a run {run}; a run of `lmmpress run` is recorded by --resume"
        )
    newest = max(entries, key=lambda entry: entry.modified)
    return stem(newest.name).removeprefix(SUBMISSION)
