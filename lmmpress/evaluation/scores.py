"""What each row of a split is worth to a model, by the metric of its task."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from lmmpress.data.facts import SplitFacts, Values
from lmmpress.evaluation.accuracy import answered_right, right_tokens
from lmmpress.evaluation.generate import longest_answer, write_answers
from lmmpress.lmm.anatomy import Projector
from lmmpress.lmm.batches import Features
from lmmpress.lmm.examples import Examples
from lmmpress.lmm.processor import decoded
from lmmpress.metrics import Metric, score_rows

Rows = list[int]


@dataclass
class Judge:
    """A model that the rows of a split are asked, by their numbers.

    `see` gives the visual features of their pictures, None to compute them with each pass, and `load_tokenizer` the
    tokenizer: both are called where they are needed. `longest` is the number of tokens after which an answer is cut
    off, None if the right answers say it.
    """

    model: torch.nn.Module
    examples: Examples
    projector: Projector | None
    see: Callable[[], Features | None]
    load_tokenizer: Callable[[], Any]
    ends: frozenset[int]
    batch_size: int
    longest: int | None = None

    @cached_property
    def features(self) -> Features | None:
        return self.see()

    def by_logits(self, name: str, rows: Rows) -> Values:
        """The numbers [all rows] of some rows, by a metric that is measured from logits; of the others they say
        nothing."""
        return {"exact": self.exact, "token_accuracy": self.tokens}[name](rows)

    def exact(self, rows: Rows | None) -> Values:
        """Whether greedy decoding gives the right answer; without `rows` all are asked."""
        where = self.projector, self.features, self.batch_size
        right: Values = answered_right(self.model, self.examples, *where, self.ends, rows).numpy()
        return right

    def tokens(self, rows: Rows) -> Values:
        """The share of the right answer's tokens."""
        where = self.projector, self.features, self.batch_size
        shares: Values = right_tokens(self.model, self.examples, *where, self.ends, rows).numpy()
        return shares

    def texts(self, rows: Rows) -> dict[int, str]:
        """What the model answers to some rows, by their number."""
        longest = longest_answer(self.examples, self.longest)
        written = write_answers(self.model, self.examples, rows, longest, self.ends, self.batch_size)
        tokenizer = self.load_tokenizer()
        return {row: decoded(tokenizer, ids) for row, ids in written.items()}


def scored(judge: Judge, metrics: Mapping[str, Metric], facts: SplitFacts) -> Values:
    """The numbers of all rows [rows]; booleans if all metrics are shares."""
    rows_of = {task: np.flatnonzero(of).tolist() for task, of in facts.rows_by_task().items()}
    values = np.zeros(facts.rows)
    for name in dict.fromkeys(metric.name for metric in metrics.values() if metric.needs != "text"):
        chosen = [row for task, metric in metrics.items() if metric.name == name for row in rows_of[task]]
        values[chosen] = judge.by_logits(name, chosen)[chosen]
    written = {task: metric for task, metric in metrics.items() if metric.needs == "text"}
    texts = judge.texts([row for task in written for row in rows_of[task]]) if written else {}
    right = {row: one.answers for row, one in enumerate(judge.examples.split.rows) if row in texts} if written else {}
    for task, metric in written.items():
        rows = rows_of[task]
        values[rows] = score_rows(metric, [texts[row] for row in rows], [right[row] for row in rows])
    return values > 0.5 if all(metric.is_share for metric in metrics.values()) else values
