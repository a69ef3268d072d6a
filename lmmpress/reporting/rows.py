"""Rows that two models answer differently, as pages show them; and those of a run, in a file beside its result."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from lmmpress.errors import UserError
from lmmpress.evaluation.comparison import Differing, Said
from lmmpress.evaluation.disagreements import Disagreement, Disagreements
from lmmpress.files.strict_json import read_mapping
from lmmpress.host.whole_file import write_whole
from lmmpress.result import MetricInfo

BESIDE_RESULT = "disagreements.json"
_LARGEST = 64 << 20
_RIGHT = {"lost": "only the original is right", "gained": "only the compressed model is right"}
_BETTER = {"lost": "the original is better", "gained": "the compressed model is better"}


class ShownRow(NamedTuple):
    """A row on a page: with its picture as an address, what it shows in words, and a mark for each answer."""

    row: Differing
    picture: str | None
    title: str
    marks: tuple[str, str]


def right_or_wrong(said: Said) -> str:
    """The mark of an answer that is right or wrong."""
    return "✓" if said.right else "✗"


def shown_picture(row: Differing) -> str | None:
    """A row's picture as an address that holds it."""
    return None if row.picture is None else f"data:image/png;base64,{base64.b64encode(row.picture).decode()}"


def shown_rows(found: Disagreements, metrics: Mapping[str, MetricInfo]) -> list[ShownRow]:
    """The rows on which the ends of a run disagree, by the metrics of their tasks."""
    return [_shown(one, metrics.get(one.row.task)) for one in found.drawn_anew().shown]


def _shown(one: Disagreement, metric: MetricInfo | None) -> ShownRow:
    row = one.row
    if metric is None or metric.is_share:
        marks, title = (right_or_wrong(row.a), right_or_wrong(row.b)), _RIGHT.get(row.kind, row.kind)
    else:
        marks = (f"({one.worth[0]:.3g})", f"({one.worth[1]:.3g})")
        title = f"{_BETTER.get(row.kind, row.kind)}, by {one.metric}"
    return ShownRow(row, shown_picture(row), title, marks)


def keep_rows(folder: Path, found: Disagreements) -> None:
    """Keep the rows on which the ends of a run disagree in its folder."""
    write_whole(folder / BESIDE_RESULT, found.model_dump_json(indent=1))


def kept_rows(folder: Path) -> Disagreements | None:
    """The rows that the folder of a run keeps; None if it has none that lmmpress wrote: no report fails for them."""
    try:
        return Disagreements.model_validate(read_mapping(folder / BESIDE_RESULT, _LARGEST))
    except (OSError, UserError, ValidationError):
        return None
