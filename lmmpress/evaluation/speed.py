"""Measures speed from pixels to answer: `generate` on the processor's output, and decoding the text of the answer.

The clock starts with pixel values and token ids in memory: reading, resizing and tokenising are the same for every
model and do not count. Every model generates as many tokens as the right answers have, so that a model is neither
slower because it never ends its answers nor faster because it ends them at once. The number of tokens that a model
generates by itself is also measured.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean, median
from typing import Any

import torch

from lmmpress.data import Split
from lmmpress.evaluation.generate import LONGEST, generate, lengths, questions
from lmmpress.lmm.examples import Examples, Tensors
from lmmpress.plan import Evaluation
from lmmpress.progress import track
from lmmpress.result import Latency, Speed

_WARM_UP = 2
_PASSES = 5


@dataclass(frozen=True)
class Subject:
    """A model to measure, with its tokenizer, its encoded rows, and the tokens that end its answers."""

    model: torch.nn.Module
    tokenizer: Any
    examples: Examples
    ends: frozenset[int]


@dataclass(frozen=True)
class _Question:
    """One call of `generate`: its inputs, and the number of tokens of the longest right answer."""

    inputs: Tensors
    tokens: int


def sampled(split: Split, settings: Evaluation) -> Split:
    """The rows that speed is measured on, chosen evenly over a split."""
    count = min(settings.samples, len(split.rows))
    return replace(split, rows=tuple(split.rows[number * len(split.rows) // count] for number in range(count)))


@torch.no_grad()
def measure_speeds(subjects: Sequence[Subject], settings: Evaluation) -> list[Speed]:
    """Samples per second at the batch size of `settings`, and latency at batch size 1, of each model after a warm-up.

    The models take turns on the same rows, so that a machine that is slow for a while is slow for all of them. The
    rate is the median of five passes over all rows. With a single latency sample, p50 and p95 are that sample.
    """
    count = len(subjects[0].examples.rows)
    size = min(settings.batch_size, count)
    parts = [list(range(count))[at : at + size] for at in range(0, count, size)]
    groups = [[_question(subject, part) for part in parts] for subject in subjects]
    latency_rows = range(min(settings.latency_samples, count))
    singles = [[_question(subject, [row]) for row in latency_rows] for subject in subjects]
    natural = [_natural(subject, calls) for subject, calls in zip(subjects, groups, strict=True)]  # also a warm-up
    rates: list[list[float]] = [[] for _ in subjects]
    for _ in track(range(_PASSES), "throughput", _PASSES):
        for rate, subject, calls in zip(rates, subjects, groups, strict=True):
            rate.append(count / sum(_seconds(subject, question) for question in calls))
    for subject, calls in zip(subjects, singles, strict=True):
        for question in calls[:_WARM_UP]:
            _seconds(subject, question)
    latencies: list[list[float]] = [[] for _ in subjects]
    for number in track(latency_rows, "latency"):
        for latency, subject, calls in zip(latencies, subjects, singles, strict=True):
            latency.append(1000 * _seconds(subject, calls[number]))
    quantiles = [torch.tensor(latency).quantile(torch.tensor([0.5, 0.95])).tolist() for latency in latencies]
    return [
        Speed(
            batch_size=settings.batch_size,
            samples_per_second=median(rate),
            latency_ms=Latency(p50=p50, p95=p95),
            tokens=mean(len(row.answer) for row in subject.examples.rows),
            natural_tokens=own,
        )
        for subject, rate, (p50, p95), own in zip(subjects, rates, quantiles, natural, strict=True)
    ]


def _question(subject: Subject, rows: list[int]) -> _Question:
    longest = max(len(subject.examples.rows[row].answer) for row in rows)
    return _Question(questions(subject.model, subject.examples, rows), longest)


def _seconds(subject: Subject, question: _Question) -> float:
    begun = time.perf_counter()
    tokens = generate(subject.model, question.inputs, question.tokens, exactly=True)
    subject.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return time.perf_counter() - begun


def _natural(subject: Subject, calls: Sequence[_Question]) -> float:
    """The mean number of tokens in the model's own answers, including the end token.

    An answer is cut off after LONGEST tokens, or after the length of the longest right answer if that is more.
    """
    counts: list[int] = []
    for question in calls:
        counts += lengths(generate(subject.model, question.inputs, max(LONGEST, question.tokens)), subject.ends)
    return mean(counts)
