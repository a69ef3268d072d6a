"""What the records of a store hold. A store may be a stranger's: what is read of it is held against this first.

A record whose name is none of those below may hold any JSON object.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lmmpress.store.manifest import first_fault

OF = "of"
"""The key under which a record lists its `Subjects`."""
IMPORTANCE = "importance-"
"""How the names begin of the records of importance scores. The scores are tensors of the same name."""
RUN, DTYPE, SUBMISSION = "run-", "dtype-", "submission-"
"""How the names of records begin that are not those of a part of a step; a run's key follows, or its beginning."""
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Subjects(BaseModel):
    """What a record, and the tensors of its name, were computed of: checkpoints, and splits of data, by digest."""

    model_config = ConfigDict(extra="forbid")

    checkpoints: list[Digest]
    data: list[Digest] = []


class RunNote(BaseModel):
    """What a run is about. `taken_in`: its teacher came from outside of the store, and can come from there again."""

    teacher: Digest
    data: list[Digest]
    taken_in: bool


class _Part(BaseModel):
    """What a part of a step found, and the seconds that took; later versions may say more.

    A store holds the records of every version that has worked in it: what is asked for here, all of them say.
    """

    model_config = ConfigDict(extra="allow")

    seconds: float
    of: Subjects | None = None


class _Importance(_Part):
    reliability: float | None


class _Prune(_Part):
    checkpoint: Digest


class _Distill(_Part):
    checkpoint: Digest | None
    loss: list[float]


class _Evaluate(_Part):
    right: Annotated[str, Field(pattern="^[01]*$")]


class _Speed(_Part):
    speeds: list[dict[str, Any]]  # as the version that measured them told them
    environment: dict[str, str]


class _Dtype(BaseModel):
    model_config = ConfigDict(extra="forbid")  # it is laid over a plan

    dtype: Literal["float32", "bfloat16"]


class _Submission(BaseModel):
    submission: str


_SHAPES: dict[str, type[BaseModel]] = {
    IMPORTANCE: _Importance,
    "prune-": _Prune,
    "distill-": _Distill,
    "evaluate-": _Evaluate,
    "speed-": _Speed,
    "load-": _Part,
    RUN: RunNote,
    DTYPE: _Dtype,
    SUBMISSION: _Submission,
}
_NAME = re.compile("([a-z]+-)([0-9a-f]{64}|[0-9a-f]{12}-[0-9a-f]{8})")


def fault_of(name: str, record: dict[str, Any]) -> str | None:
    """Why a record is not what its name says; None where it is."""
    found = _NAME.fullmatch(name)
    shape = _SHAPES.get(found[1]) if found else None
    try:
        if shape is not None:
            shape.model_validate(record)
        elif OF in record:
            Subjects.model_validate(record[OF])
    except ValidationError as error:
        return f"is no such record: {first_fault(error)}"
    return None


def subjects_of(record: dict[str, Any]) -> Subjects | None:
    """What a record was computed of; None where it does not say so, as those of older versions do not."""
    try:
        return Subjects.model_validate(record[OF])
    except (KeyError, ValidationError):
        return None
