"""Rows of production: how many answers of an original and of its compressed model were right, by day.

    {"day": "2026-11-29", "model": "AntGMM", "right": 912, "rows": 1000}
    {"day": "2026-11-29", "model": "AntGMM-compressed", "version": "3", "right": 905, "rows": 1000}

as JSON lines, or as CSV with a first line `day,model,version,right,rows`. `day` is a date, or a time with its zone,
whose day in UTC counts. `model` is the registered name of the model that has answered. `version` may be left out.
Numbers of one day and model add up, so a row may be one answer or a day.
"""

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import from_json

from lmmpress.errors import UserError
from lmmpress.settings.faults import nearest
from lmmpress.store.kinds import ONLINE
from lmmpress.store.manifest import first_fault
from lmmpress.store.objects import ChangedError, Objects, UnreadableError
from lmmpress.trigger.promotion import compressed_of
from lmmpress.trigger.question import model_key
from lmmpress.trigger.trigger import Trigger

MOST_BYTES = 64 << 20
"""The largest file of rows, in bytes."""
MOST_BATCHES = 10_000
"""How often rows of one day may be appended to one model."""
_COLUMNS = ("day", "model", "version", "right", "rows")
_FAULTS = 10


class RowsError(UserError):
    """Rows that are wrong. None of them is appended."""


class Row(BaseModel):
    """Answers of one model on one day: `right` of `rows`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    day: date
    model: Annotated[str, Field(min_length=1, max_length=200)]
    version: Annotated[str, Field(max_length=40)] = ""
    right: Annotated[int, Field(ge=0, lt=1 << 53)]
    rows: Annotated[int, Field(ge=1, lt=1 << 53)]

    @field_validator("day", mode="before")
    @classmethod
    def _day_in_utc(cls, value: object) -> object:
        if isinstance(value, str) and len(value) > len("2026-11-29"):
            at = datetime.fromisoformat(value)
            if at.tzinfo is None:
                raise ValueError("a time needs its zone, as in 2026-11-29T08:00:00+08:00")
            return at.astimezone(UTC).date()
        if not isinstance(value, str | date):
            raise ValueError("is written as 2026-11-29")
        return value

    @field_validator("version", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return "" if value is None else str(value) if isinstance(value, int) else value

    @field_validator("right", "rows", mode="before")
    @classmethod
    def _whole(cls, value: object) -> object:
        if isinstance(value, bool | float):
            raise ValueError("is a whole number")
        return value

    @model_validator(mode="after")
    def _fits(self) -> "Row":
        if self.right > self.rows:
            raise ValueError("right is larger than rows")
        return self


class Count(BaseModel):
    """Answers that were counted: `right` of `rows`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    right: int = 0
    rows: int = 0

    def __add__(self, other: "Count") -> "Count":
        return Count(right=self.right + other.right, rows=self.rows + other.rows)

    @property
    def accuracy(self) -> float | None:
        """The share of right answers; None without rows."""
        return self.right / self.rows if self.rows else None


