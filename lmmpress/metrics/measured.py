"""The metrics that the engine scores itself, from logits: no text is compared."""

import math

from lmmpress.metrics.metric import Metric

WITHOUT_ANSWERS = frozenset({"agreement", "kl"})
"""The metrics that score rows without a right answer."""


def exact() -> Metric:
    """A row is 1 if plain greedy generation gives its answer, token by token, and ends there."""
    return Metric("exact", "tokens", "higher", (0.0, 1.0), True, "answers that are right to the last token")


def token_accuracy() -> Metric:
    """A row is the share of its answer's tokens, end token included, that are the model's first choice after the right
    tokens before them."""
    return Metric("token_accuracy", "tokens", "higher", (0.0, 1.0), False, "tokens of the right answer")


def agreement() -> Metric:
    """A row is 1 if the model's greedy answer is the teacher's. It needs no right answers."""
    return Metric("agreement", "teacher_text", "higher", (0.0, 1.0), True, "answers that are the teacher's")


def kl() -> Metric:
    """A row is the mean over its answer's tokens of KL(teacher, model), in nats. It needs no right answers."""
    return Metric(
        "kl", "teacher_logits", "lower", (0.0, math.inf), False, "divergence from the teacher, in nats a token"
    )
