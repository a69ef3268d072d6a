"""What a store keeps of a run that has ended, for those who look later: its result, the rows on which its ends
disagree, and the comparison of its ends.

Whoever may write to the store may have written these records, so they are checked as they are read.
"""

import base64
import json

from pydantic import ValidationError

from lmmpress.errors import AwayError, UserError
from lmmpress.evaluation.comparison import WITH_PICTURE, Comparison, Differing
from lmmpress.evaluation.disagreements import Disagreements
from lmmpress.printing.one_line import printable
from lmmpress.result import Result
from lmmpress.store import Store
from lmmpress.store.records import COMPARED, DISAGREEMENTS, OF, RESULT, UNCOMPARED, Subjects

MOST = 16 << 20
"""Bytes of the rows with different answers that are kept of a comparison: the worst, as many as fit."""
_LONGEST_WHY = 500


def keep_result(store: Store, key: str, result: Result) -> None:
    """Keep the result of the run with this key; the first one stays."""
    store.write_record(f"{RESULT}{key}", {"result": result.model_dump(mode="json")})


def kept_result(store: Store, key: str) -> Result | None:
    """The result of a run; None where the store has none. UserError where it is none that this lmmpress can read."""
    record = store.read_record(f"{RESULT}{key}")
    if record is None:
        return None
    try:
        return Result.model_validate(record["result"])
    except ValidationError:
        raise _unreadable(store, f"{RESULT}{key}", "result") from None


def keep_disagreements(store: Store, key: str, found: Disagreements) -> None:
    """Keep the rows on which the ends of the run with this key disagree; the first ones stay."""
    store.write_record(f"{DISAGREEMENTS}{key}", {"disagreements": found.model_dump(mode="json")})


def kept_disagreements(store: Store, key: str) -> Disagreements | None:
    """The rows on which the ends of a run disagree; None where the store has none that this lmmpress can read: no
    report fails for them."""
    try:
        record = store.read_record(f"{DISAGREEMENTS}{key}")
        return None if record is None else Disagreements.model_validate(record["disagreements"]).drawn_anew()
    except AwayError:
        raise
    except (UserError, ValidationError):
        return None


def keep_comparison(store: Store, key: str, found: Comparison) -> None:
    """Keep the comparison of the ends of the run with this key, with the pictures of its worst rows; the first one
    stays."""
    rows = _that_fit(found.differing)
    pictures = [row.picture and base64.b64encode(row.picture).decode("ascii") for row in rows[:WITH_PICTURE]]
    of = Subjects(checkpoints=sorted({found.a.checkpoint, found.b.checkpoint}), data=[found.data.digest])
    kept = found.model_copy(update={"differing": rows}).model_dump(mode="json")
    store.write_record(f"{COMPARED}{key}", {"comparison": kept, "pictures": pictures, OF: of.model_dump()})


def kept_comparison(store: Store, key: str) -> Comparison | None:
    """The comparison of the ends of a run, with pictures; None where the store has none. UserError where it is none
    that this lmmpress can read."""
    record = store.read_record(f"{COMPARED}{key}")
    if record is None:
        return None
    try:
        found = Comparison.model_validate(record["comparison"])
        pictures = [one and base64.b64decode(one, validate=True) for one in record["pictures"]]
    except ValueError:  # not of that form, or a picture that is not base64
        raise _unreadable(store, f"{COMPARED}{key}", "comparison") from None
    worst = [
        row.model_copy(update={"picture": picture}) for row, picture in zip(found.differing, pictures, strict=False)
    ]
    return found.model_copy(update={"differing": [*worst, *found.differing[len(worst) :]]})


def note_uncompared(store: Store, key: str, why: str) -> None:
    """Note why the ends of a run could not be compared; the first reason stays."""
    store.write_record(f"{UNCOMPARED}{key}", {"why": why})


def why_uncompared(store: Store, key: str) -> str:
    """Why the ends of a run could not be compared; empty where nothing is noted."""
    record = store.read_record(f"{UNCOMPARED}{key}")
    return printable(record["why"], _LONGEST_WHY) if record else ""


def _that_fit(rows: list[Differing]) -> list[Differing]:
    size = 0
    for number, row in enumerate(rows):
        size += len(json.dumps(row.model_dump(mode="json"), indent=1))  # a record has 6 bytes for a Chinese character
        if size > MOST:
            return rows[:number]
    return rows


def _unreadable(store: Store, name: str, what: str) -> UserError:
    return UserError(f"{store.root_address}: records/{name}.json holds no {what} that this lmmpress can read")
