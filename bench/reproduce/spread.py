"""Numbers of several seeds: their mean, its interval, and whether two of them can be told apart."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from lmmpress.evaluation.pace import student

CONFIDENCE = 0.95
MISSING = "missing"


@dataclass(frozen=True)
class Numbers:
    """A number by seed; None where it is missing."""

    by_seed: tuple[float | None, ...]

    @property
    def known(self) -> list[float]:
        return [value for value in self.by_seed if value is not None]

    @property
    def whole(self) -> bool:
        """Whether no seed is missing."""
        return bool(self.by_seed) and len(self.known) == len(self.by_seed)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.known)

    @property
    def half(self) -> float | None:
        """Half of the interval of the mean over seeds, by Student's t; None of a single seed."""
        return half_of(self.known)

    def minus(self, other: "Numbers") -> "Numbers":
        """The difference, seed by seed."""
        pairs = zip(self.by_seed, other.by_seed, strict=True)
        return Numbers(tuple(None if a is None or b is None else a - b for a, b in pairs))


def half_of(values: Sequence[float]) -> float | None:
    """Half of the interval of the mean of these values; None of a single one."""
    if len(values) < 2:
        return None
    spread = statistics.stdev(values) / math.sqrt(len(values))
    return student((1 + CONFIDENCE) / 2, len(values) - 1) * spread


def shown(numbers: Numbers, places: int = 3, sign: bool = False) -> str:
    """0.951 (0.940 to 0.962); the number alone where there is one seed, or all have the same. What is missing is named,
    and never a number."""
    known = numbers.known
    if not known:
        return MISSING
    form = f"{'+' if sign else ''}.{places}f"
    text = f"{numbers.mean:{form}}"
    if numbers.half:
        text += f" ({numbers.mean - numbers.half:{form}} to {numbers.mean + numbers.half:{form}})"
    return text if numbers.whole else f"{text}, {len(known)} of {len(numbers.by_seed)} seeds"


def told_apart(one: Numbers, other: Numbers, rows: int) -> bool:
    """Whether two accuracies differ by more than chance: the interval of their differences by seed lies on one side of
    0. Of a single seed, they differ by more than two shares of so many rows do by chance."""
    differences = one.minus(other).known
    if not differences:
        return False
    mean = statistics.fmean(differences)
    half = half_of(differences)
    if half is None:
        (values,) = [(a, b) for a, b in zip(one.by_seed, other.by_seed, strict=True) if a is not None and b is not None]
        half = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * math.sqrt(
            sum(value * (1 - value) for value in values) / max(1, rows)
        )
    return abs(mean) > half
