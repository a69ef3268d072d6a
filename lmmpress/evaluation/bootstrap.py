"""The interval of a mean, such as that of paired differences, by a bootstrap: for numbers of rows that are no shares.

Efron's (1987) BCa interval, which corrects the percentiles of the bootstrap for bias and skew (DiCiccio and Efron,
Bootstrap Confidence Intervals, Statistical Science 11:189, 1996): metrics such as ROUGE-L are often far from symmetric.
What is drawn again are pictures with all their rows, since rows that share one are not independent (a cluster
bootstrap: Davison and Hinkley, Bootstrap Methods and their Application, section 3.8).
"""

import math
from statistics import NormalDist
from typing import Any

import numpy as np

Numbers = np.ndarray[Any, np.dtype[np.float64]]

DRAWS = 4000
"""How often all pictures are drawn again: the ends of a 95 % interval then vary by about a tenth of its distance from
the middle in the share of draws beyond them, 2.5 % plus or minus 0.25 %."""

_SEED = 20
_AT_ONCE = 1_000_000  # numbers in memory
_NORMAL = NormalDist()


def mean_interval(
    losses: Numbers, owner: np.ndarray[Any, np.dtype[np.int64]], confidence: float
) -> tuple[float, float]:
    """The two-sided interval of the mean of `losses` [rows], whose pictures are `owner` [rows]; there are at least two
    pictures. The same numbers always give the same interval."""
    _, picture = np.unique(owner, return_inverse=True)
    sums, counts = np.asarray(np.bincount(picture, weights=losses), dtype=np.float64), np.bincount(picture)
    mean = math.fsum(losses) / len(losses)
    if np.ptp(losses) == 0:
        return mean, mean
    means = np.sort(_drawn_means(sums, counts))
    below = (np.searchsorted(means, mean, "left") + np.searchsorted(means, mean, "right")) / 2
    bias = _NORMAL.inv_cdf(min(max(below / DRAWS, 0.5 / DRAWS), 1 - 0.5 / DRAWS))
    skew = _acceleration(sums, counts)
    ends = []
    for share in ((1 - confidence) / 2, (1 + confidence) / 2):
        moved = bias + _NORMAL.inv_cdf(share)
        place = _NORMAL.cdf(bias + moved / (1 - skew * moved)) if skew * moved < 1 else float(moved > 0)
        ends.append(float(np.quantile(means, place)))
    return ends[0], ends[1]


def unseen_share(images: int, confidence: float) -> float:
    """If none of `images` pictures differs, fewer than this share of all pictures do, with this confidence (Hanley and
    Lippman-Hand, If Nothing Goes Wrong, Is Everything All Right?, JAMA 249:1743, 1983)."""
    return float(1 - (1 - confidence) ** (1 / images))


def _drawn_means(sums: Numbers, counts: np.ndarray[Any, Any]) -> Numbers:
    """The mean over rows of each draw of as many pictures as there are, [DRAWS]."""
    pictures, generator = len(sums), np.random.default_rng(_SEED)
    alike = bool((counts == counts[0]).all())
    means = np.empty(DRAWS)
    step = max(1, _AT_ONCE // pictures)
    for at in range(0, DRAWS, step):
        drawn = generator.integers(0, pictures, (min(step, DRAWS - at), pictures), dtype=np.int32)
        rows = pictures * counts[0] if alike else counts[drawn].sum(axis=1)
        means[at : at + step] = sums[drawn].sum(axis=1) / rows
    return means


def _acceleration(sums: Numbers, counts: np.ndarray[Any, Any]) -> float:
    """How the spread of the mean changes with the mean, from the means without each picture."""
    without = (sums.sum() - sums) / (counts.sum() - counts)
    apart = without.mean() - without
    spread = float((apart**2).sum())
    return float((apart**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
