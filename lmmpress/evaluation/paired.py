"""Statistics of two models on the same rows: who answers which rows right, how sure a difference is.

Rows that share a picture are not independent, so both the interval and the test look at sums over pictures.
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmmpress.data.facts import Marks, SplitFacts
from lmmpress.evaluation.gate import REPORTED_CONFIDENCE, Owners, paired_drop
from lmmpress.result import Drop

Chances = np.ndarray[Any, np.dtype[np.float64]]
"""The probabilities of neighbouring whole numbers."""

_DIRECTLY = 50_000_000  # multiplications; with more a Fourier transform is faster


@dataclass(frozen=True)
class Paired:
    """Two models on the same rows: how many rows both answer right, only A (`lost`), only B (`gained`), and neither;
    the accuracy lost from A to B with its paired interval, and the p-value of `exact_p`."""

    rows: int
    both: int
    lost: int
    gained: int
    neither: int
    drop: Drop
    p: float


def paired(a: Marks, b: Marks, owner: Owners, confidence: float = REPORTED_CONFIDENCE) -> Paired:
    """Compare which rows [rows] two models answer right; `owner` [rows] is the index of each row's picture."""
    return Paired(
        rows=len(a),
        both=int((a & b).sum()),
        lost=int((a & ~b).sum()),
        gained=int((~a & b).sum()),
        neither=int((~a & ~b).sum()),
        drop=paired_drop(a, b, owner, confidence),
        p=exact_p(a, b, owner),
    )


def paired_by_task(a: Marks, b: Marks, facts: SplitFacts) -> dict[str, Paired]:
    """`paired` on the rows of each task, in alphabetical order."""
    owner = facts.owners()
    return {task: paired(a[rows], b[rows], owner[rows]) for task, rows in facts.rows_by_task().items()}


def exact_p(a: Marks, b: Marks, owner: Owners) -> float:
    """The two-sided p-value of a difference at least as large, if neither model were better.

    Where every row has its own picture this is McNemar's exact conditional test (Fagerland, Lydersen and Laake, BMC
    Medical Research Methodology 13:91, 2013): of the rows that one model alone answers right, each falls to either
    model with probability 1/2. Where rows share a picture, the rows of a picture fall to either model together: a
    permutation test of signs. It is computed exactly, from the distribution of the sum of all pictures.
    """
    by_picture = np.bincount(owner, weights=a.astype(np.int64) - b.astype(np.int64)).astype(np.int64)
    observed = abs(int(by_picture.sum()))
    sums = np.ones(1)  # probabilities of the sums -most, ..., most
    for size, pictures in sorted(Counter(np.abs(by_picture[by_picture != 0]).tolist()).items()):
        signs = np.zeros(2 * size * pictures + 1)
        signs[:: 2 * size] = _halves(pictures)
        sums = _sum_of(sums, signs)
    most = len(sums) // 2
    inside = np.abs(np.arange(-most, most + 1)) < observed
    return min(1.0, float(sums[~inside].sum()))


def _sum_of(one: Chances, other: Chances) -> Chances:
    """The distribution of the sum of two independent numbers."""
    if len(one) * len(other) <= _DIRECTLY:
        return np.convolve(one, other)
    size = len(one) + len(other) - 1
    product = np.fft.rfft(one, size) * np.fft.rfft(other, size)
    return np.fft.irfft(product, size).clip(min=0)  # to 1e-15 or so


def _halves(count: int) -> Chances:
    """The binomial distribution of `count` trials with probability 1/2."""
    whole = math.lgamma(count + 1) - count * math.log(2)
    return np.array([math.exp(whole - math.lgamma(k + 1) - math.lgamma(count - k + 1)) for k in range(count + 1)])
