"""The charts of the report, as SVG that takes its colours from the page.

Each is drawn twice, for a page and for a phone, and the page's style shows the one that fits: text keeps its size.
Shapes and words carry the meaning, colours only repeat it. All text goes through `_markup`, which escapes it. Where a
function takes `say`, that gives each English phrase in the language of the page.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from markupsafe import Markup

from lmmpress.printing.visible import visible
from lmmpress.reporting.scales import linear, log_ticks, logarithmic, round_ticks, spread
from lmmpress.reporting.words import duration, short_count, worth
from lmmpress.result import Result, StepResult, scale_of

TOP, BOTTOM = 44, 44
PARTS = ("importance", "prune", "distill", "evaluate")
Point = tuple[float, float]
Say = Callable[[str], str]


class Measured(Protocol):
    """What the chart of accuracy is drawn from: the steps so far of a run, finished or not, and its alpha."""

    @property
    def steps(self) -> list[StepResult]: ...

    @property
    def alpha(self) -> float: ...


def in_english(phrase: str) -> str:
    """The `say` of an English page."""
    return phrase


@dataclass(frozen=True)
class Paper:
    """A chart's drawing area: its width, and the left and right end of its plot. Names of lines are right of it."""

    name: str
    width: int
    left: int
    right: int


PAGE = Paper("page", 920, 64, 790)
PHONE = Paper("phone", 340, 42, 232)


@dataclass(frozen=True)
class Frame:
    """The plot area of a chart over steps; the original stands at step 0."""

    steps: Sequence[StepResult]
    height: int
    paper: Paper

    @property
    def floor(self) -> int:
        return self.height - BOTTOM

    @property
    def pitch(self) -> float:
        """The distance between two steps."""
        return self.x(1) - self.x(0)

    def x(self, position: float) -> float:
        return linear(-0.5, len(self.steps) + 0.5, self.paper.left, self.paper.right)(position)


def accuracy_chart(result: Measured, paper: Paper = PAGE, say: Say = in_english) -> Markup:
    """Accuracy on the gate's split before and after distilling, with the reference and the line of alpha. There is at
    least one step."""
    frame = Frame(result.steps, 380, paper)
    steps = list(enumerate(frame.steps, 1))
    start = frame.steps[0].reference
    scale = scale_of(frame.steps[0].metrics)
    most = result.alpha if scale.better == "higher" else -result.alpha

    def shown(number: float | None) -> str:
        return worth(number, scale.is_share)

    measured = [v for s in frame.steps for v in (s.accuracy_pruned, s.accuracy, s.reference) if v is not None]
    low, high = min([*measured, start, start - most]), max([*measured, start, start - most])
    margin = max(0.08 * (high - low), 0.02)
    low, high = max(low - margin, scale.low), min(high + margin, scale.high)
    y = linear(low, high, frame.floor, TOP + 12)
    ticks = [(y(tick), f"{100 * tick:g} %" if scale.is_share else f"{tick:g}") for tick in round_ticks(low, high)]
    parts = [_grid(frame, ticks, say), _stages(frame)]

    for name, lowered in (("reference", 0.0), ("alpha", most)):
        line = [(x, y(s.reference - lowered)) for at, s in steps for x in (frame.x(at - 0.5), frame.x(at + 0.5))]
        parts.append(_line([(frame.x(-0.5), line[0][1]), *line], name))
    path = [(frame.x(0), y(start))]
    path += [(frame.x(at), y(s.accuracy)) for at, s in steps if s.accuracy is not None and s.decision != "rolled back"]
    parts.append(_line(path, "main"))
    parts.append(_dot(path[0], "accepted", say("original: {}").format(shown(start))))

    for at, step in steps:
        x = frame.x(at)
        after, before = step.accuracy, step.accuracy_pruned
        if before is not None and after is not None:
            parts.append(_line([(x, y(before)), (x, y(after))], "climb"))
        if before is not None:
            words = say("{}, before distilling: {}").format(_name(at, step), shown(before))
            parts.append(_dot((x, y(before)), "pruned", words))
        if after is not None:
            words = say("{}, after distilling: {}, {}").format(_name(at, step), shown(after), say(step.decision))
            parts.append(_dot((x, y(after)), step.decision, words))
            # a label at every dot, unless the labels would overlap
            if frame.pitch >= 24:
                parts.append(
                    _text(x, y(after) - 10, f"{100 * after:.0f}" if scale.is_share else f"{after:.3g}", "value")
                )
        if step.decision != "accepted":
            place = y(after if after is not None else step.reference) + 20
            parts.append(_text(x, place, say(step.decision), f"mark {_css(step.decision)}"))

    last = frame.steps[-1].reference
    allowed = say("reference − alpha") if most > 0 else say("reference + alpha")
    ends = [(y(last), say("reference"), "reference"), (y(last - most), allowed, "alpha")]
    ends.append((path[-1][1], say("distilled"), "main"))
    pruned = next((s.accuracy_pruned for s in reversed(frame.steps) if s.accuracy_pruned is not None), None)
    if pruned is not None:
        ends.append((y(pruned), say("pruned"), "pruned"))
    parts.append(_end_labels(frame, ends))
    return _svg(paper, frame.height, say("Accuracy over the steps"), _summary(result.steps, say, scale.is_share), parts)


