"""The gate decides whether a step is accepted, from two measurements on the same rows."""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from lmmpress.data.facts import Marks
from lmmpress.plan import Tolerance
from lmmpress.result import Decision, Interval

Owners = np.ndarray[Any, np.dtype[np.int64]]
"""The index of each row's image, [rows]."""


@dataclass(frozen=True)
class Verdict:
    """The gate's decision and its reason."""

    decision: Decision
    reason: str
    drop: float | None
    interval: Interval | None


REPORTED_CONFIDENCE = 0.95


def decide(reference: Marks, measured: Marks | None, owner: Owners, tolerance: Tolerance) -> Verdict:
    """Accept a step if its drop in accuracy is below alpha (Algorithm 1, lines 3, 8, 14 and 20).

    `reference` and `measured` are booleans [rows]: which rows each model answers right; `measured` is None if the
    distillation loss did not stay finite. `owner` [rows] is the index of each row's image. A drop equal to alpha is not
    below alpha.
    """
    broken: Decision = "kept" if tolerance.on_violation == "keep" else "rolled back"
    if measured is None:
        return Verdict("rolled back", "the distillation loss is not finite", None, None)
    confidence = tolerance.confidence
    level = REPORTED_CONFIDENCE if confidence == "none" else confidence
    drop = paired_drop(reference, measured, owner, level)
    if confidence == "none":
        compared, what = drop.value, "drop"
    else:
        compared, what = drop.interval.high, f"upper {confidence:g} bound of the drop"
    decision: Decision = "accepted" if compared < tolerance.alpha else broken
    words = "is below" if decision == "accepted" else "is not below"
    reason = f"{what} {compared:.4f} {words} alpha {tolerance.alpha:g}"
    return Verdict(decision, reason, drop.value, drop.interval)


@dataclass(frozen=True)
class Drop:
    """The accuracy lost between two models on the same rows, and its paired interval."""

    value: float
    interval: Interval


def paired_drop(before: Marks, after: Marks, owner: Owners, confidence: float) -> Drop:
    """The accuracy lost between two models on the same rows.

    The interval is Bonett and Price's (2012) adjusted Wald interval: it adds one lost and one gained row, so that its
    coverage is right even if few rows change. Rows that share an image are not independent, so the variance is computed
    from sums over images. From one image no variance can be estimated: the interval is then the whole range -1 to 1.
    """
    rows = len(before)
    lost = before.astype(np.int64) - after.astype(np.int64)
    # a single division of integers, so that a drop of exactly alpha compares equal to alpha
    drop = int(lost.sum()) / rows
    if not bool((owner != owner[0]).any()):
        return Drop(drop, Interval(low=-1.0, high=1.0, confidence=confidence))
    by_image = np.bincount(owner, weights=lost - drop)
    centre = int(lost.sum()) / (rows + 2)
    error = math.sqrt(float((by_image**2).sum()) + 2) / (rows + 2)
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * error
    interval = Interval(low=max(centre - reach, -1.0), high=min(centre + reach, 1.0), confidence=confidence)
    return Drop(drop, interval)
