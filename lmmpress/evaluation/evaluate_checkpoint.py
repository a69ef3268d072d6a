"""Everything measured of one checkpoint on one split."""

from pathlib import Path

from lmmpress.benchmarks import Benchmark, grid_of
from lmmpress.data import read_split
from lmmpress.data.facts import facts_of
from lmmpress.evaluation.means import interval_of_mean, intervals_by_task
from lmmpress.evaluation.metrics_by_task import BY_EXACT_ANSWERS, Judging, check_scored, metric_infos, tasks_of_data
from lmmpress.evaluation.opened import open_to_measure
from lmmpress.evaluation.scores import Judge, scored
from lmmpress.evaluation.speed import measure_speeds, sampled
from lmmpress.evaluation.timed import Subject
from lmmpress.lmm.anatomy import count_by_tower
from lmmpress.lmm.forward import visual_features
from lmmpress.metrics import metrics_of
from lmmpress.plan import Evaluation
from lmmpress.printing.numbers import in_short
from lmmpress.printing.sheet import Grid, Part, Shown
from lmmpress.result import (
    Interval,
    Latency,
    Metrics,
    Record,
    Speed,
    SpeedWay,
    Timing,
    metric_title,
    scale_of,
    speed_of,
)
from lmmpress.settings.reading import AS_IT_IS, Reading


class Measurement(Shown, Record):
    """One checkpoint on one split, in the words of result.json: see `lmmpress.result.Headline` and `Speed`. Accuracies
    are means over rows, each by the metric of its task: `metrics` are those of the tasks. Their intervals are those of
    `interval_of_mean`. `benchmarks` are the numbers of a harness of others, on its own tasks.
    """

    rows: int
    accuracy: float
    accuracy_interval: Interval
    accuracy_by_task: dict[str, float]
    accuracy_interval_by_task: dict[str, Interval]
    metrics: Metrics
    samples_per_second: float | None = None
    batch_size: int | None = None
    latency_ms: Latency | None = None
    tokens: float | None = None
    natural_tokens: float | None = None
    timing: Timing | None = None
    way: SpeedWay = "eager"
    compiled: Speed | None = None
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
        title = metric_title(self.metrics)
        return f"<{title} {self.accuracy:.4f} on {self.rows} rows, {fast}{in_short(self.parameters)} parameters>"

    __str__ = __repr__

    def shown(self) -> tuple[Part, ...]:
        """Accuracy by task, with its metric where they differ, then speed and how it was measured, then benchmarks."""
        title = metric_title(self.metrics)
        rows = [
            _accuracy_row(_named(task, self.metrics), accuracy, self.accuracy_interval_by_task[task])
            for task, accuracy in self.accuracy_by_task.items()
        ]
        overall = _accuracy_row("all", self.accuracy, self.accuracy_interval)
        head = ("task", title, f"{100 * self.accuracy_interval.confidence:g} % interval")
        grid = Grid(head, (*rows, overall), strong=frozenset({len(rows)}))
        ways = self.speed.ways if self.speed else []
        speed = [line for one in ways for line in _speed_lines(one)] or ["speed was not measured"]
        return grid, *speed, *([grid_of(self.benchmarks)] if self.benchmarks else [])


def _named(task: str, metrics: Metrics) -> str:
    """A task, with its metric where tasks have different ones."""
    return f"{task}, {metrics[task].title}" if metric_title(metrics) == "score" else task


def _accuracy_row(name: str, accuracy: float, interval: Interval) -> tuple[str, str, str]:
    return name, f"{accuracy:.4f}", f"{interval.low:.4f} to {interval.high:.4f}"


def _speed_lines(speed: Speed) -> list[str]:
    timing, own = speed.timing, speed.natural_tokens
    between = f" ({timing.rate.low:.1f} to {timing.rate.high:.1f})" if timing else ""
    line = (
        f"{speed.samples_per_second:.1f} samples/s at batch {speed.batch_size}{speed.suffix}{between}, latency p50 "
        f"{speed.latency_ms.p50:.0f} ms, p95 {speed.latency_ms.p95:.0f} ms, at the right answers' lengths, "
        f"{speed.tokens:.1f} tokens on average"
    )
    ending = "" if own is None else f"; its own answers have {own:.1f}"
    return [line + ending, *([f"speed: {timing}"] if timing else [])]


def evaluate_checkpoint(
    checkpoint: Path,
    data: Path,
    split: str,
    settings: Evaluation,
    judging: Judging = BY_EXACT_ANSWERS,
    reading: Reading = AS_IT_IS,
) -> Measurement:
    """Accuracy by the metrics of `judging`, overall and by task, with intervals; parameters; samples per second and
    latency, if `settings` ask for speed. `reading` says how the rows are read.

    Raises UserError where plain greedy generation would not answer what the model's logits say, and for metrics that do
    not go with each other or with the rows.
    """
    opened = open_to_measure(checkpoint, template=judging.template)
    rows = read_split(data, split, reading=reading)
    facts = facts_of(rows)
    metrics, infos = metrics_of(judging.metrics, tasks_of_data(rows)), metric_infos(judging.metrics, facts.tasks)
    scale = scale_of(infos)
    check_scored(metrics, rows)
    examples = opened.encoded(rows)
    model, anatomy = opened.load(), opened.anatomy
    judge = Judge(
        model,
        examples,
        anatomy.projector,
        see=lambda: visual_features(model, examples, anatomy, settings.batch_size),
        load_tokenizer=lambda: opened.tokenizer,
        ends=opened.ends,
        batch_size=settings.batch_size,
        longest=settings.max_new_tokens,
    )
    values = scored(judge, {task: metrics[task] for task in facts.tasks}, facts)
    speed: Speed | None = None
    if settings.speed:
        asked = opened.encoded(sampled(rows, settings))
        (speed,) = measure_speeds([Subject(model, opened.tokenizer, asked, opened.ends)], settings)
    counts = count_by_tower(anatomy)
    return Measurement(
        rows=len(rows.rows),
        accuracy=float(values.mean()),
        accuracy_interval=interval_of_mean(values, facts.owners(), scale),
        accuracy_by_task=facts.by_task(values),
        accuracy_interval_by_task=intervals_by_task(values, facts, {task: one.scale for task, one in infos.items()}),
        metrics=infos,
        **(dict(speed) if speed else {}),
        parameters=sum(counts.values()),
        parameters_by_tower=counts,
    )
