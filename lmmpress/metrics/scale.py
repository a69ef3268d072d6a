"""The scale that a drop is on: that of the metrics of all rows that it is the mean of."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pydantic import TypeAdapter

from lmmpress.errors import UserError
from lmmpress.metrics.metric import Better
from lmmpress.metrics.registry import is_ours
from lmmpress.metrics.setting import Choice, MetricsByTask, metric_of


@dataclass(frozen=True)
class Scale:
    """What the numbers of rows are: which are `better`, whether each is 0 or 1, and the least and the largest that a
    row can have."""

    better: Better
    is_share: bool
    low: float
    high: float

    @property
    def width(self) -> float:
        """The largest drop that a row can have."""
        return self.high - self.low

    @property
    def worst(self) -> float:
        """The worst number that a row can have."""
        return self.low if self.better == "higher" else self.high


SHARE_OF_RIGHT = Scale("higher", True, 0.0, 1.0)
"""The scale of the share of rows that are right."""


def common_scale(scales: Collection[Scale]) -> Scale:
    """The scale of the mean over rows of several metrics. UserError if larger numbers are better for some only."""
    if not scales:
        return SHARE_OF_RIGHT
    if len({scale.better for scale in scales}) > 1:
        raise UserError(
            "metrics: for some tasks larger numbers are better and for others smaller ones, so that their mean says "
            "nothing; give all tasks metrics of one direction"
        )
    return Scale(
        better=next(iter(scales)).better,
        is_share=all(scale.is_share for scale in scales),
        low=min(scale.low for scale in scales),
        high=max(scale.high for scale in scales),
    )


def names_in(setting: Mapping[str, Choice]) -> set[str]:
    """The names of all metrics in a setting."""
    return {one if isinstance(one, str) else next(iter(one)) for one in setting.values()}


def widest(setting: object) -> float:
    """The largest drop that a row can have by any metric of a setting as it is written: infinity where a metric has no
    bounds, or is another package's, which is not loaded for that. ValueError or UserError if the setting is faulty."""
    chosen = TypeAdapter(MetricsByTask).validate_python(setting)
    if not all(map(is_ours, names_in(chosen))):
        return math.inf
    bounds = [metric_of(chosen, task).bounds for task in chosen]
    return max(high - low for low, high in bounds)