def parameters_chart(result: Result, paper: Paper = PAGE) -> Markup:
    """Parameters in all and by tower on a logarithmic scale; a step that was rolled back is a cross off the line."""
    frame = Frame(result.steps, 340, paper)
    series = {"all": result.original.parameters} | result.original.parameters_by_tower
    rows: dict[str, list[int | None]] = {
        name: [first, *(_size(step, name) for step in frame.steps)] for name, first in series.items() if first > 0
    }
    every = [max(value, 1) for row in rows.values() for value in row if value is not None]
    low, high = min(every) / 1.25, max(every) * 1.25
    y = logarithmic(low, high, frame.floor, TOP + 12)
    parts = [_grid(frame, [(y(tick), short_count(tick)) for tick in log_ticks(low, high)]), _stages(frame)]
    ends = []
    for name, row in rows.items():
        kind = "main" if name == "all" else "tower"
        kept = _staircase(frame, row)
        parts.append(_line([(x, y(value)) for x, value in kept], kind))
        ends.append((y(kept[-1][1]), f"{name} {short_count(kept[-1][1])}", kind))
    for at, step in enumerate(frame.steps, 1):
        words = f"{_name(at, step)}: {short_count(step.parameters)} parameters, {step.decision}"
        parts.append(_dot((frame.x(at), y(step.parameters)), step.decision, words))
    parts.append(_end_labels(frame, ends))
    summary = (
        f"From {short_count(result.original.parameters)} to {short_count(result.compressed.parameters)} parameters."
    )
    return _svg(paper, frame.height, "Parameters over the steps", summary, parts)


def time_chart(result: Result, paper: Paper = PAGE) -> Markup:
    """The time of each part of each step, as one bar per step; its name is left of it, on a phone above it."""
    steps = result.steps
    above = paper is PHONE
    left, right, pitch = (10, paper.width - 72, 44) if above else (190, paper.right + 40, 26)
    height = 34 + pitch * len(steps) + 30
    longest = max([sum(step.seconds.values()) for step in steps]) or 1.0
    x = linear(0, longest, left, right)
    ticks = [(x(tick), duration(tick).replace(".0 ", " ")) for tick in round_ticks(0, longest, 3 if above else 6)]
    parts = [
        _markup('<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="26" y2="{1}"/>', at, height - 26)
        + _text(at, height - 8, words, "axis")
        for at, words in ticks
    ]
    for row, step in enumerate(steps):
        top, begin = 30 + pitch * row + (18 if above else 0), 0.0
        where = (left, top - 4, "over") if above else (left - 10, top + 14, "row")
        parts.append(_text(*where[:2], _name(row + 1, step), where[2]))
        for part, seconds in _in_order(step.seconds):
            width = x(begin + seconds) - x(begin)
            title = f"{_name(row + 1, step)}, {part}: {duration(seconds)}"
            parts.append(
                _markup(
                    '<rect class="part {}" x="{:.1f}" y="{}" width="{:.1f}" height="20" rx="2">'
                    "<title>{}</title></rect>",
                    _css(part),
                    x(begin),
                    top,
                    max(width - 1, 0.5),
                    title,
                )
            )
            if width > 7.5 * len(part) + 6:
                parts.append(_text(x(begin) + width / 2, top + 14, part, f"inside {_css(part)}"))
            begin += seconds
        parts.append(_text(x(begin) + 6, top + 14, duration(begin), "end"))
    totals = ", ".join(f"{part} {duration(seconds)}" for part, seconds in _in_order(result.seconds_by_part))
    return _svg(paper, height, "Time by part", f"In all: {totals}.", parts)


def _size(step: StepResult, name: str) -> int | None:
    """A tower's parameters after a step, None if the step was rolled back."""
    if step.decision == "rolled back":
        return None
    return step.parameters if name == "all" else step.parameters_by_tower.get(name)


def _staircase(frame: Frame, row: Sequence[int | None]) -> list[tuple[float, float]]:
    """A line through the sizes at their steps; it stays level at steps that were rolled back."""
    points: list[tuple[float, float]] = []
    size = 1
    for position, value in enumerate(row):
        size = size if value is None else max(value, 1)
        points.append((frame.x(position), size))
    return points


