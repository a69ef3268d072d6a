"""Measures speed from pixels to answer: `generate` on the processor's output, and decoding the text of the answer.

The clock starts with pixel values and token ids in memory: reading, resizing and tokenising are the same for every
model and do not count. Every model generates as many tokens as the right answers have, so that a model is neither
slower because it never ends its answers nor faster because it ends them at once. The number of tokens that a model
generates by itself is also measured.
"""

import math
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from statistics import fmean, geometric_mean
from typing import Any, TypeVar

import torch

from lmmpress.data import Split
from lmmpress.evaluation.generate import compiling, compiling_works, questions
from lmmpress.evaluation.pace import LEAST, Clock, Fit, Pace, Stopwatch, rate_interval, ratio_interval
from lmmpress.evaluation.timed import Readable, Rows, Subject, Timed
from lmmpress.lmm.at_once import AtOnce
from lmmpress.plan import Evaluation
from lmmpress.progress import doing, say, track
from lmmpress.result import Latency, Speed, SpeedWay, Stopped, Timing

T = TypeVar("T")
Loading = Callable[[], AbstractContextManager[Subject]]
"""Loads a model for a block."""


def sampled(split: Split, settings: Evaluation) -> Split:
    """The rows that speed is measured on, chosen evenly over a split."""
    count = min(settings.samples, len(split.rows))
    return replace(split, rows=tuple(split.rows[number * len(split.rows) // count] for number in range(count)))


@dataclass(frozen=True)
class Times:
    """What was measured of one model at `batch_size`: samples per second of each pass and, with a meter, what that read
    before and after it; milliseconds of each single row; the mean number of tokens in the right answers and in the
    model's own, which is None if there was no time for these; and how all that was measured. `way` says whether the
    step that makes a token was compiled; `compiled` is the same with a compiled one, where both were measured."""

    batch_size: int
    rates: list[float]
    spans: list[tuple[Any, Any]]
    latencies: list[float]
    tokens: float
    natural: float | None
    timing: Timing
    way: SpeedWay = "eager"
    compiled: "Times | None" = None

    def speed(self) -> Speed:
        """The rate is the geometric mean of the passes, so that the ratio of two is the mean of the ratios of their
        turns. With a single latency sample, p50 and p95 are that sample."""
        p50, p95 = torch.tensor(self.latencies).quantile(torch.tensor([0.5, 0.95])).tolist()
        return Speed(
            batch_size=self.batch_size,
            samples_per_second=geometric_mean(self.rates),
            latency_ms=Latency(p50=p50, p95=p95),
            tokens=self.tokens,
            natural_tokens=self.natural,
            timing=self.timing,
            way=self.way,
            compiled=None if self.compiled is None else self.compiled.speed(),
        )


def measure_speeds(subjects: Sequence[Subject], settings: Evaluation) -> list[Speed]:
    """Samples per second at the batch size of `settings`, and latency at batch size 1, of one model or of two.

    Two take turns on the same rows: see `take_turns`.
    """
    return [times.speed() for times in in_all_ways(subjects, settings)]


def in_all_ways(
    subjects: Sequence[Subject],
    settings: Evaluation,
    meter: Readable | None = None,
    clock: Clock = time.perf_counter,
) -> list[Times]:
    """`take_turns` in the ways that `settings` ask for, one after the other; all models alike.

    Where the step of one of them cannot be compiled, all are measured eagerly, and a line says so. Where a batch of one
    of them does not fit into the memory, all are measured anew in all ways, with batches of half the size.
    """
    most = min(len(subject.examples.rows) for subject in subjects)
    return _that_fits(settings, most, lambda smaller: _in_all_ways(subjects, smaller, meter, clock))


def _that_fits(settings: Evaluation, most: int, measure: Callable[[Evaluation], list[Times]]) -> list[Times]:
    """What `measure` gives, with the settings or with a smaller batch size."""
    at_once = AtOnce(settings.batch_size, "speed", "evaluation.batch_size")
    return at_once.fit(lambda rows: measure(settings.model_copy(update={"batch_size": rows})), most)


def _in_all_ways(
    subjects: Sequence[Subject], settings: Evaluation, meter: Readable | None, clock: Clock
) -> list[Times]:
    if settings.speed not in ("compiled", "both"):
        return take_turns(subjects, settings, meter, clock)
    with compiling(subjects[0].model):
        works = all(map(_compiles, subjects))
        compiled = take_turns(subjects, settings, meter, clock, compiled=True) if works else []
    if not works:
        say("speed is measured eagerly: the step that makes a token cannot be compiled here, which takes a GPU")
    if works and settings.speed == "compiled":
        return compiled
    eager = take_turns(subjects, settings, meter, clock)
    return [replace(one, compiled=other) for one, other in zip(eager, compiled, strict=True)] if works else eager


def _compiles(subject: Subject) -> bool:
    """Whether the step of a model can be compiled, tried on its longest prompt with the longest right answer."""
    rows = subject.examples.rows
    longest = questions(subject.model, subject.examples, [int(rows.prompts.argmax())])
    return compiling_works(subject.model, longest, int(rows.answers.max()))


@torch.no_grad()
def take_turns(
    subjects: Sequence[Subject],
    settings: Evaluation,
    meter: Readable | None = None,
    clock: Clock = time.perf_counter,
    compiled: bool = False,
) -> list[Times]:
    """Time one model or two after a warm-up: passes over as many rows as fit into the time, and then single rows.

    Two models take turns on the same rows, so that a machine that is slow for a while is slow for both. Who begins
    changes from turn to turn. `Pace` says when it is enough. With `compiled` the step that makes a token is compiled,
    in no time that counts.
    """
    clock = Stopwatch(clock)
    pace = Pace.begin(settings.seconds, clock)
    timed = [Timed(settings, meter, pace, compiled) for _ in subjects]
    with doing("speed: how many rows") as now:
        for one, subject in zip(timed, subjects, strict=True):
            one.begin(subject)
        fits = [one.fit(len(timed)) for one in timed]
        rows = _agreed(fits, settings, timed[0].order)
        for one in timed:
            one.lay(rows)
            one.speak(len(timed))
            if compiled:
                now("compiling")
                with clock.stands():
                    one.compile()
        now("throughput")
        turn, stopped = 0, None
        while stopped is None:
            begun = clock()
            for one in _order(timed, turn):
                one.pass_over_all()
            turn += 1
            stopped = pace.stops([one.rates for one in timed], clock() - begun)
    for one in timed:
        one.warm_up()
    for number in track(range(_singles(pace.left, fits, rows)), "latency"):
        for one in _order(timed, number):
            one.ask_alone(number)
    return [replace(one, way="compiled" if compiled else "eager") for one in _times(timed, pace.spent, stopped)]


@torch.no_grad()
def take_turns_apart(
    loading: tuple[Loading, Loading],
    settings: Evaluation,
    meter: Readable | None = None,
    clock: Clock = time.perf_counter,
) -> list[Times]:
    """`take_turns` for two models of which only one fits into memory: they are loaded in turn.

    While a model is loaded it ends a turn and begins the next. The single rows are part of the first turns. The time
    for loading counts.
    """
    return _that_fits(settings, settings.samples, lambda smaller: _take_turns_apart(loading, smaller, meter, clock))


def _take_turns_apart(
    loading: tuple[Loading, Loading], settings: Evaluation, meter: Readable | None, clock: Clock
) -> list[Times]:
    pace = Pace.begin(settings.seconds, clock)
    timed = [Timed(settings, meter, pace) for _ in loading]
    with doing("speed: how many rows") as now:
        with loading[0]() as subject:
            timed[0].begin(subject)
            fits = [timed[0].fit(2)]
            timed[0].end()
            del subject  # before the next model is loaded
        with loading[1]() as subject:
            timed[1].begin(subject)
            fits.append(timed[1].fit(2))
            rows = _agreed(fits, settings, timed[1].order)
            a_turn = math.ceil(_singles(pace.for_single_rows, fits, rows) / LEAST)
            timed[1].lay(rows)
            timed[1].speak(2)
            begun = clock()
            timed[1].take_part(0, a_turn)
            timed[1].end()
            del subject
        now("throughput and latency")
        turn, stopped = 0, None
        while stopped is None:
            one = timed[turn % 2]
            with loading[turn % 2]() as subject:
                one.begin(subject)
                one.lay(rows)
                one.speak(2) if turn == 0 else one.warm_up(calls=1)
                one.take_part(turn, a_turn)
                stopped = pace.stops([each.rates for each in timed], clock() - begun)
                turn, begun = turn + 1, clock()
                if stopped is None:
                    one.take_part(turn, a_turn)
                one.end()
                del subject
    return _times(timed, pace.spent, stopped)


def _order(items: Sequence[T], turn: int) -> Sequence[T]:
    """The items, in the opposite order in every other turn."""
    return items if turn % 2 == 0 else items[::-1]


def _agreed(fits: Sequence[tuple[Fit, int]], settings: Evaluation, order: list[int]) -> Rows:
    """As many rows as fit into the time of every model; more than a batch are whole batches."""
    count, own = min(found.rows for found, _ in fits), min(own for _, own in fits)
    if settings.batch_size < count < len(order):
        count -= count % settings.batch_size
    size = min(settings.batch_size, count)
    first = min(own, size)
    edges = [0, *range(first, count, size), count] if first else [0]
    return Rows(
        passed=sorted(order[:count]),
        own=[order[start:end] for start, end in pairwise(edges)],
        alone=order[: settings.latency_samples],
        batch_size=size,
    )


def _singles(seconds: float, fits: Sequence[tuple[Fit, int]], rows: Rows) -> int:
    """How many single rows all models together answer in so many seconds, at least one."""
    return max(1, min(len(rows.alone), int(seconds / sum(found.alone for found, _ in fits))))


def _times(timed: Sequence[Timed], seconds: float, stopped: Stopped) -> list[Times]:
    """What was measured of each model."""
    rates, own = [one.rates for one in timed], min(len(one.own_lengths) for one in timed)
    shared = Timing(
        passes=len(rates[0]),
        rows=len(timed[0].rows.passed),
        of_rows=len(timed[0].order),
        single_rows=len(timed[0].latencies),
        own_rows=own,
        seconds=seconds,
        stopped=stopped,
        rate=rate_interval(rates[0]),
        ratio=ratio_interval(rates[0], rates[1]) if len(rates) > 1 else None,
    )
    return [
        Times(
            batch_size=one.rows.batch_size,
            rates=one.rates,
            spans=one.spans,
            latencies=one.latencies,
            tokens=one.tokens,
            natural=fmean(one.own_lengths[:own]) if own else None,
            timing=shared.model_copy(update={"rate": rate_interval(one.rates)}),
        )
        for one in timed
    ]


def environment(device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """What speed depends on beside the model: versions of libraries, device, dtype, threads."""
    import transformers

    own: dict[str, str] = {}
    with suppress(PackageNotFoundError):  # run from its source, without being installed
        own["lmmpress"] = version("lmmpress")
    return own | {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "threads": str(torch.get_num_threads()),
    }
