"""Options that may be repeated, each a name with a value: --column question=prompt, --metric caption=rouge_l."""

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from lmmpress.errors import UserError
from lmmpress.settings.plain_yaml import parse_value

Columns = Annotated[
    list[str],
    typer.Option(
        "--column",
        metavar="NAME=THEIRS",
        help="The data's own name of a column, as in columns: of a plan; may be repeated. "
        "'task={text: caption}' is one text for all rows.",
    ),
]
Metrics = Annotated[
    list[str],
    typer.Option(
        "--metric",
        metavar="TASK=METRIC",
        help="The metric of a task, as in metrics: of a plan; may be repeated. A metric alone, or default=METRIC, is "
        "that of all other tasks. 'price={numeric: 0.05}' has a parameter.",
    ),
]


def columns_in(given: Iterable[str]) -> dict[str, Any]:
    """The data's own names of columns, or texts for all rows, by our names of the columns."""
    parts = []
    for one in given:
        name, separator, theirs = one.partition("=")
        if not separator:
            raise UserError(f"--column {one}: write it as question=prompt, with the data's own name last")
        parts.append((name, theirs))
    return _values("--column", parts)


def metrics_in(given: Iterable[str]) -> dict[str, Any]:
    """The metric of each task that is named, and of `default`."""
    parts = []
    for one in given:
        task, separator, metric = one.rpartition("=")  # the name of a task may have an = in it
        parts.append((task if separator else "default", metric))
    return _values("--metric", parts)


def _values(option: str, parts: Iterable[tuple[str, str]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parts:
        if name in found:
            raise UserError(f"{option} {name} is given twice; leave one out")
        found[name] = parse_value(value, f"{option} {name}")
    return found
