"""Everything measured of one checkpoint on one split."""

from pathlib import Path

from lmmpress.benchmarks import Benchmark, grid_of
from lmmpress.data import read_split
from lmmpress.data.facts import facts_of
from lmmpress.evaluation.accuracy import answered_right
from lmmpress.evaluation.opened import open_to_measure
from lmmpress.evaluation.share import share_interval, share_intervals_by_task
from lmmpress.evaluation.speed import measure_speeds, sampled
from lmmpress.evaluation.timed import Subject
from lmmpress.lmm.anatomy import count_by_tower
from lmmpress.lmm.forward import visual_features
from lmmpress.plan import Evaluation
from lmmpress.printing.numbers import in_short
from lmmpress.printing.sheet import Grid, Part, Shown
from lmmpress.result import Interval, Latency, Record, Speed, Timing, speed_of


class Measurement(Shown, Record):
    """One checkpoint on one split, in the words of result.json: see `lmmpress.result.Headline` and `Speed`. An interval
    of an accuracy is that of `share_interval`. `benchmarks` are the numbers of a harness of others, on its own tasks.
    """

    rows: int
    accuracy: float
    accuracy_interval: Interval
    accuracy_by_task: dict[str, float]
    accuracy_interval_by_task: dict[str, Interval]
    samples_per_second: float | None = None
    batch_size: int | None = None
    latency_ms: Latency | None = None
    tokens: float | None = None
    natural_tokens: float | None = None
    timing: Timing | None = None
    parameters: int
    parameters_by_tower: dict[str, int]
    benchmarks: tuple[Benchmark, ...] = ()

    @property
    def speed(self) -> Speed | None:
        """Its speed; None where that was not measured."""
        return speed_of(self)

    def __repr__(self) -> str:
        speed = self.speed
        fast = f"{speed.samples_per_second:.1f} samples/s at batch {speed.batch_size}, " if speed else ""
        return f"<accuracy {self.accuracy:.4f} on {self.rows} rows, {fast}{in_short(self.parameters)} parameters>"

    __str__ = __repr__

    def shown(self) -> tuple[Part, ...]:
        """Accuracy by task, then speed and how it was measured, then benchmarks."""
        tasks = [
            _accuracy_row(task, accuracy, self.accuracy_interval_by_task[task])
            for task, accuracy in self.accuracy_by_task.items()
        ]
        overall = _accuracy_row("all", self.accuracy, self.accuracy_interval)
        head = ("task", "accuracy", f"{100 * self.accuracy_interval.confidence:g} % interval")
        grid = Grid(head, (*tasks, overall), strong=frozenset({len(tasks)}))
        speed = _speed_lines(self.speed) if self.speed else ["speed was not measured"]
        return grid, *speed, *([grid_of(self.benchmarks)] if self.benchmarks else [])


def _accuracy_row(name: str, accuracy: float, interval: Interval) -> tuple[str, str, str]:
    return name, f"{accuracy:.4f}", f"{interval.low:.4f} to {interval.high:.4f}"


def _speed_lines(speed: Speed) -> list[str]:
    timing, own = speed.timing, speed.natural_tokens
    between = f" ({timing.rate.low:.1f} to {timing.rate.high:.1f})" if timing else ""
    line = (
        f"{speed.samples_per_second:.1f} samples/s at batch {speed.batch_size}{between}, latency p50 "
        f"{speed.latency_ms.p50:.0f} ms, p95 {speed.latency_ms.p95:.0f} ms, at the right answers' lengths, "
        f"{speed.tokens:.1f} tokens on average"
    )
    ending = "" if own is None else f"; its own answers have {own:.1f}"
    return [line + ending, *([f"speed: {timing}"] if timing else [])]


def evaluate_checkpoint(checkpoint: Path, data: Path, split: str, settings: Evaluation) -> Measurement:
    """Accuracy, overall and by task, with intervals; parameters; samples per second and latency, if `settings` ask for
    speed.

    Raises UserError where plain greedy generation would not answer what the model's logits say.
    """
    opened = open_to_measure(checkpoint)
    rows = read_split(data, split)
    examples = opened.encoded(rows)
    model, anatomy = opened.load(), opened.anatomy
    features = visual_features(model, examples, anatomy, settings.batch_size)
    right = answered_right(model, examples, anatomy.projector, features, settings.batch_size, opened.ends)
    speed: Speed | None = None
    if settings.speed:
        asked = opened.encoded(sampled(rows, settings))
        (speed,) = measure_speeds([Subject(model, opened.tokenizer, asked, opened.ends)], settings)
    facts, marks, counts = facts_of(rows), right.numpy(), count_by_tower(anatomy)
    return Measurement(
        rows=len(rows.rows),
        accuracy=float(right.double().mean()),
        accuracy_interval=share_interval(marks, facts.owners()),
        accuracy_by_task=facts.by_task(marks),
        accuracy_interval_by_task=share_intervals_by_task(marks, facts),
        **(dict(speed) if speed else {}),
        parameters=sum(counts.values()),
        parameters_by_tower=counts,
    )
