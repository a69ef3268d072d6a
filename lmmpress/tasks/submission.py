"""A submission: the plan and the run of one submitted pipeline, stored for all its tasks."""

from pydantic import BaseModel, ValidationError

from lmmpress.errors import UserError
from lmmpress.host.patience import be_patient_from_now
from lmmpress.plan import Plan
from lmmpress.store import Store, open_store
from lmmpress.store.records import SUBMISSION


class Submission(BaseModel):
    """`name` is the registered name of the compressed model, `key` the run key, `original` the teacher's digest.
    `about` is what MLflow is told of the pipeline."""

    plan: Plan
    name: str
    key: str
    original: str
    about: dict[str, str] = {}


def open_submission(store: str, run: str) -> tuple[Store, Submission]:
    """The store at an address and a submission in it. The run has begun, so this process waits for the store from its
    first request on."""
    be_patient_from_now()
    opened = open_store(store)
    return opened, read_submission(opened, run)


def note_submission(store: Store, run: str, submission: Submission) -> None:
    """Keep a submission under its name `run`."""
    # as text: records are written sorted by key, which would lose the order of a plan's stages
    store.write_record(f"{SUBMISSION}{run}", {"submission": submission.model_dump_json()})


def read_submission(store: Store, run: str) -> Submission:
    """The submission of that name; UserError if there is none that this lmmpress can read."""
    try:
        return Submission.model_validate_json((store.read_record(f"{SUBMISSION}{run}") or {}).get("submission", ""))
    except ValidationError:
        raise UserError(f"{store.root_address}: there is no submission {run}, or a newer lmmpress made it") from None
