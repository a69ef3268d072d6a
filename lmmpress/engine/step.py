"""A step: its parts, each made when it is first needed, and what the gate decides."""

from dataclasses import dataclass
from functools import cached_property

from lmmpress.axes import axis_named
from lmmpress.engine.algorithm import Planned
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.distill import Distilled, distill
from lmmpress.engine.parts.evaluate import Answers, evaluate
from lmmpress.engine.parts.importance import Importances, importance
from lmmpress.engine.parts.prune import Pruned, prune
from lmmpress.evaluation.accuracy import by_task, image_of_row
from lmmpress.evaluation.gate import decide
from lmmpress.lmm.anatomy import count_by_tower
from lmmpress.result import Role, StepResult


@dataclass
class Step:
    """One step of a run. Each part is made when it is first needed, after those that it needs itself; what was made
    before, here or elsewhere, is found in the store."""

    materials: Materials
    planned: Planned

    @cached_property
    def tower(self) -> str:
        """The tower that is cut."""
        return self.planned.tower or self.materials.anatomy_of(self.planned.parent).largest_tower()

    @cached_property
    def importances(self) -> Importances | None:
        """Scores of the checkpoint to be cut; None along an axis that needs none."""
        if not axis_named(self.planned.stage.axis).needs_scores:
            return None
        return importance(self.materials, self.planned.parent)

    @cached_property
    def pruned(self) -> Pruned:
        """What the cut leaves."""
        planned, scores = self.planned, self.importances.scored.scores if self.importances else None
        return prune(self.materials, planned.parent, self.tower, planned.stage.axis, planned.amount, scores)

    @cached_property
    def distilled(self) -> Distilled:
        """What distillation makes of that."""
        return distill(self.materials, self.pruned.checkpoint)

    @cached_property
    def answers_pruned(self) -> Answers:
        """The answers to the gate's split when pruned."""
        return evaluate(self.materials, self.pruned.checkpoint, self._gate)

    @cached_property
    def answers(self) -> Answers | None:
        """The answers to the gate's split when distilled; None where the loss was not finite."""
        checkpoint = self.distilled.checkpoint
        return None if checkpoint is None else evaluate(self.materials, checkpoint, self._gate)

    @cached_property
    def result(self) -> StepResult:
        """The whole step, and what the gate decides."""
        planned, split, tolerance = self.planned, self.materials.split(self._gate), self.materials.plan.tolerance
        pruned, distilled, before, after = self.pruned, self.distilled, self.answers_pruned, self.answers
        reference = evaluate(self.materials, planned.reference, self._gate)
        verdict = decide(reference.right, after.right if after else None, image_of_row(split), tolerance)
        counts = count_by_tower(self.materials.anatomy_of(pruned.checkpoint))
        return StepResult(
            stage=planned.stage.name,
            index=planned.index,
            tower=self.tower,
            removed=planned.amount,
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
