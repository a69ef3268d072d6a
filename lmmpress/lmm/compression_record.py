"""Reads COMPRESSION.json: the teacher of a checkpoint, and every step that led from the teacher to the checkpoint."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lmmpress.axes.cut import Cut
from lmmpress.errors import UserError
from lmmpress.files.allow_list import RECORD, choose
from lmmpress.files.strict_json import read_mapping
from lmmpress.stages import stage_names

_LARGEST = 256 << 20  # bytes
_MOST_ENTRIES = 4096  # far more than any run has; a limit, since applying a cut takes time


class _Entry(BaseModel):
    model_config = ConfigDict(extra="allow")

    pruned_from: str | None = None
    distilled_from: str | None = None
    carried_from: str | None = None
    cut: Cut | None = None


class _Stage(BaseModel):
    max: int


class _ListedStage(_Stage):
    axis: str


class _Tolerance(BaseModel):
    alpha: float


class _Plan(BaseModel):
    stages: dict[str, _Stage] | list[_ListedStage]
    tolerance: _Tolerance


class _Record(BaseModel):
    """The fields of a record that readers rely on; other fields are allowed."""

    model_config = ConfigDict(extra="allow")

    teacher: str | None = None
    history: Annotated[list[_Entry], Field(max_length=_MOST_ENTRIES)] = []
    plan: _Plan | None = None
    run_key: str | None = None

    @model_validator(mode="after")
    def _names_its_run(self) -> "_Record":
        if self.plan is not None and self.run_key is None:
            raise ValueError("it has a plan but no run_key")
        return self


def read_record(checkpoint: Path) -> dict[str, Any] | None:
    """The content of a checkpoint's COMPRESSION.json; None for an original model. Raises UserError if the file is
    damaged."""
    path = choose(checkpoint).taken.get(RECORD)
    return None if path is None else parse_record(path, str(checkpoint / RECORD))


def parse_record(path: Path, where: str) -> dict[str, Any]:
    """The content of a COMPRESSION.json, which `where` names in errors. Raises UserError if it is damaged."""
    try:
        record = read_mapping(path, _LARGEST, where)
    except UserError as error:
        raise UserError(f"{error}; this is no {RECORD}") from None
    try:
        _Record.model_validate(record)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise UserError(f"{where} is no {RECORD}: {f'{place}: ' if place else ''}{fault['msg']}") from None
    return {"history": []} | record


def continued(checkpoint: Path, *entries: dict[str, Any]) -> dict[str, Any]:
    """The COMPRESSION.json of a new checkpoint made from `checkpoint`: its history with `entries` added at the end."""
    before = read_record(checkpoint) or {"format": 1, "history": []}
    return before | {"history": [*before["history"], *entries]}


def stages_of(plan: dict[str, Any]) -> list[tuple[str, int]]:
    """The stages of a plan as a record holds it: the name of each, and how much it may remove."""
    stages = plan["stages"]
    if isinstance(stages, dict):
        return [(axis, stage["max"]) for axis, stage in stages.items()]
    names = stage_names(stage["axis"] for stage in stages)
    return [(name, stage["max"]) for name, stage in zip(names, stages, strict=True)]


def cuts_of(record: dict[str, Any]) -> list[Cut]:
    """All cuts in a record, in order."""
    return [Cut.model_validate(entry["cut"]) for entry in record["history"] if entry.get("cut") is not None]
