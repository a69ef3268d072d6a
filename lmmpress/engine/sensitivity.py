"""What cuts of the original lose along each axis of each tower: each is made alone, with the parts that a run has, and
is not distilled."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from lmmpress.axes import axis_named
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.distill import distill
from lmmpress.engine.parts.evaluate import evaluate
from lmmpress.engine.parts.importance import importance
from lmmpress.engine.parts.prune import prune
from lmmpress.evaluation.gate import REPORTED_CONFIDENCE, paired_drop
from lmmpress.evaluation.metrics_by_task import metric_infos
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.metrics.metric import Better
from lmmpress.metrics.scale import Scale
from lmmpress.plan import Plan
from lmmpress.printing.numbers import in_short
from lmmpress.progress import Outlook, at_step, say
from lmmpress.pruning.amounts import nearest_legal
from lmmpress.pruning.importance import Scores
from lmmpress.result import Drop, scale_of
from lmmpress.settings.amounts import fraction_of

SHARES = ("10%", "25%", "50%")
"""The shares of a width that are cut, each to the nearest legal number."""


@dataclass(frozen=True)
class Way:
    """An axis of a tower along which a plan cuts. `tower` is as the plan names it, `cut` the tower that this means in
    the original."""

    axis: str
    tower: str
    cut: str
    width: int
    unit: int

    @property
    def name(self) -> str:
        return f"{self.axis} of the {self.tower} tower"


@dataclass(frozen=True)
class Loss:
    """What one cut of the original saves and loses: the share of the model's parameters that go, and the accuracy on
    the gate's split with its drop. `checkpoint` is the pruned one, and `seconds` how long each part took."""

    way: Way
    removed: int
    saved: float
    accuracy: float
    drop: Drop
    checkpoint: str
    seconds: dict[str, float]

    @property
    def share(self) -> float:
        """The share of the width that was cut."""
        return self.removed / self.way.width


@dataclass(frozen=True)
class Sensitivity:
    """The original's accuracy, that of a model without any skill (`floor`), which direction is `better`, and what each
    cut loses. `scored` is how long scoring the original took."""

    accuracy: float
    floor: float
    better: Better
    losses: tuple[Loss, ...]
    scored: float


def ways_of(plan: Plan, anatomy: Anatomy) -> list[Way]:
    """Every axis of every tower that a plan cuts, once each, in the plan's order."""
    found: dict[tuple[str, str], Way] = {}
    for stage in plan.stages:
        for tower in plan.stage_towers(stage):
            cut = tower or anatomy.largest_tower()
            body = anatomy.axis(cut, stage.axis)
            name = tower or "largest"
            found.setdefault((stage.axis, name), Way(stage.axis, name, cut, body.width, body.unit))
    return list(found.values())


def cuts_of_way(way: Way) -> list[int]:
    """How much each cut along a way removes: shares that come to the same number are one."""
    numbers = (nearest_legal(fraction_of(share), way.width, way.unit) for share in SHARES)
    return sorted({number for number in numbers if number})


def measure(materials: Materials) -> Sensitivity:
    """Cut the original along every way of the plan, each time anew, and measure it on the gate's split. With
    `distillation.refit_rows` each cut is refitted first. What the store has is not computed again."""
    plan, original = materials.plan, materials.original
    before = evaluate(materials, original, plan.tolerance.split)
    cuts = [(way, removed) for way in ways_of(plan, materials.anatomy) for removed in cuts_of_way(way)]
    scored = importance(materials, original) if any(axis_named(way.axis).needs_scores for way, _ in cuts) else None
    losses: list[Loss] = []
    for number, (way, removed) in enumerate(cuts, start=1):
        with at_step(_outlook(number, len(cuts), way, losses)):
            losses.append(_lost(materials, way, removed, scored.scored.scores if scored else None, before.values))
        one = losses[-1]
        say(
            f"cut {number}/{len(cuts)}: {way.name} -{removed} of {way.width}: {one.accuracy:.4f}, lost "
            f"{one.drop.value:.4f}, saves {in_short(round(one.saved * materials.anatomy.parameters))} parameters"
        )
    better = _scale(materials).better
    return Sensitivity(before.accuracy, floor_of(materials), better, tuple(losses), scored.seconds if scored else 0.0)


def _lost(materials: Materials, way: Way, removed: int, scores: Scores | None, before: Any) -> Loss:
    plan, role = materials.plan, materials.plan.tolerance.split
    pruned = prune(materials, materials.original, way.cut, way.axis, removed, scores)
    refitted = distill(materials, pruned.checkpoint, plan.distillation.model_copy(update={"epochs": 0}))
    after = evaluate(materials, refitted.checkpoint or pruned.checkpoint, role)
    owners = materials.facts(role).owners()
    left, all_of_them = materials.anatomy_of(pruned.checkpoint).parameters, materials.anatomy.parameters
    return Loss(
        way=way,
        removed=removed,
        saved=1 - left / all_of_them,
        accuracy=after.accuracy,
        drop=paired_drop(before, after.values, owners, REPORTED_CONFIDENCE, _scale(materials)),
        checkpoint=pruned.checkpoint,
        seconds={"prune": pruned.seconds, "distill": refitted.seconds, "evaluate": after.seconds},
    )


def _scale(materials: Materials) -> Scale:
    plan = materials.plan
    return scale_of(metric_infos(plan.metrics, materials.facts(plan.tolerance.split).tasks))


def _outlook(number: int, total: int, way: Way, known: Sequence[Loss]) -> Outlook:
    """The name of a cut, and how long it and those after it take, by those before it."""
    name = f"{way.name}, cut {number} of {total}"
    if not known:
        return Outlook(name)
    parts = list(known[0].seconds)
    usual = {part: fmean(one.seconds[part] for one in known) for part in parts}
    rest = (total - number) * sum(usual.values())
    later = {part: rest + sum(usual[after] for after in parts[at + 1 :]) for at, part in enumerate(parts)}
    return Outlook(name, usual, later)


def floor_of(materials: Materials) -> float:
    """What a model without any skill has on the gate's split: of exact answers the share of each task's most common
    answer, else the worst number of the metric."""
    role = materials.plan.tolerance.split
    facts = materials.facts(role)
    metrics, answers = metric_infos(materials.plan.metrics, facts.tasks), dict[str, dict[str, int]]()
    for task, answer in _answers(materials):
        counts = answers.setdefault(task, {})
        counts[answer] = counts.get(answer, 0) + 1
    total = 0.0
    for task, rows in facts.rows_by_task().items():
        if metrics[task].name == "exact":
            total += max(answers[task].values())
        else:
            total += metrics[task].scale.worst * int(rows.sum())
    return total / facts.rows


def _answers(materials: Materials) -> Iterator[tuple[str, str]]:
    """Task and answer of each row of the gate's split."""
    for row in materials.split(materials.plan.tolerance.split).rows:
        yield row.task, row.answer
