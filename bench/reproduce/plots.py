"""The counterparts of figures 6, 7, 10 and 11, as SVG. Without a known number there is no plot."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from reproduce.catalogue import rows
from reproduce.outcome import Outcome, StepNote
from reproduce.view import View

STAGES = {"block": "o", "ffn": "s", "attention": "^", "io": "D"}
"""A marker for each stage, so that colour is not needed."""


def plots(view: View) -> dict[str, str]:
    """The SVG of each figure, by its number."""
    found = {number: draw(view) for number, draw in PLOTS.items()}
    return {number: _svg(figure) for number, figure in found.items() if figure}


def plot_path(view: View, number: str, folder: Path) -> Path:
    """Where the plot of a figure lies."""
    return folder / f"reproduce-{view.form.name}-figure-{number}.svg"


def accuracy_by_step(view: View) -> Figure | None:
    """Fig. 6: before and after each distillation, a line a seed."""
    if not view.bases:
        return None
    figure, axes = _paper(view, "step, pruned and distilled", "accuracy, gate split")
    for run in view.bases:
        places, values = [0.0], [run.start]
        for number, step in enumerate(run.steps, start=1):
            for place, value in ((number - 0.5, step.before), (float(number), step.after)):
                if value is not None:
                    places.append(place)
                    values.append(value)
        axes.plot(places, values, color="0.6", linewidth=1)
        axes.plot([0, *range(1, len(run.steps) + 1)], [run.start, *(step.after for step in run.steps)], color="tab:red")
        _marked(axes, run, lambda number, step: (number, step.after))
        _marked(axes, run, lambda number, step: (number - 0.5, step.before), fill="white")
    axes.set_xticks(range(len(view.bases[0].steps) + 1))
    _legend(axes)
    return figure


def accuracy_by_rows(view: View) -> Figure | None:
    """Fig. 7: accuracy by the number of rows."""
    found = {number: view.accuracy(make).known for number, make in rows(view.form).items()}
    known = {number: values for number, values in found.items() if values}
    if not known:
        return None
    figure, axes = _paper(view, "distillation rows", "accuracy, gate split")
    axes.plot(list(known), [sum(values) / len(values) for values in known.values()], color="tab:red")
    for number, values in known.items():
        axes.plot([number] * len(values), values, "o", color="0.3", markersize=4)
    axes.set_xticks(list(known))
    return figure


def size_by_step(view: View) -> Figure | None:
    """Fig. 10: size against step."""
    if not view.bases:
        return None
    figure, axes = _paper(view, "step", "language tower, M parameters")
    run = view.bases[0]
    sizes = [run.language, *(step.language for step in run.steps)]
    axes.plot(range(len(sizes)), [size / 1e6 for size in sizes], color="0.6", linewidth=1)
    _marked(axes, run, lambda number, step: (number, step.language / 1e6))
    axes.set_xticks(range(len(sizes)))
    axes.set_ylim(bottom=0)
    _legend(axes)
    return figure


def accuracy_by_size(view: View) -> Figure | None:
    """Fig. 11: size, as a power of two, against accuracy."""
    if not view.bases:
        return None
    figure, axes = _paper(view, "language tower, M parameters (log2)", "accuracy, gate split")
    for run in view.bases:
        _marked(axes, run, lambda _, step: (step.language / 1e6, step.after))
    sizes = sorted({step.language / 1e6 for run in view.bases for step in run.steps})
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{size:.2g}" for size in sizes], rotation=45)
    axes.minorticks_off()
    _legend(axes)
    return figure


PLOTS: dict[str, Callable[[View], Figure | None]] = {
    "6": accuracy_by_step,
    "7": accuracy_by_rows,
    "10": size_by_step,
    "11": accuracy_by_size,
}


def _paper(view: View, across: str, up: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.set_title(form_words(view), fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def form_words(view: View) -> str:
    """What form the numbers are of, in a line."""
    form = view.form
    mark = ", quick form" if form.quick else ""
    return f"{form.preset}{mark}: {form.seeds_in_words}, {form.rows:,} rows"


def _marked(
    axes: Any, run: Outcome, place: Callable[[int, StepNote], tuple[float, float | None]], fill: str = "0.2"
) -> None:
    for number, step in enumerate(run.steps, start=1):
        across, up = place(number, step)
        if up is not None:
            axes.plot([across], [up], STAGES.get(step.stage, "x"), color="0.2", markerfacecolor=fill, markersize=5)


def _legend(axes: Any) -> None:
    for stage, marker in STAGES.items():
        axes.plot([], [], marker, color="0.2", label=stage, markersize=5)
    axes.legend(frameon=False, fontsize=8)


def _svg(figure: Figure) -> str:
    """The same figure gives the same text: no date, no random names; text stays text."""
    out = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "lmmpress", "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return re.sub(r"[ \t]+$", "", out.getvalue(), flags=re.MULTILINE)
