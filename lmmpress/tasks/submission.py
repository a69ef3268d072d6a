"""A submission: what one submitted pipeline works for, noted in the store for all its tasks."""

from pydantic import BaseModel, ValidationError

from lmmpress.errors import UserError
from lmmpress.plan import Plan
from lmmpress.store import Store
from lmmpress.store.records import SUBMISSION


class Submission(BaseModel):
    """`name` is what the compressed model is registered as, `key` the run's, `original` the digest of its teacher."""

    plan: Plan
    name: str
    key: str
    original: str


def note_submission(store: Store, run: str, submission: Submission) -> None:
    """Keep a submission under its name `run`."""
    # as text: records are written in the order of their keys, and a plan's stages have an order of their own
    store.write_record(f"{SUBMISSION}{run}", {"submission": submission.model_dump_json()})


def read_submission(store: Store, run: str) -> Submission:
    """The submission of that name; UserError where there is none that this lmmpress can read."""
    try:
        return Submission.model_validate_json((store.read_record(f"{SUBMISSION}{run}") or {}).get("submission", ""))
    except ValidationError:
        raise UserError(f"{store.root_address}: there is no submission {run}, or a newer lmmpress made it") from None
