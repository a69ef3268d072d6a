"""How long a run of a suggested plan may take, from short distillations on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from lmmpress.axes import axis_named
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.distill import distill
from lmmpress.engine.run_splits import split_of, splits_of
from lmmpress.engine.sensitivity import Sensitivity
from lmmpress.engine.suggestion import SuggestedStage
from lmmpress.plan import Plan
from lmmpress.progress import Outlook, at_step
from lmmpress.settings.distillation import Distillation
from lmmpress.store import Store

_EPOCHS = (1, 3)
"""Two short distillations: their difference is that of the epochs alone, without loading, refitting and saving."""
_PORTIONS = 2
"""So many portions of `rows_at_once` rows are distilled on, in each process."""


@dataclass(frozen=True)
class Pace:
    """How long distilling takes here: the seconds of one epoch over one row, and what each step takes beside that."""

    row: float
    beside: float


@dataclass(frozen=True)
class Expected:
    """An estimate for a run whose gate accepts every step: the seconds, and the hours of GPUs, None without one. They
    are mostly too long, since the model gets smaller; measuring at the end and the caches come on top."""

    steps: int
    seconds: float
    gpu_hours: float | None


def pace_of(plan: Plan, store: Store, original: str, cut: str) -> Pace:
    """Distil the original and a cut of it on a few rows. What the store has is not computed again."""
    settings = plan.distillation
    if settings.epochs == 0:
        return Pace(0.0, 0.0)
    rows = min(len(split_of(plan, "distill").rows), _PORTIONS * settings.rows_at_once * settings.processes)
    rate = Distillation().learning_rate if settings.learning_rate == "auto" else settings.learning_rate
    short = {"rows": rows, "learning_rate": rate, "stop_within": False}  # neither trials nor an early end are timed
    few = plan.model_copy(update={"distillation": settings.model_copy(update=short)})
    materials = Materials(few, store, original, splits=splits_of(few))
    paces = []
    with at_step(Outlook("time of an epoch")):
        for checkpoint in (original, cut):
            _prepare(materials)
            each = [few.distillation.model_copy(update={"epochs": epochs}) for epochs in _EPOCHS]
            one, three = (distill(materials, checkpoint, settings).seconds for settings in each)
            paces.append(_between(one, three, rows))
    return Pace(fmean(pace.row for pace in paces), max(pace.beside for pace in paces))


def _prepare(materials: Materials) -> None:
    """Compute what a run computes once for all steps, so that no distillation is timed with it."""
    materials.lessons("distill")
    if materials.plan.distillation.cached:
        materials.features("distill")
        _ = materials.teacher_states


def _between(short: float, long: float, rows: int) -> Pace:
    """The pace by the seconds of two distillations. Where noise is larger than the difference, all of the longer one
    counts as epochs."""
    fewest, most = _EPOCHS
    epoch = (long - short) / (most - fewest)
    if epoch <= 0:
        return Pace(long / most / rows, 0.0)
    return Pace(epoch / rows, max(0.0, short - fewest * epoch))


def expected(
    plan: Plan, stages: Sequence[SuggestedStage], found: Sensitivity, pace: Pace, rows: int, gpus: int
) -> Expected:
    """The time of all steps, which distil on so many `rows` each. Without epochs a step takes as long as the cuts
    here."""
    usual = {part: fmean(one.seconds[part] for one in found.losses) for part in found.losses[0].seconds}
    settings, epochs = plan.distillation, plan.distillation.epochs
    distilling = pace.beside + epochs * rows * pace.row if epochs else usual["distill"]
    step = usual["prune"] + distilling + 2 * usual["evaluate"]
    more = (settings.last_epochs - epochs) * rows * pace.row if epochs and settings.last_epochs else 0.0
    scored = sum(stage.steps for stage in stages if axis_named(stage.way.axis).needs_scores)
    steps = sum(stage.steps for stage in stages)
    seconds = steps * step + more + scored * found.scored
    return Expected(steps, seconds, gpus * seconds / 3600 if gpus else None)
