"""The metric `numeric`: the right number, within a tolerance."""

from collections.abc import Sequence
from decimal import Decimal

from lmmpress.metrics.metric import Metric, best_over_answers
from lmmpress.metrics.quantity import quantity

_USUAL = 0.05
"""Of the right number, as in the relaxed accuracy of ChartQA (Masry et al. 2022)."""


def numeric(relative: float | None = None, absolute: float | None = None) -> Metric:
    """A row is 1 if the one number in the model's answer is within a tolerance of the right number.

    `relative` is a share of the right number's size, `absolute` in its own unit; the larger of the two holds. Without
    both, `relative` is 0.05. ValueError if one is below 0 or not finite.
    """
    if relative is None:
        relative = 0.0 if absolute is not None else _USUAL
    for name, value in (("relative", relative), ("absolute", absolute or 0.0)):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} is {value:g}; it is a number from 0 on")
    # from the shortest text, so that a tolerance of 0.05 is 5/100, and 1.05 is within it of 1
    share, distance = Decimal(str(relative)), Decimal(str(absolute or 0.0))

    def is_near(said: str, answer: str) -> float:
        found, right = quantity(said), quantity(answer)
        if found is None or right is None:
            return 0.0
        reach = max(share * abs(right), distance)
        return float(abs(found - right) <= reach)

    limits = [f"{relative * 100:g} %"] if relative or not absolute else []
    limits += [f"{absolute:g}"] if absolute else []
    about = f"numbers within {' or '.join(limits)} of a right one"
    return Metric("numeric", "text", "higher", (0.0, 1.0), True, about, best_over_answers(is_near), fault=_fault)


def _fault(answers: Sequence[str]) -> str | None:
    for answer in answers:
        if quantity(answer) is None:
            return f"the right answer {answer[:40]!r} holds no number, or several"
    return None
