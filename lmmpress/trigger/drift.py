"""The table of the last days in production, as in the paper: the accuracy of the original and of the compressed model
on each day; and whether the difference drifts beyond alpha."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, timedelta
from math import sqrt
from statistics import NormalDist

from lmmpress.printing.sheet import Grid, Part, Shown
from lmmpress.trigger.online import Count, days_of
from lmmpress.trigger.promotion import original_of
from lmmpress.trigger.promotion_settings import DriftSettings
from lmmpress.trigger.trigger import Trigger

DAYS = 7
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Line:
    """One day, or all days where `day` is None: the answers of both, and the versions of the compressed model.

    `drop` is the accuracy lost, and `low` and `high` its 95 % interval by Newcombe's method, since production answers
    different questions with each model; None where one of them has no rows. `drifts`: the loss is beyond alpha.
    """

    day: date | None
    original: Count
    compressed: Count
    versions: tuple[str, ...]
    drop: float | None
    low: float | None
    high: float | None
    drifts: bool


@dataclass(frozen=True)
class Table(Shown):
    """The days of a compressed model, the oldest first, and all of them together."""

    compressed: str
    alpha: float
    days: tuple[Line, ...]
    all: Line

    @property
    def lines(self) -> tuple[Line, ...]:
        """The days, then all of them together."""
        return *self.days, self.all

    @property
    def drifts(self) -> bool:
        """Whether a day, or all days together, are beyond alpha."""
        return any(line.drifts for line in self.lines)

    def told(self) -> dict[str, object]:
        """The table for programs."""
        return {
            "compressed": self.compressed,
            "alpha": self.alpha,
            "days": [_told(line) for line in self.days],
            "all": _told(self.all),
        }

    def shown(self) -> tuple[Part, ...]:
        """A line about the model, then a row for each day and one for all."""
        rows = [_cells(line) for line in self.lines]
        versions = f", versions {', '.join(self.all.versions)}" if self.all.versions else ""
        head = ("day", "original", "compressed", "rows", "lost", "95 % interval", "drift")
        return f"{self.compressed}{versions}; alpha {self.alpha:g}", Grid(head, tuple(rows), frozenset({len(rows) - 1}))


def table(trigger: Trigger, compressed: str, until: date | None = None, days: int = DAYS) -> Table:
    """The `days` days that end with `until`, by default today in UTC. Days without rows are there, and empty.

    Raises UserError if the compressed model comes from no watched one, or the store does not answer.
    """
    model, watched = original_of(trigger, compressed)
    last = until or trigger.clock().astimezone(UTC).date()
    wanted = [last - timedelta(days=back) for back in reversed(range(days))]
    known = days_of(trigger.objects, model, wanted)
    lines, sums, versions = [], [Count(), Count()], set()
    for day in wanted:
        original, smaller = (known[day].original, known[day].compressed) if day in known else ({}, {})
        counts = (_sum(original.values()), _sum(smaller.values()))
        sums = [before + one for before, one in zip(sums, counts, strict=True)]
        versions |= set(smaller)
        lines.append(_line(day, *counts, smaller, watched.drift))
    return Table(compressed, watched.drift.alpha, tuple(lines), _line(None, sums[0], sums[1], versions, watched.drift))


def drop_of(original: Count, compressed: Count) -> tuple[float, float, float]:
    """The accuracy lost between two counts of different questions, and its interval: Newcombe's hybrid score interval
    (Statistics in Medicine 17, 1998, method 10). Both have rows."""
    p, q = original.right / original.rows, compressed.right / compressed.rows
    (p_low, p_high), (q_low, q_high) = _wilson(original), _wilson(compressed)
    low = p - q - sqrt((p - p_low) ** 2 + (q_high - q) ** 2)
    high = p - q + sqrt((p_high - p) ** 2 + (q - q_low) ** 2)
    drop = (original.right * compressed.rows - compressed.right * original.rows) / (original.rows * compressed.rows)
    return drop, low, high  # `drop` from whole numbers, so that alpha itself is not beyond alpha


def _wilson(count: Count) -> tuple[float, float]:
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share, n = count.right / count.rows, count.rows
    middle, half = share + z * z / (2 * n), z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))


def _line(day: date | None, original: Count, compressed: Count, versions: Iterable[str], rule: DriftSettings) -> Line:
    named = tuple(sorted((one for one in versions if one), key=lambda one: (len(one), one)))
    if not original.rows or not compressed.rows:
        return Line(day, original, compressed, named, None, None, None, False)
    drop, low, high = drop_of(original, compressed)
    enough = min(original.rows, compressed.rows) >= rule.least_rows
    return Line(
        day, original, compressed, named, drop, low, high, enough and (low if rule.certain else drop) > rule.alpha
    )


def _sum(counts: Iterable[Count]) -> Count:
    return sum(counts, Count())


def _cells(line: Line) -> tuple[str, ...]:
    def share(count: Count) -> str:
        return "" if count.accuracy is None else f"{count.accuracy:.4f}"

    return (
        line.day.isoformat() if line.day else "all",
        share(line.original),
        share(line.compressed),
        f"{line.original.rows}, {line.compressed.rows}",
        "" if line.drop is None else f"{line.drop:.4f}",
        "" if line.low is None else f"{line.low:.4f} to {line.high:.4f}",
        "yes" if line.drifts else "",
    )


def _told(line: Line) -> dict[str, object]:
    return {
        "day": line.day.isoformat() if line.day else None,
        "original": line.original.model_dump() | {"accuracy": line.original.accuracy},
        "compressed": line.compressed.model_dump() | {"accuracy": line.compressed.accuracy},
        "versions": list(line.versions),
        "drop": line.drop,
        "drop_interval": None if line.low is None else {"low": line.low, "high": line.high, "confidence": CONFIDENCE},
        "drifts": line.drifts,
    }
