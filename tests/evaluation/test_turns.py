"""How models take turns, on a clock that only their answers move: no real time passes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.small_memory import no_memory

from lmmpress.errors import UserError
from lmmpress.evaluation import timed
from lmmpress.evaluation.speed import Times, in_all_ways, take_turns, take_turns_apart
from lmmpress.evaluation.timed import Subject
from lmmpress.lmm.at_once import remembering
from lmmpress.lmm.example_rows import Example, pack
from lmmpress.plan import Evaluation

Cost = Callable[[int, int], float]
"""The seconds of a call, from its rows and tokens."""


@dataclass(frozen=True)
class Call:
    """A call of `generate`: which model, which rows, and whether it was timed, at the lengths of the right answers."""

    model: str
    rows: tuple[int, ...]
    timed: bool


@dataclass
class Machine:
    """A clock, and models that are names: what they cost, and what they were asked."""

    costs: dict[str, Cost]
    now: float = 0.0
    calls: list[Call] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    loading: float = 0.0
    compiling: float = 0.0
    compiled: set[tuple[str, int]] = field(default_factory=set)

    def clock(self) -> float:
        return self.now

    def generate(
        self, model: str, inputs: list[int], most: int, exactly: bool = False, compiled: bool = False
    ) -> torch.Tensor:
        self.calls.append(Call(model, tuple(inputs), exactly))
        if compiled and (model, len(inputs)) not in self.compiled:
            self.compiled.add((model, len(inputs)))
            self.now += self.compiling
        self.now += self.costs[model](len(inputs), most)
        return torch.ones(len(inputs), most)

    def subject(self, model: str, rows: int, tokens: int) -> Subject:
        decoder = SimpleNamespace(batch_decode=lambda tokens, skip_special_tokens: None)
        examples = SimpleNamespace(rows=pack([Example([], [1] * tokens, ())] * rows))
        return Subject(model, decoder, examples, frozenset())  # type: ignore[arg-type]

    @contextmanager
    def load(self, model: str, rows: int, tokens: int) -> Iterator[Subject]:
        self.loaded.append(model)
        self.now += self.loading
        yield self.subject(model, rows, tokens)

    def measure(self, rows: int = 128, tokens: int = 4, apart: bool = False, **settings: Any) -> list[Times]:
        asked = Evaluation(**settings)
        if apart:
            a, b = (partial(self.load, model, rows, tokens) for model in self.costs)
            return take_turns_apart((a, b), asked, clock=self.clock)
        subjects = [self.subject(model, rows, tokens) for model in self.costs]
        if self.compiling:
            return take_turns(subjects, asked, clock=self.clock, compiled=True)
        return in_all_ways(subjects, asked, clock=self.clock)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Machine]:
    def make(**costs: Cost) -> Machine:
        made = Machine(costs)
        monkeypatch.setattr(timed, "generate", made.generate)
        monkeypatch.setattr(timed, "questions", lambda model, examples, rows: list(rows))
        return made

    return make


Make = Callable[..., Machine]


def each(seconds: float) -> Cost:
    """A model that takes so long for a token of a row."""
    return lambda rows, tokens: seconds * rows * tokens


def noisy(seconds: float, slower: Sequence[float]) -> Cost:
    """The same, on a machine that is so many times slower, call by call."""
    calls = iter(range(1_000_000))
    return lambda rows, tokens: seconds * rows * tokens * slower[next(calls) % len(slower)]


BUSY = (1.0, 1.9, 1.1, 3.0, 1.3, 1.0, 2.2)


def test_compiling_takes_no_time_that_counts(machine: Make) -> None:
    one = machine(a=each(0.0004), b=each(0.0001))
    one.compiling = 50.0
    a, b = one.measure()
    assert one.compiled == {(model, rows) for model in "ab" for rows in (1, 32)}
    assert 4 * 50 < one.now - a.timing.seconds < 4 * 50 + 1, "and the calls until a graph is captured"
    assert (a.timing.stopped, a.timing.passes, a.timing.rows, a.timing.single_rows) == ("narrow", 5, 128, 32)
    assert a.speed().samples_per_second == pytest.approx(1 / (4 * 0.0004))
    assert (a.way, b.way) == ("compiled", "compiled")


def test_a_steady_machine_is_soon_done(machine: Make) -> None:
    one = machine(a=each(0.0004), b=each(0.0001))
    a, b = one.measure()
    assert (a.timing.stopped, a.timing.passes, a.timing.single_rows) == ("narrow", 5, 32)
    assert (a.timing.rows, a.timing.of_rows, a.timing.own_rows) == (128, 128, 128)
    assert one.now == pytest.approx(a.timing.seconds)
    assert one.now < 15
    assert a.speed().samples_per_second == pytest.approx(1 / (4 * 0.0004))
    assert b.timing.ratio is not None
    assert (b.timing.ratio.low, b.timing.ratio.high) == pytest.approx((4.0, 4.0))
    assert a.timing.ratio == b.timing.ratio
    assert (b.timing.rate.low, b.timing.rate.high) == pytest.approx((2500.0, 2500.0))
    assert (a.natural, b.natural) == (32, 32)


@pytest.mark.parametrize("models", ["a", "ab"])
def test_a_busy_machine_is_measured_until_the_time_is_up(machine: Make, models: str) -> None:
    one = machine(**{model: noisy(0.002 * (1 + place), BUSY) for place, model in enumerate(models)})
    first = one.measure(batch_size=128)[0]
    assert first.timing.stopped == "seconds"
    assert first.timing.passes > 5
    assert 30 < one.now <= 60
    assert (first.timing.ratio is None) == (models == "a")
    assert first.timing.rate.low < first.speed().samples_per_second < first.timing.rate.high


@pytest.mark.parametrize("seconds", [1.0, 20.0, 60.0, 600.0])
@pytest.mark.parametrize("each_token", [0.001, 0.01, 0.05])
@pytest.mark.parametrize("models", ["a", "ab"])
def test_the_time_is_kept_where_a_row_fits_into_it(
    machine: Make, seconds: float, each_token: float, models: str
) -> None:
    one = machine(**{model: noisy(each_token, BUSY) for model in models})
    first = one.measure(seconds=seconds)[0]
    a_turn = sum(each_token * 4 * max(BUSY) for _ in models)
    assert first.timing.passes >= 3
    assert one.now <= seconds or a_turn > seconds / 10
    assert one.now <= 1.2 * seconds or first.timing.rows == 1


@pytest.mark.parametrize("apart", [False, True])
def test_a_pass_of_a_slow_machine_has_fewer_rows_the_same_for_both(machine: Make, apart: bool) -> None:
    """A second a row: 128 rows of two models would take minutes for a single turn."""
    one = machine(a=each(0.25), b=each(0.05))
    a, b = one.measure(apart=apart)
    assert one.now <= 60
    assert a.timing.passes >= 3
    assert a.timing.rows == b.timing.rows == a.batch_size == b.batch_size == 3
    asked = [[call.rows for call in one.calls if call.model == model and call.timed][-3:] for model in "ab"]
    assert asked[0] == asked[1]
    assert max(max(call.rows) for call in one.calls) > 60, "they are spread over all rows"


def test_more_than_a_batch_are_whole_batches(machine: Make) -> None:
    one = machine(a=each(0.02))
    (found,) = one.measure(batch_size=16)
    assert found.timing.rows == 64
    assert found.batch_size == 16


@pytest.mark.parametrize("apart", [False, True])
def test_a_model_that_is_far_too_slow_makes_three_passes_over_one_row(machine: Make, apart: bool) -> None:
    """Its own answers, which may be eight times as long as the right ones, are not waited for."""
    one = machine(a=each(25.0), b=each(25.0))
    a, _ = one.measure(apart=apart)
    assert (a.timing.stopped, a.timing.passes, a.timing.rows, a.timing.single_rows) == ("seconds", 3, 1, 1 + 2 * apart)
    assert (a.natural, a.timing.own_rows) == (None, 0)
    assert all(len(call.rows) == 1 and call.timed for call in one.calls)
    assert len(one.calls) == 2 * (1 + 3 + a.timing.single_rows), "no more than one trial, three passes, single rows"
    speed = a.speed()
    assert (speed.batch_size, speed.natural_tokens) == (1, None)
    assert speed.samples_per_second == pytest.approx(0.01)


@pytest.mark.parametrize("models", ["a", "ab"])
def test_one_row_is_enough(machine: Make, models: str) -> None:
    one = machine(**{model: each(0.001) for model in models})
    for found in one.measure(rows=1):
        assert (found.timing.rows, found.timing.of_rows, found.timing.single_rows) == (1, 1, 1)
        assert found.speed().latency_ms.p50 == found.speed().latency_ms.p95 == pytest.approx(4.0)
        assert found.batch_size == 1


def test_who_begins_changes_from_turn_to_turn(machine: Make) -> None:
    one = machine(a=each(0.01), b=each(0.01))
    times = one.measure(rows=8, batch_size=8)
    passes = [call.model for call in one.calls if len(call.rows) == 8 and call.timed]
    assert "".join(passes[-10:]) == "abbaabbaab"
    assert "".join(call.model for call in one.calls[-16:]) == "abba" * 4, "single rows too"
    assert [len(found.latencies) for found in times] == [8, 8]


def test_a_machine_that_becomes_slower_hits_both_alike(machine: Make) -> None:
    """Every call takes 2 % longer than the one before."""
    slower = [1.02**call for call in range(1000)]
    shared = noisy(0.001, slower)
    one = machine(a=shared, b=shared)
    _, b = one.measure(rows=8, batch_size=8)
    ratio = b.timing.ratio
    assert ratio is not None
    assert ratio.low < 1 < ratio.high


def test_apart_each_model_ends_a_turn_and_begins_the_next(machine: Make) -> None:
    one = machine(a=each(0.001), b=each(0.002))
    a, b = one.measure(apart=True)
    assert (a.timing.stopped, a.timing.passes) == ("narrow", 5)
    assert "".join(one.loaded) == "ab" + "ababa"
    assert len(a.rates) == len(b.rates) == 5
    assert len(a.latencies) == len(b.latencies) == 32
    assert a.natural == b.natural == 32


def test_apart_the_time_for_loading_counts(machine: Make) -> None:
    one = machine(a=noisy(0.001, BUSY), b=noisy(0.002, BUSY))
    one.loading = 30.0
    a, _ = one.measure(apart=True, batch_size=128)
    assert (a.timing.stopped, a.timing.passes) == ("seconds", 3)
    assert "".join(one.loaded) == "ab" + "aba"


def test_single_rows_are_as_many_as_the_time_that_is_left_has_room_for(machine: Make) -> None:
    one = machine(a=lambda rows, tokens: 1.0)
    (found,) = one.measure(seconds=30.0)
    assert 3 <= found.timing.single_rows < 32
    assert one.now <= 30


def test_how_it_was_measured_is_told(machine: Make) -> None:
    one = machine(a=each(0.0004))
    (found,) = one.measure()
    assert str(found.timing) == "5 passes over 128 rows and 32 single rows in 3.06 s, until speed was known well enough"
    slow = machine(a=noisy(0.25, BUSY))
    (found,) = slow.measure()
    assert " of 128 rows and " in str(found.timing)
    assert str(found.timing).endswith("until the time was up")


@pytest.mark.parametrize("apart", [False, True])
def test_where_a_batch_of_one_does_not_fit_into_the_memory_both_are_measured_with_smaller_ones(
    machine: Make, apart: bool
) -> None:
    def small(rows: int, tokens: int) -> float:
        if rows > 5:
            raise no_memory()
        return 0.0004 * rows * tokens

    one = machine(a=each(0.0004), b=small)
    with remembering({}) as at_once:
        a, b = one.measure(batch_size=16, apart=apart)
    assert a.batch_size == b.batch_size == a.speed().batch_size == 4
    assert at_once == {"speed": 4}
    asked = [[call.rows for call in one.calls if call.model == model and call.timed][-32:] for model in "ab"]
    assert asked[0] == asked[1]
    assert (a.timing.rows, a.timing.passes) == (b.timing.rows, b.timing.passes) == (128, 5)


def test_a_model_without_memory_for_a_single_row_is_not_timed(machine: Make) -> None:
    def none(rows: int, tokens: int) -> float:
        raise no_memory()

    with pytest.raises(UserError, match=r"^speed: the memory is too small"):
        machine(a=each(0.0004), b=none).measure()
