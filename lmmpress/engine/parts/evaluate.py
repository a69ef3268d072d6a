"""The part `evaluate`: measures what each row is worth, by the metric of its task, to a checkpoint."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from lmmpress.data.facts import Values
from lmmpress.engine.materials import Materials
from lmmpress.engine.measured import values_in, values_of
from lmmpress.engine.parts.models import model_of
from lmmpress.engine.parts.once import Inputs, Record, once, unreadable
from lmmpress.evaluation.accuracy import answered_right, divergences
from lmmpress.evaluation.metrics_by_task import metrics_in, only_exact
from lmmpress.evaluation.scores import Judge, Rows, scored
from lmmpress.lmm.processor import load_processor, tokenizer_of
from lmmpress.result import Role


@dataclass(frozen=True)
class Evaluated:
    """What each row is worth [rows]: booleans if each is right or wrong, else numbers; the seconds that measuring took,
    and the record of both."""

    values: Values
    record: Record

    @property
    def seconds(self) -> float:
        return self.record.seconds

    @property
    def accuracy(self) -> float:
        """The mean over the rows: the share of right ones, or what their metrics give."""
        return float(self.values.mean())


def evaluate(materials: Materials, checkpoint: str, role: Role) -> Evaluated:
    """What the rows of a role are worth to a checkpoint.

    Raises UserError if the store's record has a different number of rows.
    """
    tasks, plan = materials.facts(role).tasks, materials.plan
    inputs: Inputs = {
        "checkpoint": checkpoint,
        "data": materials.digest(role),
        "dtype": str(materials.dtype),
    } | materials.rounded
    if len(materials.ends) > 1:  # a single end token is the one in every answer, so the name need not include it
        inputs["ends"] = sorted(materials.ends)
    if not only_exact(plan.metrics, tasks):
        inputs["metrics"] = {task: plan.metrics.get(task, plan.metrics["default"]) for task in tasks}
        inputs["teacher"], inputs["longest"] = materials.original, plan.evaluation.max_new_tokens

    def work(_: int) -> dict[str, Any]:
        if only_exact(plan.metrics, tasks):
            return values_in(_Judge(materials, checkpoint, role).exact(None))
        return values_in(
            scored(_Judge(materials, checkpoint, role), metrics_in(plan.metrics, tasks), materials.facts(role))
        )

    record = once(materials, "evaluate", inputs, work)
    values = values_of(record.values)
    if len(values) != materials.facts(role).rows:
        raise unreadable(materials, record, "has a different number of rows than the data")
    return Evaluated(values, record)


class _Judge(Judge):
    """A checkpoint that rows of a role are asked; it may be compared with its teacher."""

    def __init__(self, materials: Materials, checkpoint: str, role: Role) -> None:
        super().__init__(
            model=model_of(materials, checkpoint),
            examples=materials.examples(role).judged(),
            projector=materials.anatomy.projector,
            see=lambda: materials.features(role, checkpoint),
            load_tokenizer=lambda: tokenizer_of(
                load_processor(materials.store.checkpoint(materials.original, weights=False))
            ),
            ends=materials.ends,
            batch_size=materials.plan.evaluation.batch_size,
            longest=materials.plan.evaluation.max_new_tokens,
        )
        self.materials, self.role = materials, role
        self.is_teacher = checkpoint == materials.original

    def by_logits(self, name: str, rows: Rows) -> Values:
        ours = {"agreement": self.agreement, "kl": self.kl}
        return ours[name](rows) if name in ours else super().by_logits(name, rows)

    def agreement(self, rows: Rows) -> Values:
        """Whether greedy decoding gives the teacher's own answers: so does the teacher's, by definition."""
        if self.is_teacher:
            return np.ones(len(self.examples.rows), dtype=np.bool_)
        where = self.projector, self.features, self.batch_size
        own = self.materials.own_answers(self.role).judged()
        same: Values = answered_right(self.model, own, *where, self.ends, rows, cut=True).numpy()
        return same

    def kl(self, rows: Rows) -> Values:
        """The divergence from the teacher: at the right answers, where there are none at the teacher's own."""
        if self.is_teacher:
            return np.zeros(len(self.examples.rows))
        where = self.projector, self.features, self.batch_size
        answered, materials = self.materials.answered(self.role).judged(), self.materials
        found: Values = divergences(
            self.model,
            lambda batch: materials.teacher_logits_of(self.role, answered, batch),
            answered,
            *where,
            rows,
        ).numpy()
        return found
