"""The gate decides whether a step is accepted, from two measurements on the same rows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np

from lmmpress.data.facts import Marks, Values
from lmmpress.evaluation.bootstrap import mean_interval, unseen_share
from lmmpress.metrics.scale import SHARE_OF_RIGHT, Scale
from lmmpress.plan import Tolerance
from lmmpress.result import Decision, Drop, Interval

Owners = np.ndarray[Any, np.dtype[np.int64]]
"""The index of each row's image, [rows]."""


@dataclass(frozen=True)
class Verdict:
    """The gate's decision and its reason; and the drops of all tasks, which may have decided it."""

    decision: Decision
    reason: str
    drop: float | None
    interval: Interval | None
    by_task: dict[str, Drop] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskRows:
    """Which rows are of a task, booleans [rows], and the scale of its metric."""

    rows: Marks
    scale: Scale = SHARE_OF_RIGHT


REPORTED_CONFIDENCE = 0.95


def decide(
    reference: Values,
    measured: Values | None,
    owner: Owners,
    tolerance: Tolerance,
    scale: Scale = SHARE_OF_RIGHT,
    tasks: Mapping[str, TaskRows] | None = None,
) -> Verdict:
    """Accept a step if its drop in accuracy is below alpha (Algorithm 1, lines 3, 8, 14 and 20), and with
    `tolerance.per_task` also that of each task that is guarded.

    `reference` and `measured` [rows] are what each row is worth to the two models, on `scale`: which rows they answer
    right, or numbers; `measured` is None if the distillation loss did not stay finite. `owner` [rows] is the index of
    each row's image. A drop equal to alpha is not below alpha.
    """
    broken: Decision = "kept" if tolerance.on_violation == "keep" else "rolled back"
    if measured is None:
        return Verdict("rolled back", "the distillation loss is not finite", None, None)
    confidence = tolerance.confidence
    level = REPORTED_CONFIDENCE if confidence == "none" else confidence
    drop = paired_drop(reference, measured, owner, level, scale)
    by_task = {
        task: paired_drop(reference[of.rows], measured[of.rows], owner[of.rows], level, of.scale)
        for task, of in (tasks or {}).items()
    }
    what = "drop" if confidence == "none" else f"upper {confidence:g} bound of the drop"

    def compared(one: Drop) -> float:
        return one.value if confidence == "none" else one.interval.high

    decision: Decision = "accepted" if compared(drop) < tolerance.alpha else broken
    words = "is below" if decision == "accepted" else "is not below"
    reason = f"{what} {compared(drop):.4f} {words} alpha {tolerance.alpha:g}"
    if decision == "accepted" and tolerance.per_task:
        alphas = {task: alpha for task in by_task if (alpha := tolerance.alpha_of(task)) is not None}
        broke = {task: alpha for task, alpha in alphas.items() if not compared(by_task[task]) < alpha}
        if broke:
            decision = broken
            task, alpha = max(broke.items(), key=lambda one: compared(by_task[one[0]]) - one[1])
            reason = f"{what} of task {task!r} {compared(by_task[task]):.4f} is not below alpha {alpha:g}"
        else:
            reason += f", and so is that of {', '.join(map(repr, alphas))}" if alphas else ""
    return Verdict(decision, reason, drop.value, drop.interval, by_task)


def paired_drop(before: Values, after: Values, owner: Owners, confidence: float, scale: Scale = SHARE_OF_RIGHT) -> Drop:
    """The accuracy lost between two models on the same rows: how much worse the mean has become, on `scale`.

    For rows that are right or wrong the interval is Bonett and Price's (2012) adjusted Wald interval: it adds one lost
    and one gained row, so that its coverage is right even if few rows change. Rows that share an image are not
    independent, so the variance is computed from sums over images. For other numbers it is that of bootstrap.py; if
    they all change alike, it reaches as far as the rows that were not seen may matter. From one image nothing can be
    estimated: the interval is then the whole scale.
    """
    if scale.better == "lower":
        before, after = after, before
    if not scale.is_share:
        return _drop_of_numbers(before.astype(np.float64) - after.astype(np.float64), owner, confidence, scale)
    rows = len(before)
    lost = before.astype(np.int64) - after.astype(np.int64)
    # a single division of integers, so that a drop of exactly alpha compares equal to alpha
    drop = int(lost.sum()) / rows
    if not bool((owner != owner[0]).any()):
        return Drop(value=drop, interval=Interval(low=-1.0, high=1.0, confidence=confidence))
    by_image = np.bincount(owner, weights=lost - drop)
    centre = int(lost.sum()) / (rows + 2)
    error = math.sqrt(float((by_image**2).sum()) + 2) / (rows + 2)
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * error
    interval = Interval(low=max(centre - reach, -1.0), high=min(centre + reach, 1.0), confidence=confidence)
    return Drop(value=drop, interval=interval)


def _drop_of_numbers(
    losses: "np.ndarray[Any, np.dtype[np.float64]]", owner: Owners, confidence: float, scale: Scale
) -> Drop:
    """The drop from what each row has lost, [rows]."""
    drop, images = math.fsum(losses) / len(losses), len(np.unique(owner))
    if images == 1:
        low, high = -scale.width, scale.width
    elif np.ptp(losses) == 0 and math.isfinite(scale.width):
        reach = scale.width * unseen_share(images, confidence)
        low, high = max(drop - reach, -scale.width), min(drop + reach, scale.width)
    else:
        low, high = mean_interval(losses, owner, confidence)
    return Drop(value=drop, interval=Interval(low=low, high=high, confidence=confidence))
