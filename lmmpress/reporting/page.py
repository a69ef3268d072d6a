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

from lmmpress.benchmarks import Benchmark, Benchmarks, kept_benchmarks
from lmmpress.errors import UserError
from lmmpress.evaluation.disagreements import Disagreements
from lmmpress.host.whole_file import write_whole
from lmmpress.plan import Plan
from lmmpress.printing.visible import visible
from lmmpress.reporting import charts, words
from lmmpress.reporting.costs import energy_shown, times
from lmmpress.reporting.repeating import commands
from lmmpress.reporting.rows import kept_rows, shown_rows
from lmmpress.reporting.templates import template
from lmmpress.result import Interval, Result, Speed, metric_title, scale_of

M = TypeVar("M", bound=BaseModel)
NO_BENCHMARKS = Benchmarks()


class Row(NamedTuple):
    """One line of the closing table; `kind` is its heading, an indented part of it, or a line of its own."""

    name: str
    original: str
    compressed: str
    change: str
    kind: str = "own"


class BenchmarkRow(NamedTuple):
    """One number of a harness of others; `both` is one of the two numbers, for what they have in common."""

    both: Benchmark
    original: str
    compressed: str
    change: str


def write_report(result: Result, plan: Plan, path: Path, rows: Disagreements | None = None) -> None:
    """Write the report of a run to `path`, whole or not at all, with the benchmarks that lie beside it. `rows` are
    those on which the two models disagree; the page says where they are unknown."""
    write_whole(path, render(result, plan, kept_benchmarks(path.parent), rows))


def report_of(directory: Path) -> Path:
    """Write report.html anew from the files of a run's folder and return where it is: from result.json, plan.json, and
    if they are there benchmarks.json and disagreements.json.

    Raises UserError if one of the first two is missing, or one is not in the form that lmmpress writes.
    """
    path = directory / "report.html"
    write_whole(path, report_html(directory))
    return path


def report_html(directory: Path) -> str:
    """The report as HTML, from a run's result.json and plan.json, and from its benchmarks.json and disagreements.json
    if it has them.

    Raises UserError if one of the first two is missing, or one is not in the form that lmmpress writes.
    """
    result, plan = read_result(directory), _read(directory / "plan.json", Plan)
    benchmarks, rows = kept_benchmarks(directory), kept_rows(directory)
    return render_untrusted(lambda: render(result, plan, benchmarks, rows), str(directory / "result.json"))


def read_result(directory: Path) -> Result:
    """A run's result.json. Raises UserError if it is missing or not in the form that lmmpress writes."""
    return _read(directory / "result.json", Result)


def render_untrusted(draw: Callable[[], str], where: str) -> str:
    """What `draw` renders of records from `where`. Raises UserError if they have numbers that no run has."""
    try:
        return draw()
    except (ArithmeticError, ValueError, LookupError, TypeError, TemplateError):
        # an hour of NaN minutes, 10**400 parameters, turns of a model without a speed
        raise UserError(f"{where}: not what lmmpress writes: no run has its numbers") from None


