"""What a metric is, and how rows are scored by one: docs/metrics.md has the table of all metrics."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from lmmpress.errors import UserError
from lmmpress.host.extras import needs

Needs = Literal["tokens", "text", "teacher_text", "teacher_logits"]
"""What a row is scored from: one forward pass over its right answer, the text that the model writes, the text that the
teacher writes, or the teacher's logits."""

Better = Literal["higher", "lower"]

Answers = Sequence[Sequence[str]]
"""All right answers of each row, [rows][at least 1]."""

Score = Callable[[Sequence[str], Answers], list[float]]
"""One number for each row, from what the model said [rows] and all right answers of each row."""


LONGEST = 10_000
"""Characters of a text that are compared: texts may come from strangers, and some metrics take the time of the product
of two lengths."""


@dataclass(frozen=True)
class Metric:
    """How a row is scored: one number a row, whose mean over rows is what results show and what alpha is compared with.

    `bounds` are the least and the largest number that a row can have, infinity where there is none. With `is_share`
    each row has 0 or 1, so that the mean is the share of rows. `about` says in a few words what is scored. `score`
    gets all rows of one split and task at once, because some metrics count words over all of them; it is None unless
    the metric needs `text`: the engine scores the others. `fault` says what is wrong with a row's answers if the metric
    cannot score them, None if nothing is. `package` is a package of the extra `metrics` that scoring needs.
    """

    name: str
    needs: Needs
    better: Better
    bounds: tuple[float, float]
    is_share: bool
    about: str
    score: Score | None = field(default=None, compare=False)
    fault: Callable[[Sequence[str]], str | None] | None = field(default=None, compare=False)
    package: str | None = None

    @property
    def is_generated(self) -> bool:
        """Whether the model has to write its answers."""
        return self.needs == "text"

    @property
    def best(self) -> float:
        """The best number that a row can have."""
        return self.bounds[self.better == "higher"]

    def loss(self, before: float, after: float) -> float:
        """How much worse `after` is than `before`, on the metric's own scale; below 0 if it is better."""
        return before - after if self.better == "higher" else after - before


def best_over_answers(one: Callable[[str, str], float], best: Callable[[list[float]], float] = max) -> Score:
    """The function that gives each row the best number that any of its right answers gives; `one` compares what the
    model said with one right answer."""

    def scores(said: Sequence[str], answers: Answers) -> list[float]:
        return [best([one(text, answer) for answer in row]) for text, row in zip(said, answers, strict=True)]

    return scores


def check_installed(metric: Metric) -> None:
    """Raise UserError with what to install if a package is missing that the metric needs."""
    if metric.package:
        needs(metric.package, f"metric {metric.name!r}")


def score_rows(metric: Metric, said: Sequence[str], answers: Answers) -> list[float]:
    """One number for each row, from all rows of one split and task. Of each text the first 10,000 characters count.

    Raises UserError if the metric is of another package and fails, or gives something else than a number within its
    bounds for each row; and if a package is missing that the metric needs.
    """
    if metric.score is None:
        raise ValueError(f"metric {metric.name} is not scored from texts")
    if len(said) != len(answers) or not all(answers):
        raise ValueError("each row has one text and at least one right answer")
    check_installed(metric)
    said, answers = [text[:LONGEST] for text in said], [[text[:LONGEST] for text in row] for row in answers]
    try:
        values = [float(one) for one in islice(metric.score(said, answers), len(said) + 1)]
    except UserError:
        raise
    except Exception as error:
        raise _failed(metric, error) from error
    low, high = metric.bounds
    if len(values) != len(said):
        amount = "fewer" if len(values) < len(said) else "more"
        raise UserError(f"metric {metric.name!r} gives {amount} than one number for each of {len(said)} rows")
    for row, value in enumerate(values):
        if not (math.isfinite(value) and low <= value <= high) or (metric.is_share and value not in (0.0, 1.0)):
            allowed = "0 or 1" if metric.is_share else f"a finite number from {low:g} to {high:g}"
            raise UserError(f"metric {metric.name!r} gives {value:g} for the text {said[row][:40]!r}; it is {allowed}")
    return values


def check_answers(metric: Metric, answers: Sequence[str], place: str) -> None:
    """Raise UserError if the metric cannot score a row with these right answers. `place` names the row."""
    try:
        fault = metric.fault(answers) if metric.fault else None
    except Exception as error:
        raise _failed(metric, error) from error
    if fault:
        raise UserError(f"{place}: {fault}, so metric {metric.name!r} cannot score the row; give its task another one")


def _failed(metric: Metric, error: Exception) -> UserError:
    """Whatever another package raises, the message names its metric."""
    reason = (str(error).splitlines() or [""])[0]
    return UserError(f"metric {metric.name!r} fails: {type(error).__name__}: {reason}")
