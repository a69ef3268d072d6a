"""Comparisons of two checkpoints, as the rule of promotion needs them: kept in the store, found by the pair.

`lmmpress compare A B --json` prints such a comparison, and its comparison.json is one. Only digests and figures are
kept of it: the rows that the two answer differently stay where they are.
"""

import hashlib
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lmmpress.errors import UserError
from lmmpress.evaluation import comparison as whole
from lmmpress.printing.one_line import printable
from lmmpress.store.kinds import COMPARISONS
from lmmpress.store.manifest import first_fault
from lmmpress.store.objects import ChangedError, Objects, UnreadableError
from lmmpress.trigger.claims import NotAllowedError
from lmmpress.trigger.texts import Text

MOST_BYTES = 64 << 20
"""The largest comparison.json that is read."""

_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Drop = Annotated[float, Field(ge=-1, le=1)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Name = Annotated[str, Field(max_length=200)]
_Count = Annotated[int, Field(ge=0, lt=1 << 53)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)  # what else a comparison holds is of no matter here


class Side(_Part):
    """One of the two checkpoints, by its digest. `bytes` is the size of its files of weights."""

    checkpoint: _Digest
    accuracy: _Share
    accuracy_by_task: dict[_Name, _Share] = {}
    parameters: _Count | None = None
    bytes: _Count | None = None


class Rows(_Part):
    """The rows: their digest, how many, and the tasks that were asked for, none for all."""

    digest: Annotated[str, Field(min_length=1, max_length=200)]
    rows: Annotated[int, Field(ge=1)]
    split: _Name = ""
    tasks: list[str] = []


class Bounds(_Part):
    """An interval of the loss."""

    low: float
    high: float
    confidence: float


class Loss(_Part):
    """The accuracy lost from A to B on all rows, or on those of a task; and how many of these have equal answers, right
    or wrong."""

    drop: _Drop
    drop_interval: Bounds
    rows: _Count | None = None
    same_answer: _Count | None = None


class Gain(_Part):
    """How much faster B is than A: the median of `count` measurements, and the range that `low` and `high` bound."""

    median: Annotated[float, Field(gt=0)]
    low: float
    high: float
    count: _Count


class Gains(_Part):
    """B's samples per second over A's, turn by turn."""

    samples_per_second: Gain


class Comparison(_Part):
    """What is kept of a comparison of the checkpoints A and B."""

    format: Literal[1]
    a: Side
    b: Side
    data: Rows
    all: Loss
    by_task: dict[_Name, Loss] = {}
    turns: Gains | None = None

    @property
    def agreement(self) -> float | None:
        """The share of rows with equal answers."""
        rows, same = self.all.rows, self.all.same_answer
        return same / rows if rows and same is not None else None

    @property
    def smaller(self) -> float | None:
        """How many times as many parameters A has."""
        return self.a.parameters / self.b.parameters if self.a.parameters and self.b.parameters else None

    @property
    def lighter(self) -> float | None:
        """How many times as large A's files of weights are."""
        return self.a.bytes / self.b.bytes if self.a.bytes and self.b.bytes else None

    @property
    def faster(self) -> Gain | None:
        """How many times as many samples per second B answers; None where no speed was measured."""
        return self.turns.samples_per_second if self.turns else None


class Kept(BaseModel):
    """A comparison in the store: who has put it there, and when."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    comparison: Comparison
    by: str
    at: datetime


def read_comparison(text: str | bytes, where: str) -> Comparison:
    """The comparison in a comparison.json; UserError if it holds none that this lmmpress can read."""
    if len(text) > MOST_BYTES:
        raise UserError(f"{where} is larger than {MOST_BYTES >> 20} MiB: it is no comparison")
    try:
        return Comparison.model_validate_json(text)
    except ValidationError as error:
        raise UserError(f"{where} is no comparison that this lmmpress can read: {first_fault(error)}") from None


def part_to_keep(found: whole.Comparison) -> Comparison:
    """What is kept of a whole comparison; NotAllowedError where its figures cannot be."""
    try:
        return Comparison.model_validate(found.model_dump())
    except ValidationError as error:
        raise NotAllowedError(Text("refused.no_comparison", fault=first_fault(error))) from None


def keep(objects: Objects, comparison: Comparison, *, by: str, at: datetime) -> None:
    """Put a comparison into the store. The same one again changes nothing."""
    stem = f"{_pair(comparison.a.checkpoint, comparison.b.checkpoint)}{_digest(comparison)}"
    kept = Kept(comparison=comparison, by=printable(by), at=at)
    with suppress(ChangedError):  # it is there
        objects.write(COMPARISONS.name(stem), kept.model_dump_json(indent=1).encode("utf-8"), None)


def of_pair(objects: Objects, a: str, b: str) -> list[Kept]:
    """The comparisons of two checkpoints, A and B in this order, by their digests; the oldest first. Damaged ones are
    left out."""
    found = []
    for entry in objects.entries(f"{COMPARISONS.prefix}{_pair(a, b)}"):
        try:
            if COMPARISONS.has(entry.name) and (read := objects.read(entry.name)):
                found.append(Kept.model_validate_json(read.data))
        except (UnreadableError, ValidationError):
            continue
    exact = [one for one in found if (one.comparison.a.checkpoint, one.comparison.b.checkpoint) == (a, b)]
    return sorted(exact, key=lambda one: one.at)


def _pair(a: str, b: str) -> str:
    return f"{a[:24]}-{b[:24]}-"


def _digest(comparison: Comparison) -> str:
    return hashlib.sha256(comparison.model_dump_json().encode("utf-8")).hexdigest()[:24]
