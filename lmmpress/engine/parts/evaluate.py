"""The part `evaluate`: measures what each row is worth, by the metric of its task, to a checkpoint."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from lmmpress.data.facts import Values
from lmmpress.engine.judging import metrics_in, only_exact
from lmmpress.engine.materials import Materials
from lmmpress.engine.measured import values_in, values_of
from lmmpress.engine.parts.models import model_of
from lmmpress.engine.parts.once import Inputs, Record, once, unreadable
from lmmpress.evaluation.accuracy import answered_right, divergences, right_tokens
from lmmpress.evaluation.generate import longest_answer, write_answers
from lmmpress.lmm.processor import decoded, load_processor, tokenizer_of
from lmmpress.metrics import Metric, score_rows
from lmmpress.result import Role

Rows = list[int]


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
    }
    if len(materials.ends) > 1:  # a single end token is the one in every answer, so the name need not include it
        inputs["ends"] = sorted(materials.ends)
    if not only_exact(plan, tasks):
        inputs["metrics"] = {task: plan.metrics.get(task, plan.metrics["default"]) for task in tasks}
        inputs["teacher"], inputs["longest"] = materials.original, plan.evaluation.max_new_tokens

    def work(_: int) -> dict[str, Any]:
        if only_exact(plan, tasks):
            return values_in(_Judge(materials, checkpoint, role).exact(None))
        return values_in(_scored(_Judge(materials, checkpoint, role), metrics_in(plan, tasks)))

    record = once(materials, "evaluate", inputs, work)
    values = values_of(record.values)
    if len(values) != materials.facts(role).rows:
        raise unreadable(materials, record, "has a different number of rows than the data")
    return Evaluated(values, record)


def _scored(judge: "_Judge", metrics: dict[str, Metric]) -> Values:
    """The numbers of all rows; booleans if all metrics are shares."""
    rows_of = {task: np.flatnonzero(of).tolist() for task, of in judge.facts.rows_by_task().items()}
    values = np.zeros(judge.facts.rows)
    for name in dict.fromkeys(metric.name for metric in metrics.values() if metric.needs != "text"):
        chosen = [row for task, metric in metrics.items() if metric.name == name for row in rows_of[task]]
        values[chosen] = judge.by_logits(name, chosen)[chosen]
    written = {task: metric for task, metric in metrics.items() if metric.needs == "text"}
    texts = judge.texts([row for task in written for row in rows_of[task]]) if written else {}
    for task, metric in written.items():
        answers = [judge.examples.split.rows[row].answers for row in rows_of[task]]
        values[rows_of[task]] = score_rows(metric, [texts[row] for row in rows_of[task]], answers)
    return values > 0.5 if all(metric.is_share for metric in metrics.values()) else values


class _Judge:
    """A checkpoint that rows of a role are asked."""

    def __init__(self, materials: Materials, checkpoint: str, role: Role) -> None:
        self.materials, self.checkpoint, self.role = materials, checkpoint, role
        self.facts, self.examples = materials.facts(role), materials.examples(role).judged()
        self.size = materials.plan.evaluation.batch_size
        self.model = model_of(materials, checkpoint)

    def by_logits(self, name: str, rows: Rows) -> Values:
        """The numbers of some rows by a metric that is measured from logits."""
        ours = {"exact": self.exact, "token_accuracy": self.tokens, "agreement": self.agreement, "kl": self.kl}
        return ours[name](rows)

    def exact(self, rows: Rows | None) -> Values:
        where = self.materials.anatomy.projector, self.materials.features(self.role), self.size
        right: Values = answered_right(self.model, self.examples, *where, self.materials.ends, rows).numpy()
        return right

    def tokens(self, rows: Rows) -> Values:
        where = self.materials.anatomy.projector, self.materials.features(self.role), self.size
        shares: Values = right_tokens(self.model, self.examples, *where, self.materials.ends, rows).numpy()
        return shares

    def agreement(self, rows: Rows) -> Values:
        """Whether greedy decoding gives the teacher's own answers: so does the teacher's, by definition."""
        if self.checkpoint == self.materials.original:
            return np.ones(self.facts.rows, dtype=np.bool_)
        where = self.materials.anatomy.projector, self.materials.features(self.role), self.size
        own, ends = self.materials.own_answers(self.role).judged(), self.materials.ends
        same: Values = answered_right(self.model, own, *where, ends, rows, cut=True).numpy()
        return same

    def kl(self, rows: Rows) -> Values:
        """The divergence from the teacher: at the right answers, where there are none at the teacher's own."""
        if self.checkpoint == self.materials.original:
            return np.zeros(self.facts.rows)
        where = self.materials.anatomy.projector, self.materials.features(self.role), self.size
        answered, materials = self.materials.answered(self.role).judged(), self.materials
        found: Values = divergences(
            self.model,
            lambda batch: materials.teacher_logits_of(self.role, answered, batch),
            answered,
            *where,
            rows,
        ).numpy()
        return found

    def texts(self, rows: Rows) -> dict[int, str]:
        """What the checkpoint answers to some rows, by their number."""
        materials = self.materials
        longest = longest_answer(self.examples, materials.plan.evaluation.max_new_tokens)
        written = write_answers(self.model, self.examples, rows, longest, materials.ends, self.size)
        tokenizer = tokenizer_of(load_processor(materials.store.checkpoint(materials.original, weights=False)))
        return {row: decoded(tokenizer, ids) for row, ids in written.items()}