class Day(BaseModel):
    """A day of an original and its compressed model, by version; an empty version where the rows named none.

    `batches` names what was appended, so that nothing is counted twice.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    model: str
    day: date
    original: dict[str, Count] = {}
    compressed: dict[str, Count] = {}
    batches: list[str] = []


@dataclass(frozen=True)
class Appended:
    """What has come of rows: how many rows were taken, for which days, and whether all of them were there before."""

    rows: int
    days: tuple[date, ...]
    known: bool


def read_rows(text: str, where: str) -> list[Row]:
    """The rows in a text, JSON lines or CSV. RowsError, with the lines that are wrong, unless all of them are right."""
    rows: list[Row] = []
    faults: list[str] = []
    for line, raw in _raw_rows(text.removeprefix("\ufeff"), where):
        try:
            rows.append(Row.model_validate(raw() if callable(raw) else raw))
        except ValidationError as error:
            faults.append(f"{where}, line {line}: {first_fault(error)}")
        except ValueError as error:
            faults.append(f"{where}, line {line}: is no row: {error}")
    if faults:
        more = [f"{where}: {len(faults) - _FAULTS} more lines are wrong"] if len(faults) > _FAULTS else []
        raise RowsError(*faults[:_FAULTS], *more)
    if not rows:
        raise RowsError(f"{where}: there are no rows")
    return rows


def append_file(trigger: Trigger, file: Path) -> Appended:
    """Append the rows of a file. The same file again changes nothing, also after a crash in the middle."""
    try:
        if file.stat().st_size > MOST_BYTES:
            raise UserError(f"{file} is larger than {MOST_BYTES >> 20} MiB; append its parts one after the other")
        data = file.read_bytes()
        text = data.decode("utf-8")
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{file}: rows are written in UTF-8") from None
    return append(trigger, read_rows(text, str(file)), hashlib.sha256(data).hexdigest())


def append(trigger: Trigger, rows: Sequence[Row], batch: str) -> Appended:
    """Append rows. `batch` names them: what was appended under that name is not counted again.

    Raises RowsError if a row names a model that is neither watched nor the compressed form of a watched one, or if its
    day lies in the future. UserError if the store does not answer; then the same call again appends what is missing.
    """
    sides = {model: (model, "original") for model in trigger.settings.models}
    sides |= {compressed_of(model): (model, "compressed") for model in trigger.settings.models}
    tomorrow = trigger.clock().astimezone(UTC).date() + timedelta(days=1)
    parts: dict[tuple[str, date], list[tuple[str, Row]]] = {}
    for row in rows:
        if row.model not in sides:
            raise RowsError(f"no model of the trigger is named {row.model!r}; {nearest(row.model, list(sides))}")
        if row.day > tomorrow:
            raise RowsError(f"{row.day} lies in the future")
        model, side = sides[row.model]
        parts.setdefault((model, row.day), []).append((side, row))
    batch = hashlib.sha256(batch.encode("utf-8")).hexdigest()[:24]
    new = [_add(trigger.objects, model, day, part, batch) for (model, day), part in sorted(parts.items(), key=str)]
    return Appended(len(rows), tuple(sorted({day for _, day in parts})), not any(new))


def days_of(objects: Objects, model: str, days: Iterable[date]) -> dict[date, Day]:
    """The days of a watched model that have rows."""
    known = {entry.name for entry in objects.entries(f"{ONLINE.prefix}{model_key(model)}-")}
    return {day: _read(objects, model, day)[0] for day in days if _name(model, day) in known}


def _add(objects: Objects, model: str, day: date, part: list[tuple[str, Row]], batch: str) -> bool:
    """Add rows to a day; False if they are there."""
    while True:
        known, tag = _read(objects, model, day)
        if batch in known.batches:
            return False
        if len(known.batches) >= MOST_BATCHES:
            raise RowsError(f"{day}: rows were appended {MOST_BATCHES} times; append more rows at a time")
        counts = {"original": dict(known.original), "compressed": dict(known.compressed)}
        for side, row in part:
            before = counts[side].get(row.version, Count())
            counts[side][row.version] = before + Count(right=row.right, rows=row.rows)
        new = known.model_copy(update=counts | {"batches": [*known.batches, batch]})
        try:
            objects.write(_name(model, day), new.model_dump_json().encode("utf-8"), tag)
            return True
        except ChangedError:
            continue


def _read(objects: Objects, model: str, day: date) -> tuple[Day, str | None]:
    name = _name(model, day)
    found = objects.read(name)
    if found is None:
        return Day(model=model, day=day), None
    try:
        return Day.model_validate_json(found.data), found.tag
    except ValidationError as error:
        fault = f"holds no rows of production that this lmmpress can read: {first_fault(error)}"
        raise UnreadableError(objects.address, name, fault) from None


def _name(model: str, day: date) -> str:
    return ONLINE.name(f"{model_key(model)}-{day.isoformat()}")


def _raw_rows(text: str, where: str) -> Iterator[tuple[int, Any]]:
    """The rows as they are written, with their lines. Of JSON a function, which may raise ValueError."""
    lines = text.split("\n")
    first = next((line for line in lines if line.strip()), "")
    if not first:
        return
    if first.lstrip().startswith("{"):
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, lambda line=line: from_json(line)
        return
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey="more", strict=True)
    try:
        head = [name.strip() for name in reader.fieldnames or ()]
        if (
            set(head) - set(_COLUMNS)
            or not {"day", "model", "right", "rows"} <= set(head)
            or len(set(head)) < len(head)
        ):
            raise RowsError(f"{where}: CSV begins with a line that names the columns: {','.join(_COLUMNS)}")
        reader.fieldnames = head
        for row in reader:
            yield (
                reader.line_num,
                {name: value.strip() if isinstance(value, str) else value for name, value in row.items()},
            )
    except csv.Error as error:
        raise RowsError(f"{where}, line {reader.line_num}: is no CSV: {error}") from None
