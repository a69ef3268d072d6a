"""Measures what each row is worth to a checkpoint in this process, alone or as one of several that share the rows."""

from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object

from lmmpress.data.facts import Values
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.models import model_of
from lmmpress.evaluation.accuracy import answered_right, divergences
from lmmpress.evaluation.metrics_by_task import metrics_in, only_exact
from lmmpress.evaluation.scores import Judge, Rows, scored
from lmmpress.lmm.processor import load_processor, tokenizer_of
from lmmpress.result import Role

_BY_TEACHER = ("agreement", "kl")


def worth_of(materials: Materials, checkpoint: str, role: Role) -> Values:
    """What each row of a role is worth to a checkpoint [rows], the same in all processes."""
    judge, facts = _Judge(materials, checkpoint, role), materials.facts(role)
    if only_exact(materials.plan.metrics, facts.tasks):
        return judge.by_logits("exact", list(range(facts.rows)))
    return scored(judge, metrics_in(materials.plan.metrics, facts.tasks), facts)


def make_caches(materials: Materials, checkpoint: str, role: Role) -> None:
    """Put into the store what several processes would otherwise all compute."""
    materials.features(role, checkpoint)
    used = {metric.name for metric in metrics_in(materials.plan.metrics, materials.facts(role).tasks).values()}
    if used & set(_BY_TEACHER) and checkpoint != materials.original:
        materials.own_answers(role)


class _Judge(Judge):
    """A checkpoint that rows of a role are asked; it may be compared with its teacher. Each process asks its share of
    them, and all of them learn what the others have found."""

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
        own = self._share(rows)
        found = ours[name](own) if name in ours else super().by_logits(name, own)
        if self.materials.accelerator.num_processes == 1:
            return found
        values = torch.zeros(len(found), dtype=torch.float64)
        values[own] = torch.from_numpy(found[own]).double()
        together = self.materials.accelerator.reduce(values.to(self.materials.accelerator.device), "sum").cpu().numpy()
        whole: Values = together > 0.5 if found.dtype == np.bool_ else together
        return whole

    def texts(self, rows: Rows) -> dict[int, str]:
        found: list[Any] = list(super().texts(self._share(rows)).items())
        return dict(found if self.materials.accelerator.num_processes == 1 else gather_object(found))

    def _share(self, rows: Rows) -> Rows:
        return rows[self.materials.accelerator.process_index :: self.materials.accelerator.num_processes]

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
