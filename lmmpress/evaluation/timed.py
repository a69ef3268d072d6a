"""One model that is timed: its rows as calls of `generate`, and the seconds that they took."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from lmmpress.evaluation.generate import generate, lengths, longest_reply, questions
from lmmpress.evaluation.pace import LEAST, Clock, Fit, Pace, fit, spread
from lmmpress.lmm.examples import Examples, Tensors
from lmmpress.plan import Evaluation

_WARM_UP = 2
_CAPTURED = 3  # calls: one compiles, one captures the graph, one replays it


class Readable(Protocol):
    """What tells energy: it is read before and after each pass."""

    def read(self) -> Any: ...


@dataclass(frozen=True)
class Subject:
    """A model to measure, with its tokenizer, its encoded rows, and the tokens that end its answers."""

    model: torch.nn.Module
    tokenizer: Any
    examples: Examples
    ends: frozenset[int]


@dataclass(frozen=True)
class _Question:
    """One call of `generate`: its inputs, how many rows they are, and the number of tokens of the longest right
    answer."""

    inputs: Tensors
    rows: int
    tokens: int


@dataclass(frozen=True)
class Rows:
    """The rows that all models are asked, by number: those of a pass, the batches whose own answers are counted while
    there is time, the single ones; and how many there are in a batch of a pass."""

    passed: list[int]
    own: list[list[int]]
    alone: list[int]
    batch_size: int


class Timed:
    """One model that is timed: its calls of `generate`, and what was measured so far."""

    def __init__(self, settings: Evaluation, meter: Readable | None, pace: Pace, compiled: bool = False) -> None:
        self._settings, self._meter, self._pace, self._compiled = settings, meter, pace, compiled
        self.order: list[int] = []
        self.rates: list[float] = []
        self.latencies: list[float] = []
        self.spans: list[tuple[Any, Any]] = []
        self.own_lengths: list[int] = []
        self.tokens = 0.0
        self.rows = Rows([], [], [], 0)
        self._loaded: Subject | None = None
        self._calls: list[_Question] = []
        self._own: list[_Question] = []
        self._alone: list[_Question] = []

    def begin(self, subject: Subject) -> None:
        """Use this model, which is loaded."""
        self._loaded = subject
        self.order = spread(len(subject.examples.rows))

    def lay(self, rows: Rows) -> None:
        """Lay the questions about these rows on the model's device."""
        self.rows, self.tokens = rows, self._tokens(rows.passed)
        self._calls = self._batches(rows.passed, rows.batch_size)
        self._own = [_question(self._subject, numbers) for numbers in rows.own]
        self._alone = [_question(self._subject, [row]) for row in rows.alone]

    def end(self) -> None:
        """Hold the model no longer, so that its memory is free."""
        self._loaded, self._calls, self._own, self._alone = None, [], [], []

    @property
    def _subject(self) -> Subject:
        assert self._loaded is not None
        return self._loaded

    def fit(self, models: int) -> tuple[Fit, int]:
        """How many rows fit into a pass of this model, which is one of so many; and how many of its own answers fit
        into the time for them even if all are as long as they may be. Also a warm-up."""
        found = fit(self._pace.of_a_pass(models), len(self.order), self._try)
        longer = self._longest / self._tokens(self.order)
        return found, int(self._pace.of_own_answers(models) / (found.each * max(1.0, longer)))

    def _try(self, count: int) -> float:
        """The seconds of a pass over so many rows, which nothing is compiled for."""
        size = min(self._settings.batch_size, count)
        batches = self._batches(sorted(self.order[:count]), size)
        return sum(_seconds(self._subject, question, self._pace.clock) for question in batches)

    def compile(self) -> None:
        """Make calls of each number of rows until its step is compiled and captured."""
        for question in {each.rows: each for each in [*self._calls, *self._alone]}.values():
            for _ in range(_CAPTURED):
                _seconds(self._subject, question, self._pace.clock, compiled=True)

    def speak(self, models: int) -> None:
        """Count the tokens of the model's own answers, end token included, while there is time; also a warm-up.

        One that does not end is cut off where `longest_reply` says.
        """
        begun = self._pace.clock()
        for question in self._own:
            known, more = len(self.own_lengths), question.rows
            taken = self._pace.clock() - begun
            if known and taken * (1 + more / known) > self._pace.of_own_answers(models):
                break
            tokens = generate(self._subject.model, question.inputs, self._longest)
            self.own_lengths += lengths(tokens, self._subject.ends)

    def warm_up(self, calls: int = 0) -> None:
        """Make so many calls of a pass, and a few with single rows, unless the time is up."""
        for question in [*self._calls[:calls], *self._alone[:_WARM_UP]]:
            if self._pace.left > 0:
                self._seconds(question)

    def take_part(self, turn: int, alone: int) -> None:
        """One turn: a pass, and so many single rows while there are any left."""
        self.pass_over_all()
        for number in range(turn * alone, min((turn + 1) * alone, len(self._alone), LEAST * alone)):
            self.ask_alone(number)

    def pass_over_all(self) -> None:
        count = len(self.rows.passed)
        before = self._meter.read() if self._meter else None
        seconds = sum(map(self._seconds, self._calls))
        if self._meter:
            self.spans.append((before, self._meter.read()))
        self.rates.append(count / seconds)

    def ask_alone(self, number: int) -> None:
        self.latencies.append(1000 * self._seconds(self._alone[number]))

    def _seconds(self, question: _Question) -> float:
        return _seconds(self._subject, question, self._pace.clock, self._compiled)

    @property
    def _longest(self) -> int:
        """The number of tokens after which an answer is cut off."""
        return longest_reply(self._subject.examples, self._settings.max_new_tokens)

    def _tokens(self, rows: list[int]) -> float:
        """The mean number of tokens in the right answers to these rows."""
        return float(self._subject.examples.rows.answers[rows].mean())

    def _batches(self, rows: list[int], size: int) -> list[_Question]:
        return [_question(self._subject, rows[at : at + size]) for at in range(0, len(rows), size)]


def _question(subject: Subject, rows: list[int]) -> _Question:
    longest = int(subject.examples.rows.answers[rows].max())
    return _Question(questions(subject.model, subject.examples, rows), len(rows), longest)


def _seconds(subject: Subject, question: _Question, clock: Clock, compiled: bool = False) -> float:
    begun = clock()
    tokens = generate(subject.model, question.inputs, question.tokens, exactly=True, compiled=compiled)
    subject.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return clock() - begun
