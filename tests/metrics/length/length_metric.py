"""A metric of another package: how near the length of an answer is to that of a right one."""

from collections.abc import Sequence

from lmmpress.metrics import Metric


def score(said: Sequence[str], answers: Sequence[Sequence[str]]) -> list[float]:
    """The shorter length over the longer one, for the nearest right answer."""
    return [max(_near(len(text), len(answer)) for answer in row) for text, row in zip(said, answers, strict=True)]


def _near(one: int, other: int) -> float:
    return min(one, other) / max(one, other, 1)


METRIC = Metric("length", "text", "higher", (0.0, 1.0), False, "lengths like those of right answers", score)