def render(
    result: Result, plan: Plan, benchmarks: Benchmarks = NO_BENCHMARKS, rows: Disagreements | None = None
) -> str:
    """The page as HTML."""
    return template("page.html").render(
        result=result,
        rows=closing_table(result),
        benchmarks=benchmarks_table(result, benchmarks),
        by_task=by_task(result),
        title=metric_title(result.metrics),
        share=scale_of(result.metrics).is_share,
        gate_share=all(metric.is_share for step in result.steps for metric in step.metrics.values()),
        factor=words.factor,
        faster=_faster(result.original.speed, result.compressed.speed),
        drawn=_drawn(result),
        times=times(result),
        energy=energy_shown(result.energy) if result.energy else None,
        disagreements=rows,
        differing=shown_rows(rows, result.metrics) if rows else [],
        commands=commands(result, plan),
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
    share, title = scale_of(result.metrics).is_share, metric_title(result.metrics)
    rows.append(_accuracy_row(f"Test {title}", before.accuracy, after.accuracy, share, "heading", None))
    for task, accuracy in before.accuracy_by_task.items():
        metric, drop = result.metrics.get(task), result.drop_by_task.get(task)
        name = task if metric is None or title != "score" else f"{task}, {metric.title}"
        share, interval = metric is None or metric.is_share, drop.interval if drop else None
        rows.append(_accuracy_row(name, accuracy, after.accuracy_by_task.get(task), share, "part", interval))
    if before.speed and after.speed:
        for pair in zip(before.speed.ways, after.speed.ways, strict=False):
            rows += _speed_rows(*pair)
    return rows


def _speed_rows(before: Speed, after: Speed) -> list[Row]:
    rates = (f"{before.samples_per_second:.1f}", f"{after.samples_per_second:.1f}")
    rows = [
        Row(f"Samples per second, batch {after.batch_size}{after.suffix}", *rates, f"{_faster(before, after)} as fast")
    ]
    for name in ("p50", "p95"):
        slow, fast = getattr(before.latency_ms, name), getattr(after.latency_ms, name)
        shorter = f"{words.factor(slow, fast)} shorter"
        rows.append(Row(f"Latency {name}, batch 1{after.suffix}", f"{slow:.1f} ms", f"{fast:.1f} ms", shorter))
    if before.natural_tokens is not None and after.natural_tokens is not None:
        own = (f"{before.natural_tokens:.1f}", f"{after.natural_tokens:.1f}")
        rows.append(Row("Tokens of its own answers", *own, ""))
    return rows


def _faster(before: Speed | None, after: Speed | None) -> str | None:
    """How many times as fast a model became; None where that was not measured."""
    return words.factor(after.samples_per_second, before.samples_per_second) if before and after else None


def benchmarks_table(result: Result, benchmarks: Benchmarks) -> list[BenchmarkRow]:
    """What harnesses of others measured of the original and of the compressed model, side by side."""
    return [
        BenchmarkRow(
            both=next(one for one in (before, after) if one),
            original=before.shown_value if before else words.MISSING,
            compressed=after.shown_value if after else words.MISSING,
            change=words.change(after.value - before.value) if before and after else words.MISSING,
        )
        for before, after in benchmarks.pairs(result.original.checkpoint, result.compressed.checkpoint)
    ]


def _size_row(name: str, before: int, after: int, kind: str) -> Row:
    change = "unchanged" if before == after else f"{words.factor(before, after)} smaller"
    return Row(name, words.count(before), words.count(after), change, kind)


def _accuracy_row(name: str, before: float, after: float | None, share: bool, kind: str, lost: Interval | None) -> Row:
    change = words.lost(None if after is None else after - before, share, plus=True) + (" points" if share else "")
    if lost is not None:
        change += f" (lost {words.interval(lost, share)})"
    return Row(name, words.worth(before, share), words.worth(after, share), change, kind)


class TaskStep(NamedTuple):
    """What one task's rows are worth after a step, and how much that lost."""

    accuracy: str
    drop: str
    interval: str


def by_task(result: Result) -> dict[str, list[TaskStep | None]]:
    """Each task at each step, by its name with its metric: None where the step was not measured. Empty where there is
    one task, and in results of older versions."""
    tasks = list(dict.fromkeys(task for step in result.steps for task in step.drop_by_task))
    if len(tasks) < 2:
        return {}
    found: dict[str, list[TaskStep | None]] = {}
    for task in tasks:
        metric = next((step.metrics[task] for step in result.steps if task in step.metrics), None)
        share = metric is None or metric.is_share
        name = task if metric is None or metric.title == "exact" else f"{task}, {metric.title}"
        found[name] = [
            TaskStep(
                words.worth(step.accuracy_by_task.get(task), share),
                words.lost(drop.value, share),
                words.interval(drop.interval, share),
            )
            if (drop := step.drop_by_task.get(task))
            else None
            for step in result.steps
        ]
    return found


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
