"""How sure a share of rows is, such as the accuracy of one model."""

import math
from statistics import NormalDist

import numpy as np

from lmmpress.data.facts import Marks
from lmmpress.evaluation.gate import REPORTED_CONFIDENCE, Owners
from lmmpress.result import Interval


def share_interval(right: Marks, owner: Owners, confidence: float = REPORTED_CONFIDENCE) -> Interval:
    """The interval of the share of rows [rows] that are right; `owner` [rows] is the index of each row's image.

    It is Wilson's (1927) interval. Rows that share an image are not independent, so they count as fewer: their number
    is divided by the design effect (Kish, Survey Sampling, 1965), the variance of sums over images relative to that of
    independent rows. One more wrong image is added to both variances, so that the effect is sound even if few rows are
    wrong, or none: then rows of an image count as one. Where every row has its own image, the interval is Wilson's
    exactly. From one image no variance can be estimated: the interval is then the whole range 0 to 1.
    """
    rows, share = len(right), int(right.sum()) / len(right)
    if not bool((owner != owner[0]).any()):
        return Interval(low=0.0, high=1.0, confidence=confidence)
    by_image = np.bincount(owner, weights=right - share)
    sizes = np.bincount(owner).astype(np.float64)
    alike = float((sizes**2).sum()) / rows  # the effect if the rows of an image were all right or all wrong
    effect = max(1.0, (float((by_image**2).sum()) + alike) / (rows * share * (1 - share) + 1))
    independent = rows / effect
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    scale = 1 + z**2 / independent
    centre = (share + z**2 / (2 * independent)) / scale
    reach = z * math.sqrt(share * (1 - share) / independent + (z / (2 * independent)) ** 2) / scale
    return Interval(low=max(centre - reach, 0.0), high=min(centre + reach, 1.0), confidence=confidence)
