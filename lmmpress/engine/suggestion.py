"""From what cuts lose to the stages of a plan: their order, steps and maxima, each with its reason. Needs no model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lmmpress.engine.sensitivity import Loss, Sensitivity, Way

KEPT = 0.75
"""Of what the original's accuracy is above that of no skill, a cut may lose so much before it is distilled that this
share is left."""


@dataclass(frozen=True)
class SuggestedStage:
    """A stage of the suggested plan. `cost` is the accuracy that its measured cuts lose for each 1 % of the model's
    parameters that they save."""

    way: Way
    step: int
    most: int
    cost: float
    reason: str

    @property
    def steps(self) -> int:
        """How many steps it makes if the gate accepts them all."""
        return -(-self.most // self.step)


def suggest(found: Sensitivity, most: Mapping[Way, int]) -> list[SuggestedStage]:
    """The stages, the one that loses least for what it saves first. `most` is what each may remove in all."""
    by_way: dict[Way, list[Loss]] = {}
    for loss in sorted(found.losses, key=lambda one: one.removed):
        by_way.setdefault(loss.way, []).append(loss)
    costs = {way: cost_of(losses) for way, losses in by_way.items()}
    saved = {way: sum(one.saved for one in losses) for way, losses in by_way.items()}
    order = sorted(by_way, key=lambda way: (costs[way], -saved[way]))
    stages = []
    for place, way in enumerate(order, start=1):
        step, why = _step(found, by_way[way], most[way])
        lost = f"{costs[way]:.4f} lost for each 1 % of the parameters saved"
        reason = f"{way.name} is {_th(place)} of {len(order)}: {lost}; {why}"
        stages.append(SuggestedStage(way, step, most[way], costs[way], reason))
    return stages


def cost_of(losses: Sequence[Loss]) -> float:
    """The accuracy that cuts along one way lose for each 1 % of the model's parameters, over all of them, so that the
    noise of one counts less. Cuts that gain accuracy cost nothing."""
    saved = 100 * math.fsum(one.saved for one in losses)
    lost = max(0.0, math.fsum(one.drop.value for one in losses))
    return lost / saved if saved > 0 else math.inf


def kept_of(found: Sensitivity, loss: Loss) -> float | None:
    """Which share a cut keeps of the skill: of what the original is better than a model without any. None if that is
    not known: the original is no better, or the metric has no worst number."""
    skill = found.accuracy - found.floor
    if not math.isfinite(skill) or (skill if found.better == "higher" else -skill) <= 0:
        return None
    return (loss.accuracy - found.floor) / skill


def _step(found: Sensitivity, losses: Sequence[Loss], most: int) -> tuple[int, str]:
    """The amount of a step, and why: the largest measured cut that keeps enough, if all smaller ones do too."""
    first, kept = losses[0], [kept_of(found, loss) for loss in losses]
    shares = [share for share in kept if share is not None]
    if len(shares) < len(losses):
        return _at_most(first.removed, most, "the smallest measured cut, since what no skill gives is not known here")
    good = next((number for number, share in enumerate(shares) if share < KEPT), len(shares))
    if not good:
        half = max(1, first.removed // 2 // first.way.unit) * first.way.unit
        why = f"{_cut(first)} keeps only {_percent(shares[0])} of the skill, so the step is half of that, not measured"
        if half == first.removed:
            why = f"{_cut(first)} keeps only {_percent(shares[0])} of the skill, but no smaller cut is legal"
        return _at_most(half, most, why)
    chosen = losses[good - 1]
    why = f"{_cut(chosen)} keeps {_percent(shares[good - 1])} of the skill"
    if good < len(losses):
        why += f", {_cut(losses[good])} only {_percent(shares[good])}"
    else:
        why += ", the largest measured"
    return _at_most(chosen.removed, most, why)


def _at_most(step: int, most: int, why: str) -> tuple[int, str]:
    return (step, why) if step <= most else (most, f"{why}; the maximum {most} is less, and so the step")


def _cut(loss: Loss) -> str:
    return f"-{loss.removed} ({_percent(loss.share)})"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _th(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
