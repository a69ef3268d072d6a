"""How sure the mean over rows is, of whatever each row is worth to one model."""

import math
from collections.abc import Mapping

import numpy as np

from lmmpress.data.facts import SplitFacts, Values
from lmmpress.evaluation.bootstrap import mean_interval, unseen_share
from lmmpress.evaluation.gate import REPORTED_CONFIDENCE, Owners
from lmmpress.evaluation.share import share_interval
from lmmpress.metrics.scale import Scale
from lmmpress.result import Interval


def interval_of_mean(values: Values, owner: Owners, scale: Scale, confidence: float = REPORTED_CONFIDENCE) -> Interval:
    """The interval of the mean of `values` [rows] on `scale`; `owner` [rows] is the index of each row's image.

    Where each row is 0 or 1 it is that of `share_interval`; else that of bootstrap.py. If all rows are worth the same,
    it reaches as far as images that were not seen may matter, towards an end of the scale that is finite. From one
    image nothing can be estimated: the interval is then the whole scale.
    """
    if scale.is_share:
        return share_interval(values > 0.5, owner, confidence)
    numbers, images = values.astype(np.float64), len(np.unique(owner))
    if images == 1:
        low, high = scale.low, scale.high
    elif np.ptp(numbers) == 0:
        value, share = float(numbers[0]), unseen_share(images, confidence)
        low, high = (value + share * (end - value) if math.isfinite(end) else value for end in (scale.low, scale.high))
    else:
        low, high = mean_interval(numbers, owner, confidence)
    return Interval(low=low, high=high, confidence=confidence)


def intervals_by_task(values: Values, facts: SplitFacts, scales: Mapping[str, Scale]) -> dict[str, Interval]:
    """`interval_of_mean` of the rows of each task, each on the task's own scale, in alphabetical order."""
    owner = facts.owners()
    return {
        task: interval_of_mean(values[rows], owner[rows], scales[task]) for task, rows in facts.rows_by_task().items()
    }
