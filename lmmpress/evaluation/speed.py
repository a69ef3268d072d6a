"""Measures speed from pixels to answer: `generate` on the processor's output, and decoding the text of the answer.

The clock starts with pixel values and token ids in memory: reading, resizing and tokenising are the same for every
model and do not count. Every model generates as many tokens as the right answers have, so that a model is neither
slower because it never ends its answers nor faster because it ends them at once. The number of tokens that a model
generates by itself is also measured.
"""

import platform
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from statistics import mean, median
from typing import Any, TypeVar

import torch

from lmmpress.data import Split
from lmmpress.evaluation.generate import LONGEST, generate, lengths, questions
from lmmpress.host.energy import Meter
from lmmpress.lmm.examples import Examples, Tensors
from lmmpress.plan import Evaluation
from lmmpress.progress import track
from lmmpress.result import Latency, Speed

T = TypeVar("T")

_WARM_UP = 2
_PASSES = 5
_TURNS_APART = 3  # loading a model twice five times would take longer than measuring


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


@dataclass(frozen=True)
class Times:
    """What was measured of one model: samples per second and, with a meter, joules per sample of each turn;
    milliseconds of each single row; and the mean number of tokens in the right answers and in the model's own."""

    rates: list[float]
    joules: list[float]
    latencies: list[float]
    tokens: float
    natural: float

    def speed(self, batch_size: int) -> Speed:
        """The rate is the median of the turns. With a single latency sample, p50 and p95 are that sample."""
        p50, p95 = torch.tensor(self.latencies).quantile(torch.tensor([0.5, 0.95])).tolist()
        return Speed(
            batch_size=batch_size,
            samples_per_second=median(self.rates),
            latency_ms=Latency(p50=p50, p95=p95),
            tokens=self.tokens,
            natural_tokens=self.natural,
        )


def measure_speeds(subjects: Sequence[Subject], settings: Evaluation) -> list[Speed]:
    """Samples per second at the batch size of `settings`, and latency at batch size 1, of each model after a warm-up.

    The models take turns on the same rows: see `take_turns`.
    """
    return [times.speed(settings.batch_size) for times in take_turns(subjects, settings)]


@torch.no_grad()
def take_turns(subjects: Sequence[Subject], settings: Evaluation, meter: Meter | None = None) -> list[Times]:
    """Time each model after a warm-up: five passes over all rows, and then single rows.

    The models take turns on the same rows, so that a machine that is slow for a while is slow for all of them. Who
    begins changes from turn to turn.
    """
    timed = [_Timed(subject, settings, meter) for subject in subjects]
    for one in timed:
        one.speak()
    for turn in track(range(_PASSES), "throughput", _PASSES):
        for one in _order(timed, turn):
            one.pass_over_all()
    for one in timed:
        one.warm_up()
    for number in track(timed[0].singles, "latency"):
        for one in _order(timed, number):
            one.ask_alone(number)
    return [one.times() for one in timed]


@torch.no_grad()
def take_turns_apart(
    loading: Sequence[Callable[[], AbstractContextManager[Subject]]], settings: Evaluation, meter: Meter | None = None
) -> list[Times]:
    """`take_turns` for models of which only one fits into memory: each is loaded anew for each of its turns.

    A turn is a pass over all rows and a third of the single rows, after a warm-up.
    """
    timed: dict[int, _Timed] = {}
    for turn in track(range(_TURNS_APART), "turns", _TURNS_APART):
        for number in _order(range(len(loading)), turn):
            with loading[number]() as subject:
                if number in timed:
                    timed[number].begin(subject)
                else:
                    timed[number] = _Timed(subject, settings, meter)
                one = timed[number]
                one.speak() if turn == 0 else one.warm_up(passes=1)
                one.pass_over_all()
                one.warm_up()
                for row in one.singles[turn::_TURNS_APART]:
                    one.ask_alone(row)
                one.end()
                del subject  # before the next model is loaded
    return [timed[number].times() for number in range(len(loading))]


def _order(items: Sequence[T], turn: int) -> Sequence[T]:
    """The items, in the opposite order in every other turn."""
    return items if turn % 2 == 0 else items[::-1]


class _Timed:
    """One model that is timed: its calls of `generate`, and what was measured so far."""

    def __init__(self, subject: Subject, settings: Evaluation, meter: Meter | None) -> None:
        self._settings, self._meter = settings, meter
        self._count = len(subject.examples.rows)
        self._tokens = mean(len(row.answer) for row in subject.examples.rows)
        self.singles = range(min(settings.latency_samples, self._count))
        self._rates: list[float] = []
        self._joules: list[float] = []
        self._latencies: list[float] = []
        self._natural = 0.0
        self.begin(subject)

    def begin(self, subject: Subject) -> None:
        """Use this model, which is loaded, and lay its questions on its device."""
        size = min(self._settings.batch_size, self._count)
        rows = list(range(self._count))
        self._subject: Subject | None = subject
        self._calls = [_question(subject, rows[at : at + size]) for at in range(0, self._count, size)]
        self._alone = [_question(subject, [row]) for row in self.singles]

    def end(self) -> None:
        """Hold the model no longer, so that its memory is free."""
        self._subject, self._calls, self._alone = None, [], []

    @property
    def _model(self) -> Subject:
        assert self._subject is not None
        return self._subject

    def speak(self) -> None:
        """Count the tokens of the model's own answers; also a warm-up."""
        self._natural = _natural(self._model, self._calls)

    def warm_up(self, passes: int = 0) -> None:
        for question in [*self._calls[:passes], *self._alone[:_WARM_UP]]:
            _seconds(self._model, question)

    def pass_over_all(self) -> None:
        before = self._meter.read() if self._meter else ()
        seconds = sum(_seconds(self._model, question) for question in self._calls)
        if self._meter:
            self._joules.append(self._meter.joules(before, self._meter.read()) / self._count)
        self._rates.append(self._count / seconds)

    def ask_alone(self, row: int) -> None:
        self._latencies.append(1000 * _seconds(self._model, self._alone[row]))

    def times(self) -> Times:
        return Times(self._rates, self._joules, self._latencies, self._tokens, self._natural)


def environment(device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """What speed depends on beside the model: versions of libraries, device, dtype, threads."""
    import transformers

    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "threads": str(torch.get_num_threads()),
    }


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
