"""How long speed is measured, and on how many rows: until it is known well enough, or until the time is up.

Models take turns: a turn is one pass of each of them over the same rows. On a slow machine a pass has so few rows that
ten turns would fit into the time. Three turns are made even if a single row takes longer than that.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean, stdev

from lmmpress.evaluation.gate import REPORTED_CONFIDENCE
from lmmpress.result import Interval, Stopped

Clock = Callable[[], float]
"""Seconds since some moment, such as time.perf_counter."""


class Stopwatch:
    """A clock that stands still while something else is done than what it measures."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._stood = clock, 0.0

    def __call__(self) -> float:
        return self._clock() - self._stood

    @contextmanager
    def stands(self) -> Iterator[None]:
        """In this context no time passes."""
        begun = self._clock()
        try:
            yield
        finally:
            self._stood += self._clock() - begun


NARROW = 0.03
"""Speed is known well enough if its interval reaches at most this far, as a share, to either side."""

LEAST = 3
"""The fewest passes of each model, even if the time is up."""

SURE = 5
"""The fewest passes after which an interval is believed to be narrow: that of fewer is so by chance too often."""

_OF_A_TURN, _OF_OWN_ANSWERS, _OF_ALL_PASSES = 0.1, 0.2, 0.75
"""Shares of the time: at most for a turn, and for models' own answers; and when the last pass is over, so that there is
time for single rows."""

_FASTER = 4  # the trial of `fit` grows by this factor
_SHORTEST = 1e-9  # seconds; some clocks are coarse


@dataclass(frozen=True)
class Pace:
    """The time for measuring: `seconds` of `clock`, from `begun` on."""

    seconds: float
    begun: float
    clock: Clock = time.perf_counter

    @classmethod
    def begin(cls, seconds: float, clock: Clock = time.perf_counter) -> "Pace":
        """The time begins now."""
        return cls(seconds, clock(), clock)

    @property
    def spent(self) -> float:
        """The seconds since the beginning."""
        return self.clock() - self.begun

    def of_a_pass(self, models: int) -> float:
        """The most seconds of a pass of one of so many models."""
        return _OF_A_TURN * self.seconds / models

    def of_own_answers(self, models: int) -> float:
        """The most seconds that one of so many models may generate its own answers for."""
        return _OF_OWN_ANSWERS * self.seconds / models

    @property
    def for_single_rows(self) -> float:
        """The seconds that are kept for single rows."""
        return (1 - _OF_ALL_PASSES) * self.seconds

    @property
    def left(self) -> float:
        """The seconds until the time is up."""
        return self.seconds - self.spent

    def stops(self, rates: Sequence[Sequence[float]], turn: float) -> Stopped | None:
        """Why there is no further turn; None if there is one. `rates` are the rates of each model in the turns so far,
        `turn` the seconds that one takes."""
        turns = len(rates[0])
        if turns >= SURE and _is_narrow(measured(rates)):
            return "narrow"
        late = self.spent + turn > _OF_ALL_PASSES * self.seconds
        return "seconds" if turns >= LEAST and late else None


@dataclass(frozen=True)
class Fit:
    """How many `rows` fit into some time, and the seconds of `each` of so many, and of a row that is `alone`."""

    rows: int
    each: float
    alone: float


def fit(seconds: float, most: int, ask: Callable[[int], float]) -> Fit:
    """How many rows fit into so many seconds: at least one, at most `most`.

    `ask` answers a number of rows and tells the seconds that it took. It is tried with one row, which is also a
    warm-up, and then with more and more, so that a trial takes no longer than what it is for.
    """
    alone = ask(1)
    if alone < seconds:
        alone = ask(1)
    rows, taken = 1, max(alone, _SHORTEST)
    while rows < most and _FASTER * taken <= seconds:
        rows = min(_FASTER * rows, most)
        taken = max(ask(rows), _SHORTEST)
    return Fit(max(1, min(int(rows * seconds / taken), most)), taken / rows, max(alone, _SHORTEST))


def spread(count: int) -> list[int]:
    """The numbers from 0 to `count` - 1 in an order of which every beginning is spread evenly over them (van der
    Corput's sequence)."""
    digits = max(1, (count - 1).bit_length())
    return sorted(range(count), key=lambda number: int(f"{number:0{digits}b}"[::-1], 2))


def measured(rates: Sequence[Sequence[float]]) -> Interval:
    """The interval of what is measured: of the ratio of two models, or of the rate of one alone."""
    return rate_interval(rates[0]) if len(rates) == 1 else ratio_interval(rates[0], rates[-1])


def rate_interval(rates: Sequence[float], confidence: float = REPORTED_CONFIDENCE) -> Interval:
    """The interval of a model's rate, from its rates in several passes."""
    return _interval([math.log(rate) for rate in rates], confidence)


def ratio_interval(
    before: Sequence[float], after: Sequence[float], confidence: float = REPORTED_CONFIDENCE
) -> Interval:
    """The interval of the ratio of two models' rates, the second's over the first's, paired by turn."""
    return _interval([math.log(new / old) for old, new in zip(before, after, strict=True)], confidence)


def _interval(logarithms: Sequence[float], confidence: float) -> Interval:
    """Student's interval of the mean of at least two logarithms, as an interval of what they are logarithms of."""
    centre, count = fmean(logarithms), len(logarithms)
    reach = student((1 + confidence) / 2, count - 1) * stdev(logarithms) / math.sqrt(count)
    return Interval(low=math.exp(centre - reach), high=math.exp(centre + reach), confidence=confidence)


def _is_narrow(interval: Interval) -> bool:
    return interval.high / interval.low <= (1 + NARROW) ** 2


def student(probability: float, freedom: int) -> float:
    """The quantile of Student's t distribution with whole degrees of freedom, for a probability above 1/2.

    It is found by bisection, since there is no closed form; the distribution has one (Abramowitz and Stegun, Handbook
    of Mathematical Functions, 26.7.3 and 26.7.4).
    """
    low, high = 0.0, 1.0
    while _within(high, freedom) < 2 * probability - 1:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < 2 * probability - 1 else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """The probability that Student's t is between -t and t."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for number in range(2 + odd, freedom + 1, 2):
        total += term
        term *= cosine**2 * (number - 1) / number
    if odd:
        return 2 / math.pi * (angle + sine * total)
    return sine * total
