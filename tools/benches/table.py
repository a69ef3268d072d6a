"""One table of all figures, from a folder of result files."""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

from tools.benches.figure import Figure
from tools.benches.figures import FIGURES

HEADS = ("what", "median (min to max, count)", "target", "met")


class MissingError(Exception):
    """A figure that cannot be told: one line that says why."""


@dataclass(frozen=True)
class Found:
    """A number, or the median of several, and what else is known of them."""

    median: float
    low: float
    high: float
    count: int


def table(folder: Path, figures: Sequence[Figure] = FIGURES) -> str:
    """The table, then the figures that the folder lacks, one line for each file, and the machines."""
    rows, missing = [], []
    for figure in figures:
        try:
            found = found_in(read(folder, figure.file), figure)
        except MissingError as fault:
            missing.append(str(fault))
            continue
        met = "" if figure.most is None and figure.least is None else "yes" if is_met(figure, found) else "NO"
        rows.append((figure.what, printed(figure, found, counted=True), target(figure), met))
    parts = [_aligned([HEADS, *rows])] if rows else []
    parts += ["\n".join(dict.fromkeys(missing))] if missing else []
    parts += ["\n".join(machines(folder, dict.fromkeys(figure.file for figure in figures)))]
    return "\n\n".join(part for part in parts if part)


def read(folder: Path, name: str) -> Any:
    """A result file of the folder. MissingError if there is none, or if it is not JSON."""
    path = folder / f"{name}.json"
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise MissingError(f"{path}: there is none; `make bench ONLY={name}` makes it in out/bench") from None
    except ValueError:
        raise MissingError(f"{path}: not JSON; remove it, and measure again") from None


def found_in(result: Any, figure: Figure) -> Found:
    """The figure in the content of its file. MissingError if it is not there."""
    try:
        values = list(_values(result, figure.path))
        if figure.over:
            values = [one / other for one, other in zip(values, _values(result, figure.over), strict=True)]
        if len(values) == 1 and isinstance(values[0], dict):
            median, low, high = (float(values[0][key]) for key in ("median", "min", "max"))
            return Found(median, low, high, int(values[0]["count"]))
        numbers = [float(value) for value in values]
        return Found(statistics.median(numbers), min(numbers), max(numbers), len(numbers))
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError):
        raise MissingError(f"{figure.file}.json: no number at {'/'.join(figure.path)} ({figure.what})") from None


def _values(content: Any, path: Sequence[str]) -> Iterable[Any]:
    if not path:
        yield content
    elif path[0] == "*":
        for one in content:
            yield from _values(one, path[1:])
    else:
        yield from _values(content[path[0]], path[1:])


def printed(figure: Figure, found: Found, counted: bool = False) -> str:
    """As docs print it: 0.93 (0.85 to 1.08); of a single measurement the number alone."""
    middle, low, high = (number(figure, value) for value in (found.median, found.low, found.high))
    if found.count == 1:
        return middle
    return f"{middle} ({low} to {high}{f', {found.count}' if counted else ''})"


def number(figure: Figure, value: float) -> str:
    """A half is rounded up, as people do."""
    exact = Decimal(str(round(value * figure.times, 9)))
    return f"{exact.quantize(Decimal(1).scaleb(-figure.places), ROUND_HALF_UP):,f}"


def target(figure: Figure) -> str:
    """The target in words; nothing if there is none."""
    least, most = (None if one is None else f"{one * figure.times:,g}" for one in (figure.least, figure.most))
    if least and most:
        return f"{least} to {most}"
    return f"at least {least}" if least else f"at most {most}" if most else ""


def is_met(figure: Figure, found: Found) -> bool:
    """Whether the median, not rounded, is within the target."""
    return (figure.most is None or found.median <= figure.most) and (
        figure.least is None or found.median >= figure.least
    )


def machines(folder: Path, names: Iterable[str]) -> list[str]:
    """One line for each machine that results come from, with the names of these."""
    by_machine: dict[str, list[str]] = {}
    for name in names:
        try:
            noted = read(folder, name)
        except MissingError:
            continue
        parts = _machines_in(noted) or ["machine not noted"]
        by_machine.setdefault("; ".join(dict.fromkeys(parts)), []).append(name)
    return [f"{machine}: {', '.join(files)}" for machine, files in by_machine.items()]


def _machines_in(content: Any) -> list[str]:
    """The machine that a result notes at its top; else those of its parts."""
    if not isinstance(content, dict):
        return []
    if isinstance(machine := content.get("machine"), dict):
        return [", ".join(f"{key} {value}" for key, value in machine.items())]
    return [one for part in content.values() for one in _machines_in(part)]


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
