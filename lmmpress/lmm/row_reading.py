"""How a model reads rows: which answers count, and which rows its chat template renders."""

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from lmmpress.data import Row, Split
from lmmpress.data.stored_rows import Rows
from lmmpress.errors import UserError
from lmmpress.plan import Template, Turns
from lmmpress.settings.base import Settings
from lmmpress.settings.faults import faults_of, lines_of

_RENDERED = 1  # version of the rendering by templates


class ReadBy(Settings):
    """How a model reads rows outside of a run: `turns` and `template` are as in a plan."""

    turns: Turns = "last"
    template: Template = "auto"


def read_by(turns: str, template: str) -> ReadBy:
    """How a model reads rows. Raises UserError, with a line for each fault."""
    try:
        return ReadBy.model_validate({"turns": turns, "template": template})
    except ValidationError as error:
        raise UserError(*lines_of(faults_of(error, ReadBy), "how the model reads rows")) from None


def is_rendered(row: Row, template: Template) -> bool:
    """Whether a plan asks that a row is rendered by the checkpoint's template, if there is one."""
    return template == "always" or (template == "auto" and row.chat)


def reading_of(split: Split, turns: Turns, template: Template) -> dict[str, Any]:
    """What makes the examples of a split other than those of plain rows with one answer each; mostly empty. It belongs
    into the names of results, since the digest of the rows does not say it."""
    rendered = {"rendered": _RENDERED} if _some_rendered(split.rows, template) else {}
    return rendered | ({"turns": turns} if turns != "last" else {})


def _some_rendered(rows: Sequence[Row], template: Template) -> bool:
    if template == "auto" and isinstance(rows, Rows):
        return rows.some_chat()
    return any(is_rendered(row, template) for row in rows)