def _in_order(seconds: dict[str, float]) -> list[tuple[str, float]]:
    """The parts in the order in which they run, then any other."""
    return sorted(seconds.items(), key=lambda item: PARTS.index(item[0]) if item[0] in PARTS else len(PARTS))


def _summary(steps: Sequence[StepResult], say: Say, share: bool) -> str:
    undone = sum(step.decision == "rolled back" for step in steps)
    last = next((step.accuracy for step in reversed(steps) if step.decision != "rolled back"), None)
    words = say("From {} to {} on the gate's split in {} steps, {} rolled back.")
    return words.format(worth(steps[0].reference, share), worth(last, share), len(steps), undone)


def _name(position: int, step: StepResult) -> str:
    return f"{position} {_kind(step)}" if step.jump else f"{position} {step.stage} {step.tower}"


def _kind(step: StepResult) -> str:
    """The stage of a step, or how many steps a jump goes over."""
    return f"jump over {len(step.jump)}" if step.jump else step.stage


def _css(name: str) -> str:
    return name.replace(" ", "-")


def _grid(frame: Frame, ticks: list[tuple[float, str]], say: Say = in_english) -> Markup:
    left, right = frame.paper.left, frame.paper.right
    lines = [
        _markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>', left, right, at, at)
        + _text(left - 8, at + 4, words, "row")
        for at, words in ticks
    ]
    every = math.ceil(24 / frame.pitch)
    first = say("original") if frame.pitch >= 28 else "0"
    numbers = [
        _text(frame.x(at), frame.floor + 18, first if at == 0 else str(at), "axis")
        for at in range(0, len(frame.steps) + 1, every)
    ]
    return Markup("").join([*lines, *numbers, _text((left + right) / 2, frame.height - 6, say("step"), "axis")])


def _stages(frame: Frame) -> Markup:
    """A band behind the steps of each stage, with as much of the stage's name on top as fits."""
    bands, at = [], 1
    for number, (stage, group) in enumerate(groupby(frame.steps, key=_kind)):
        size = len(list(group))
        left, right = frame.x(at - 0.5), frame.x(at + size - 0.5)
        bands.append(
            _markup(
                '<rect class="band band-{}" x="{:.1f}" y="{}" width="{:.1f}" height="{}"><title>{}</title></rect>',
                number % 2,
                left,
                TOP - 22,
                right - left,
                frame.floor - TOP + 22,
                stage,
            )
        )
        room = max(1, int((right - left) / 7))  # letters
        words = stage if len(stage) <= room else stage[: max(1, room - 1)] + "." * (room > 1)
        bands.append(_text((left + right) / 2, TOP - 7, words, "stage"))
        at += size
    return Markup("").join(bands)


def _end_labels(frame: Frame, ends: list[tuple[float, str, str]]) -> Markup:
    """The name of each line at its right end."""
    places = spread([place for place, _, _ in ends], 16, TOP + 4, frame.floor)
    return Markup("").join(
        _text(frame.paper.right + 8, place + 4, words, f"end {kind}")
        for place, (_, words, kind) in zip(places, ends, strict=True)
    )


def _line(points: list[Point], kind: str) -> Markup:
    return _markup('<polyline class="line {}" points="{}"/>', kind, " ".join(f"{x:.1f},{y:.1f}" for x, y in points))


def _dot(at: Point, kind: str, title: str) -> Markup:
    """A step's mark: round if accepted, hollow before distilling, a cross if rolled back, a square if kept."""
    x, y = at
    shape = {
        "rolled back": _markup('<path d="M{:.1f} {:.1f}l11 11m0 -11l-11 11"/>', x - 5.5, y - 5.5),
        "kept": _markup('<rect x="{:.1f}" y="{:.1f}" width="10" height="10"/>', x - 5, y - 5),
    }.get(kind, _markup('<circle cx="{:.1f}" cy="{:.1f}" r="4.5"/>', x, y))
    return _markup('<g class="dot {}"><title>{}</title>{}</g>', _css(kind), title, shape)


def _text(x: float, y: float, words: str, kind: str) -> Markup:
    return _markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>', kind, x, y, words)


def _svg(paper: Paper, height: int, title: str, summary: str, parts: Sequence[Markup]) -> Markup:
    return _markup(
        '<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}. {}">{}</svg>',
        paper.name,
        paper.width,
        height,
        title,
        summary,
        Markup("").join(parts),
    )


def _markup(template: str, *values: object) -> Markup:
    """A template filled with values: text is made visible and escaped, markup is not changed."""
    shown = [visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value for value in values]
    return Markup(template).format(*shown)
