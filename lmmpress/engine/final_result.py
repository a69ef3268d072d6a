"""The closing measurements of a run whose stages have ended, and its result."""

import math
import time
from dataclasses import dataclass

from lmmpress.engine.algorithm import Planned, next_step
from lmmpress.engine.disagreements import note_disagreements
from lmmpress.engine.materials import Materials
from lmmpress.engine.part_names import Part
from lmmpress.engine.parts.evaluate import Evaluated, evaluate
from lmmpress.engine.parts.speed import Speeds, speed
from lmmpress.engine.run import Run
from lmmpress.engine.run_splits import splits_of
from lmmpress.errors import UserError
from lmmpress.evaluation.energy import run_energy
from lmmpress.evaluation.gate import REPORTED_CONFIDENCE, paired_drop
from lmmpress.evaluation.metrics_by_task import metric_infos
from lmmpress.host.energy_use import Energy
from lmmpress.lmm.anatomy import count_by_tower
from lmmpress.result import Headline, Result, Speed, StartedFrom, StepResult, scale_of

SHOWN: tuple[Part, ...] = ("importance", "prune", "distill", "evaluate", "speed")
"""The parts whose seconds a result has; others are checks, which belong to the run's own time."""


@dataclass(frozen=True)
class Ends:
    """The measurements of the original and of the final checkpoint on the test split. `final` is the digest of the
    latter."""

    final: str
    answers_before: Evaluated
    answers_after: Evaluated
    speeds: Speeds


def measure_ends(run: Run, known: list[StepResult]) -> Ends:
    """Measure accuracy and speed of the original and of the final checkpoint, on the test split, which is not used
    before. Stored measurements are reused.

    Raises UserError if a step is still open.
    """
    final = next_step(run.plan, run.original, known)
    if isinstance(final, Planned):
        raise UserError(f"this run has not ended: step {len(known) + 1} is open; resume the run first")
    before, after = (evaluate(run.materials, checkpoint, "test") for checkpoint in (run.original, final))
    ends = Ends(final, before, after, speed(run.materials, (run.original, final)))
    note_disagreements(run.materials, run.key, ((run.original, before), (final, after)))
    return ends


def close(run: Run, known: list[StepResult], started: float | None = None) -> Result:
    """The result of a run whose stages have ended. `started` is when this process began it, by `time.perf_counter`; if
    it is None, tasks of a pipeline made the run, and its duration is the sum of its parts."""
    ends, materials, schedule = measure_ends(run, known), run.materials, run.plan.schedule
    seconds = None if started is None else time.perf_counter() - started
    splits = materials.splits or splits_of(run.plan)
    settings = run.plan.evaluation
    checkpoints, answers = (run.original, ends.final), (ends.answers_before, ends.answers_after)
    headlines = [_headline(materials, *each) for each in zip(checkpoints, answers, ends.speeds.speeds, strict=True)]
    facts = materials.facts("test")
    metrics, owner = metric_infos(run.plan.metrics, facts.tasks), facts.owners()
    first, last = (one.values for one in answers)
    drop = paired_drop(first, last, owner, REPORTED_CONFIDENCE, scale_of(metrics))
    by_task = {
        task: paired_drop(first[rows], last[rows], owner[rows], REPORTED_CONFIDENCE, metrics[task].scale)
        for task, rows in facts.rows_by_task().items()
    }
    before, after = (headline.parameters_by_tower for headline in headlines)
    reduction = {name: before[name] / after[name] for name in before if after[name]}
    tested = {checkpoint: one.record for checkpoint, one in zip(checkpoints, answers, strict=True)}
    parts = _seconds_by_part(run, known) | {"test": math.fsum(one.seconds for one in tested.values())}
    used = _energies(run, known) | {"test": [one.energy for one in tested.values()]}
    if settings.speed:
        parts["speed"], used["speed"] = ends.speeds.seconds, [ends.speeds.record.energy]
    here = math.fsum(materials.spent.get(part, 0.0) for part in SHOWN)
    return Result(
        original=headlines[0],
        compressed=headlines[1],
        drop=drop.value,
        drop_interval=drop.interval,
        drop_by_task=by_task,
        metrics=metrics,
        reduction=reduction | {"all": headlines[0].parameters / headlines[1].parameters},
        steps=known,
        run_key=run.key,
        seconds=sum(parts.values()) if seconds is None else seconds,
        seconds_by_part=parts,
        alpha=run.plan.tolerance.alpha,
        environment=ends.speeds.environment,
        skipped_rows=splits.skipped_rows,
        skipped=splits.skipped,
        data=splits.data,
        own_seconds=None if seconds is None else max(0.0, seconds - here),
        energy=run_energy(ends.speeds.inferences, used, settings.inferences_per_year),
        started_from=StartedFrom(run=schedule.run, steps=len(schedule.steps)) if schedule else None,
    )


def _seconds_by_part(run: Run, known: list[StepResult]) -> dict[str, float]:
    start = evaluate(run.materials, run.original, run.plan.tolerance.split)
    seconds_of = {"evaluate": start.seconds}
    for step in known:
        for part, seconds in step.seconds.items():
            seconds_of[part] = seconds_of.get(part, 0.0) + seconds
    return seconds_of


def _energies(run: Run, known: list[StepResult]) -> dict[str, list[Energy | None]]:
    """What is known of the energy of each part: of the original's first measurement, and of those of each step that
    took time."""
    found: dict[str, list[Energy | None]] = {}
    for step in known:
        for part, seconds in step.seconds.items():
            if seconds:
                found.setdefault(part, []).append(step.energy.get(part))
    start = evaluate(run.materials, run.original, run.plan.tolerance.split)
    found.setdefault("evaluate", []).append(start.record.energy)
    return found


def _headline(materials: Materials, checkpoint: str, answers: Evaluated, speed: Speed | None) -> Headline:
    counts = count_by_tower(materials.anatomy_of(checkpoint))
    return Headline(
        checkpoint=checkpoint,
        address=materials.store.address(checkpoint),
        parameters=sum(counts.values()),
        parameters_by_tower=counts,
        accuracy=answers.accuracy,
        accuracy_by_task=materials.facts("test").by_task(answers.values),
        **(dict(speed) if speed else {}),
    )
