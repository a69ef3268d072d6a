"""What the records of a store hold. A store may come from a stranger, so each record is checked when it is read.

A record whose name begins with none of the words below may hold any JSON object.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from lmmpress.settings.schedule import MOST_STEPS, Schedule, ScheduledStep
from lmmpress.store.manifest import first_fault

OF = "of"
"""The key under which a record lists its `Subjects`."""
IMPORTANCE = "importance-"
"""How the names begin of the records of importance scores. The scores are tensors of the same name."""
MEASURED = "measured-"
"""How the names begin of the records of steps that await the gate."""
RUN, DTYPE, SUBMISSION, SPLITS, LINEAGE = "run-", "dtype-", "submission-", "splits-", "lineage-"
APPROVAL, ENDED = "approval-", "ended-"
RESULT, COMPARED, UNCOMPARED = "result-", "compared-", "uncompared-"
DISAGREEMENTS = "disagreements-"
"""How the names of records of a whole run begin. The run key follows, or its beginning."""
TRIED = "tried-"
"""How the names begin of the notes of tasks that failed; `run` is the submission that the task worked for."""
WARM = "warm-"
"""How the names begin of the records that keep which run a warm run started from."""
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Subjects(BaseModel):
    """What a record and the tensors of its name were computed from: checkpoints and splits of data, by digest."""

    model_config = ConfigDict(extra="forbid")

    checkpoints: list[Digest]
    data: list[Digest] = []

    def cover(self, others: "Subjects") -> bool:
        """Whether all of the others are among these."""
        return set(self.checkpoints) >= set(others.checkpoints) and set(self.data) >= set(others.data)


class RunNote(BaseModel):
    """Teacher and data of a run. `taken_in`: the teacher was copied into the store from outside, which can be done
    again."""

    teacher: Digest
    data: list[Digest]
    taken_in: bool


class _Part(BaseModel):
    """What a part of a step found, and the seconds that it took.

    A store holds records of every version of lmmpress that has used it. The fields here are those that all versions
    write; later versions may add others.
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
    """`right` if each row is right or wrong, else `values`."""

    right: Annotated[str, Field(pattern="^[01]*$")] | None = None
    values: list[FiniteFloat] | None = None

    @model_validator(mode="after")
    def _has_one(self) -> "_Evaluate":
        if (self.right is None) == (self.values is None):
            raise ValueError("it holds either right or values")
        return self


class _Speed(_Part):
    speeds: list[dict[str, Any]]  # their keys depend on the version that measured them
    environment: dict[str, str]


class _Dtype(BaseModel):
    model_config = ConfigDict(extra="forbid")  # it replaces values of a plan

    dtype: Literal["float32", "bfloat16"]


class _Submission(BaseModel):
    submission: str


class EndedNote(BaseModel):
    """A run that has ended, for runs that start from it: its plan as JSON, its original with family and `shape`, its
    result, and the steps that led to it."""

    model_config = ConfigDict(extra="forbid")

    plan: str
    teacher: Digest
    result: Digest
    family: str
    shape: Digest
    steps: Annotated[list[ScheduledStep], Field(max_length=MOST_STEPS)]


class _Result(BaseModel):
    result: dict[str, Any]


class _Compared(BaseModel):
    comparison: dict[str, Any]
    pictures: list[str | None]
    of: Subjects | None = None


class _Disagreements(BaseModel):
    disagreements: dict[str, Any]


class _Uncompared(BaseModel):
    why: str


class WarmNote(BaseModel):
    """What was found for a run that asked to start from another: a schedule, or none. `run_key` is the asking run's."""

    model_config = ConfigDict(extra="forbid")

    run_key: Digest
    schedule: Schedule | None


class LineageNote(BaseModel):
    """Where MLflow has a run: the numbers of its experiment and of its MLflow run, which become part of a link."""

    model_config = ConfigDict(extra="forbid")

    experiment: Annotated[str, Field(pattern="^[0-9A-Za-z]{1,64}$")]
    run: Annotated[str, Field(pattern="^[0-9A-Za-z]{1,64}$")]


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
    LINEAGE: LineageNote,
    ENDED: EndedNote,
    RESULT: _Result,
    COMPARED: _Compared,
    UNCOMPARED: _Uncompared,
    DISAGREEMENTS: _Disagreements,
    WARM: WarmNote,
}
_NAME = re.compile("([a-z]+-)([0-9a-f]{64}|[0-9a-f]{12}-[0-9a-f]{8})")


def fault_of(name: str, record: dict[str, Any]) -> str | None:
    """Why a record does not hold what belongs under its name; None where it does."""
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
    """What a record was computed from; None where it does not name that, as in records of older versions."""
    try:
        return Subjects.model_validate(record[OF])
    except (KeyError, ValidationError):
        return None
