"""How the rows of a data set are read: the settings that a plan and the commands share."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from lmmpress.errors import UserError
from lmmpress.settings.base import Settings
from lmmpress.settings.faults import faults_of, lines_of, nearest

FIELDS = (
    "question",
    "answer",
    "answers",
    "task",
    "split",
    "system",
    "file_name",
    "file_names",
    "image",
    "images",
    "conversations",
    "messages",
)
"""The columns that a row may have."""


def _known_field(name: str) -> str:
    if name not in FIELDS:
        raise ValueError(f"unknown column; {nearest(name, FIELDS)}")
    return name


class Text(Settings):
    """A text that every row has in a column, instead of a value of its own."""

    text: Annotated[str, Field(min_length=1, max_length=100_000)]


Columns = dict[Annotated[str, AfterValidator(_known_field)], str | Text]


class Shares(Settings):
    """What share of the rows each split gets where the data names no splits."""

    score: Annotated[float, Field(gt=0, lt=1)] = 0.1
    distill: Annotated[float, Field(gt=0, lt=1)] = 0.7
    gate: Annotated[float, Field(gt=0, lt=1)] = 0.1
    test: Annotated[float, Field(gt=0, lt=1)] = 0.1


class Reading(Settings):
    """How rows are read.

    `columns` gives our columns the data's names for them, or one text for all rows. Rows without a split are divided by
    `shares`, which are taken relative to their sum, in an order that `seed` gives; rows about one picture stay
    together. With `unlabelled` a row may have no answer. `errors` says what happens to a faulty row: the command
    fails, or the row is skipped, as long as at most the share `skipped_at_most` of all rows is. `list` is for who looks
    for every fault: all are noted, pictures are not looked at, and rows without a split stay so.
    """

    columns: Columns = Field(default={})
    shares: Shares = Shares()
    seed: int = 0
    unlabelled: bool = False
    errors: Literal["fail", "skip", "list"] = "fail"
    skipped_at_most: Annotated[float, Field(gt=0, le=1)] = 0.01


AS_IT_IS = Reading()
"""How rows are read if nobody says it."""


def reading_of(columns: Mapping[str, Any], unlabelled: bool = False) -> Reading:
    """How rows are read whose columns have other names. Raises UserError, with a line for each fault."""
    try:
        return Reading.model_validate({"columns": columns, "unlabelled": unlabelled})
    except ValidationError as error:
        raise UserError(*lines_of(faults_of(error, Reading), "how rows are read")) from None
