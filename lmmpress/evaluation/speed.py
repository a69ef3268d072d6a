"""Speed from pixels to answer: `generate` on what the checkpoint's own processor made, and decoding the answer's text.

The clock starts with pixel values and token ids in memory: reading, resizing and tokenising are the same for every
model and are left out. Every model generates as many tokens as the right answers have, whatever it would answer: a
model that never ends its answer is not slower for that, nor one that ends at once faster. How many tokens each gives
by itself is measured beside it.
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
    """A model to be measured: with its tokenizer, the rows as it sees them, and the tokens that end its answers."""

    model: torch.nn.Module
    tokenizer: Any
    examples: Examples
    ends: frozenset[int]


@dataclass(frozen=True)
class _Question:
    """One call of `generate`: what is asked, and the number of tokens of the longest right answer."""

    inputs: Tensors
    tokens: int


def sampled(split: Split, settings: Evaluation) -> Split:
    """The rows that speed is measured on, taken evenly over a split."""
    count = min(settings.samples, len(split.rows))
    return replace(split, rows=tuple(split.rows[number * len(split.rows) // count] for number in range(count)))


@torch.no_grad()
def measure_speeds(subjects: Sequence[Subject], settings: Evaluation) -> list[Speed]:
    """Samples per second at the stated batch size and latency at batch 1 of each model, after warming up.

    The models take turns on the same rows, so that a machine which is slow for a while is slow for all of them. The
    rate is the median of five passes over all rows; with a single latency sample p50 and p95 are that sample.
    """
    count = len(subjects[0].examples.rows)
    size = min(settings.batch_size, count)
    parts = [list(range(count))[at : at + size] for at in range(0, count, size)]
    groups = [[_question(subject, part) for part in parts] for subject in subjects]
    alone = range(min(settings.latency_samples, count))
    singles = [[_question(subject, [row]) for row in alone] for subject in subjects]
    natural = [_natural(subject, asked) for subject, asked in zip(subjects, groups, strict=True)]  # warms up, too
    rates: list[list[float]] = [[] for _ in subjects]
    for _ in track(range(_PASSES), "throughput", _PASSES):
        for found, subject, asked in zip(rates, subjects, groups, strict=True):
            found.append(count / sum(_seconds(subject, question) for question in asked))
    for subject, asked in zip(subjects, singles, strict=True):
        for question in asked[:_WARM_UP]:
            _seconds(subject, question)
    waits: list[list[float]] = [[] for _ in subjects]
    for number in track(alone, "latency"):
        for found, subject, asked in zip(waits, subjects, singles, strict=True):
            found.append(1000 * _seconds(subject, asked[number]))
    quantiles = [torch.tensor(found).quantile(torch.tensor([0.5, 0.95])).tolist() for found in waits]
    return [
        Speed(
            batch_size=settings.batch_size,
            samples_per_second=median(found),
            latency_ms=Latency(p50=p50, p95=p95),
            tokens=mean(len(row.answer) for row in subject.examples.rows),
            natural_tokens=own,
        )
        for subject, found, (p50, p95), own in zip(subjects, rates, quantiles, natural, strict=True)
    ]


def _question(subject: Subject, rows: list[int]) -> _Question:
    longest = max(len(subject.examples.rows[row].answer) for row in rows)
    return _Question(questions(subject.model, subject.examples, rows), longest)


def _seconds(subject: Subject, question: _Question) -> float:
    begun = time.perf_counter()
    tokens = generate(subject.model, question.inputs, question.tokens, exactly=True)
    subject.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return time.perf_counter() - begun


def _natural(subject: Subject, asked: Sequence[_Question]) -> float:
    """How many tokens the model's own answers have on average, its end token included, cut off where neither the
    right answers nor LONGEST tokens go on."""
    found: list[int] = []
    for question in asked:
        found += lengths(generate(subject.model, question.inputs, max(LONGEST, question.tokens)), subject.ends)
    return mean(found)
