"""A step: its parts, each computed on first use, and the gate's decision."""

from dataclasses import dataclass
from functools import cached_property

from lmmpress.axes import axis_named
from lmmpress.engine.algorithm import Planned
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.distill import Distilled, distill
from lmmpress.engine.parts.evaluate import Evaluated, evaluate
from lmmpress.engine.parts.importance import Importances, importance
from lmmpress.engine.parts.prune import Pruned, prune
from lmmpress.evaluation.accuracy import by_task, image_of_row
from lmmpress.evaluation.gate import decide
from lmmpress.lmm.anatomy import count_by_tower
from lmmpress.result import Role, StepResult


@dataclass
class Step:
    """One step of a run. Each part is computed on first use, after the parts that it needs. A part that was computed
    before, on any machine, is read from the store."""

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

    @cached_property
    def pruned(self) -> Pruned:
        """The pruned checkpoint."""
        planned, scores = self.planned, self.importances.scored.scores if self.importances else None
        return prune(self.materials, planned.parent, self.tower, planned.stage.axis, planned.removed, scores)

    @cached_property
    def distilled(self) -> Distilled:
        """The distilled checkpoint."""
        return distill(self.materials, self.pruned.checkpoint)

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
    def result(self) -> StepResult:
        """The result of the whole step, with the gate's decision."""
        planned, split, tolerance = self.planned, self.materials.split(self._gate), self.materials.plan.tolerance
        pruned, distilled, before, after = self.pruned, self.distilled, self.answers_pruned, self.answers
        reference = evaluate(self.materials, planned.reference, self._gate)
        verdict = decide(reference.right, after.right if after else None, image_of_row(split), tolerance)
        counts = count_by_tower(self.materials.anatomy_of(pruned.checkpoint))
        return StepResult(
            stage=planned.stage.name,
            index=planned.index,
            tower=self.tower,
            removed=planned.removed,
            decision=verdict.decision,
            reason=verdict.reason,
            parent=planned.parent,
            checkpoint=distilled.checkpoint,
            address=None,
            parameters=sum(counts.values()),
            parameters_by_tower=counts,
            accuracy_pruned=before.accuracy,
            accuracy=after.accuracy if after else None,
            accuracy_by_task=by_task(split, after.right) if after else {},
            reference=reference.accuracy,
            drop=verdict.drop,
            drop_interval=verdict.interval,
            score_reliability=self.importances.scored.reliability if self.importances else None,
            loss=distilled.loss,
            seconds={
                "importance": self.importances.seconds if self.importances else 0.0,
                "prune": pruned.seconds,
                "distill": distilled.seconds,
                "evaluate": before.seconds + (after.seconds if after else 0.0),
            },
        )

    @property
    def _gate(self) -> Role:
        return self.materials.plan.tolerance.split
