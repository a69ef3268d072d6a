"""A step: its parts, each computed on first use, and the gate's decision."""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from lmmpress.axes import axis_named
from lmmpress.engine.algorithm import Planned
from lmmpress.engine.materials import Materials
from lmmpress.engine.measured import Measured, decided
from lmmpress.engine.parts.distill import Distilled, distill
from lmmpress.engine.parts.evaluate import Evaluated, evaluate
from lmmpress.engine.parts.importance import Importances, importance
from lmmpress.engine.parts.once import energy_by_part
from lmmpress.engine.parts.prune import Pruned, carry, prune
from lmmpress.evaluation.metrics_by_task import metric_infos
from lmmpress.lmm.anatomy import count_by_tower
from lmmpress.plan import Plan
from lmmpress.pruning.importance import Scores
from lmmpress.result import Role, StepResult


@dataclass(frozen=True)
class Made:
    """What one cut made: the scores that it went by, None for an axis that needs none, and the pruned checkpoint."""

    importances: Importances | None
    pruned: Pruned


@dataclass(frozen=True)
class _Move:
    """One cut of a step. `tower` None means the largest tower."""

    axis: str
    tower: str | None
    removed: int


@dataclass
class Step:
    """One step of a run. Each part is computed on first use, after the parts that it needs. A part that was computed
    before, on any machine, is read from the store.

    A jump makes several cuts, one for each stage that it goes over, each with scores of its own; then it is distilled
    and measured once.
    """

    materials: Materials
    planned: Planned

    @cached_property
    def tower(self) -> str:
        """The name of the tower to cut."""
        return self.planned.tower or self.materials.anatomy_of(self.planned.parent).largest_tower()

    @cached_property
    def importances(self) -> Importances | None:
        """The scores of the checkpoint to cut; None for an axis that needs none."""
        if not axis_named(self.planned.stage.axis).needs_scores:
            return None
        return importance(self.materials, self.planned.parent)

    @property
    def pruned(self) -> Pruned:
        """The pruned checkpoint."""
        return self.cuts[-1].pruned

    @cached_property
    def cuts(self) -> list[Made]:
        """What each cut made, in their order. A jump that carries over what an earlier run has learned makes that run's
        cuts at once, without scores."""
        planned = self.planned
        if ends := self.materials.plan.carried_over(len(planned.jump)):
            return [Made(None, carry(self.materials, planned.parent, ends))]
        scores = self.importances
        moves = _merged(planned, self.materials.plan)
        found = prune(self.materials, planned.parent, self.tower, moves[0].axis, moves[0].removed, _scores(scores))
        made = [Made(scores, found)]
        for move in moves[1:]:
            checkpoint = made[-1].pruned.checkpoint
            tower = move.tower or self.materials.anatomy_of(checkpoint).largest_tower()
            scores = importance(self.materials, checkpoint) if axis_named(move.axis).needs_scores else None
            found = prune(self.materials, checkpoint, tower, move.axis, move.removed, _scores(scores))
            made.append(Made(scores, found))
        return made

    @cached_property
    def distilled(self) -> Distilled:
        """The distilled checkpoint. The names of results have the epochs of the step alone, so that a change of
        `last_epochs` leaves the other steps as they are."""
        plan, settings = self.materials.plan, self.materials.plan.distillation
        changes: dict[str, int | None] = {"last_epochs": None, "epochs": plan.epochs_over(len(self.planned.jump) or 1)}
        if not self.planned.distils:
            changes |= {"epochs": 0, "refit_rows": 0}
        elif self.planned.last and settings.last_epochs is not None:
            changes["epochs"] = settings.last_epochs
        return distill(self.materials, self.pruned.checkpoint, settings.model_copy(update=changes))

    @cached_property
    def answers_pruned(self) -> Evaluated:
        """The answers of the pruned checkpoint to the gate's split."""
        return evaluate(self.materials, self.pruned.checkpoint, self._gate)

    @cached_property
    def answers(self) -> Evaluated | None:
        """The answers of the distilled checkpoint to the gate's split; None if the loss was not finite."""
        checkpoint = self.distilled.checkpoint
        return None if checkpoint is None else evaluate(self.materials, checkpoint, self._gate)

    @cached_property
    def measured(self) -> Measured:
        """All that the parts of the step found."""
        planned, facts = self.planned, self.materials.facts(self._gate)
        pruned, distilled, before, after = self.pruned, self.distilled, self.answers_pruned, self.answers
        counts = count_by_tower(self.materials.anatomy_of(pruned.checkpoint))
        scored = [cut.importances for cut in self.cuts if cut.importances]
        records = {
            "importance": [each.record for each in scored],
            "prune": [cut.pruned.record for cut in self.cuts],
            "distill": [distilled.record] if distilled.record else [],
            "evaluate": list({one.record.name: one.record for one in (before, after) if one}.values()),
        }
        return Measured(
            stage=planned.stage.name,
            index=planned.index,
            tower=self.tower,
            removed=planned.removed,
            parent=planned.parent,
            pruned=pruned.checkpoint,
            checkpoint=distilled.checkpoint,
            parameters=sum(counts.values()),
            parameters_by_tower=counts,
            accuracy_pruned=before.accuracy,
            accuracy=after.accuracy if after else None,
            accuracy_by_task=facts.by_task(after.values) if after else {},
            reference=self.reference.accuracy,
            metrics=metric_infos(self.materials.plan.metrics, facts.tasks),
            score_reliability=min(
                (each.scored.reliability for each in scored if each.scored.reliability is not None), default=None
            ),
            loss=distilled.loss,
            seconds={part: math.fsum(record.seconds for record in of) for part, of in records.items()},
            machines={part: of[-1].machine for part, of in records.items() if of and of[-1].machine},
            energy=energy_by_part(records),
            answers=after.record.name if after else None,
            reference_answers=self.reference.record.name,
            learning_rate=distilled.learning_rate,
            economy=distilled.economy,
        )

    @cached_property
    def reference(self) -> Evaluated:
        """The answers of the model that the step is compared with."""
        return evaluate(self.materials, self.planned.reference, self._gate)

    @property
    def result(self) -> StepResult:
        """The result of the whole step, with the gate's decision."""
        materials, after = self.materials, self.answers
        facts, values = materials.facts(self._gate), after.values if after else None
        both, jump = (self.reference.values, values), self.planned.jump
        return decided(self.measured, materials.plan, facts, *both, materials.store, jump)

    @property
    def _gate(self) -> Role:
        return self.materials.plan.tolerance.split


def _merged(planned: Planned, plan: Plan) -> list[_Move]:
    """The cuts of a step: one, or for a jump one for each stage and tower. Steps on the largest tower stay apart, since
    another may be the largest after each."""
    if not planned.jump:
        return [_Move(planned.stage.axis, planned.tower, planned.removed)]
    moves = []
    for (stage, tower), steps in groupby(planned.jump, key=lambda step: (step.stage, step.tower)):
        axis, removed = plan.stage(stage).axis, [step.removed for step in steps]
        if tower == "largest":
            moves += [_Move(axis, None, one) for one in removed]
        else:
            moves.append(_Move(axis, tower, sum(removed)))
    return moves


def _scores(importances: Importances | None) -> Scores | None:
    return importances.scored.scores if importances else None
