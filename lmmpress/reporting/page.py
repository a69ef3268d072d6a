"""Writing the page: all that it shows comes from the records of the run, and it loads nothing from elsewhere.

Names of models, tasks, splits and stages are untrusted: they are escaped, with control characters visible.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import yaml
from jinja2 import TemplateError
from markupsafe import Markup
from pydantic import BaseModel, ValidationError

from lmmpress.errors import UserError
from lmmpress.host.whole_file import write_whole
from lmmpress.plan import Plan
from lmmpress.printing.visible import visible
from lmmpress.reporting import charts, words
from lmmpress.reporting.templates import template
from lmmpress.result import Result

M = TypeVar("M", bound=BaseModel)


class Row(NamedTuple):
    """One line of the closing table; `kind` is its heading, an indented part of it, or a line of its own."""

    name: str
    original: str
    compressed: str
    change: str
    kind: str = "own"


def write_report(result: Result, plan: Plan, path: Path) -> None:
    """Write the report of a run to `path`, whole or not at all."""
    write_whole(path, render(result, plan))


def report_of(directory: Path) -> Path:
    """Write report.html anew from a run's result.json and plan.json and return where it is.

    Raises UserError if one of the two is missing or not in the form that lmmpress writes.
    """
    path = directory / "report.html"
    write_whole(path, report_html(directory))
    return path


def report_html(directory: Path) -> str:
    """The report as HTML, from a run's result.json and plan.json.

    Raises UserError if one of the two is missing or not in the form that lmmpress writes.
    """
    result, plan = _read(directory / "result.json", Result), _read(directory / "plan.json", Plan)
    return render_untrusted(lambda: render(result, plan), str(directory / "result.json"))


def render_untrusted(draw: Callable[[], str], where: str) -> str:
    """What `draw` renders of records from `where`. Raises UserError if they have numbers that no run has."""
    try:
        return draw()
    except (ArithmeticError, ValueError, LookupError, TypeError, TemplateError):
        # an hour of NaN minutes, 10**400 parameters, turns of a model without a speed
        raise UserError(f"{where}: not what lmmpress writes: no run has its numbers") from None


def render(result: Result, plan: Plan) -> str:
    """The page as HTML."""
    return template("page.html").render(
        result=result,
        rows=closing_table(result),
        factor=words.factor,
        drawn=_drawn(result),
        plan=_lines(yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False, allow_unicode=True)),
        parts=charts.PARTS,
    )


def _lines(text: str) -> Markup:
    """Several lines, each made visible."""
    return Markup("\n").join(visible(line) for line in text.split("\n"))


def closing_table(result: Result) -> list[Row]:
    """Original against compressed. The change is a factor for sizes and times (how many times smaller) and for speeds
    (how many times larger), and percentage points for accuracies."""
    before, after = result.original, result.compressed
    rows = [_size_row("Parameters", before.parameters, after.parameters, "heading")]
    for tower, size in before.parameters_by_tower.items():
        rows.append(_size_row(tower, size, after.parameters_by_tower.get(tower, 0), "part"))
    rows.append(_accuracy_row("Test accuracy", before.accuracy, after.accuracy, "heading"))
    for task, accuracy in before.accuracy_by_task.items():
        rows.append(_accuracy_row(task, accuracy, after.accuracy_by_task.get(task), "part"))
    rows.append(
        Row(
            f"Samples per second, batch {after.batch_size}",
            f"{before.samples_per_second:.1f}",
            f"{after.samples_per_second:.1f}",
            f"{words.factor(after.samples_per_second, before.samples_per_second)} as fast",
        )
    )
    for name in ("p50", "p95"):
        slow, fast = getattr(before.latency_ms, name), getattr(after.latency_ms, name)
        shorter = f"{words.factor(slow, fast)} shorter"
        rows.append(Row(f"Latency {name}, batch 1", f"{slow:.1f} ms", f"{fast:.1f} ms", shorter))
    if before.natural_tokens is not None and after.natural_tokens is not None:
        own = (f"{before.natural_tokens:.1f}", f"{after.natural_tokens:.1f}")
        rows.append(Row("Tokens of its own answers", *own, ""))
    return rows


def _size_row(name: str, before: int, after: int, kind: str) -> Row:
    change = "unchanged" if before == after else f"{words.factor(before, after)} smaller"
    return Row(name, words.count(before), words.count(after), change, kind)


def _accuracy_row(name: str, before: float, after: float | None, kind: str) -> Row:
    change = None if after is None else after - before
    return Row(name, words.percent(before), words.percent(after), f"{words.points(change, plus=True)} points", kind)


def _drawn(result: Result) -> dict[str, Markup]:
    """The charts by name, each for a page and for a phone; none for a run without steps."""
    if not result.steps:
        return {}
    drawings = {"accuracy": charts.accuracy_chart, "parameters": charts.parameters_chart, "time": charts.time_chart}
    return {
        name: Markup("").join(draw(result, paper) for paper in (charts.PAGE, charts.PHONE))
        for name, draw in drawings.items()
    }


def _read(path: Path, kind: type[M]) -> M:
    try:
        return kind.model_validate_json(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a finished run has one") from None
    except (ValidationError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not what lmmpress writes: {str(error).splitlines()[0]}") from None
