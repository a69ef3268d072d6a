"""The results of a run as data: the records that result.json, the report and the lineage are made of."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Protocol, get_args

from pydantic import BaseModel, ConfigDict, PlainSerializer

from lmmpress.host.energy_use import Energy
from lmmpress.metrics.metric import Better
from lmmpress.metrics.scale import Scale, common_scale
from lmmpress.plan import Plan
from lmmpress.printing.numbers import faster, in_kwh, in_short
from lmmpress.printing.sheet import Grid, Part, Shown
from lmmpress.settings.economy import Economy
from lmmpress.settings.schedule import ScheduledStep

Decision = Literal["accepted", "rolled back", "kept"]
Role = Literal["score", "distill", "gate", "test"]
Stopped = Literal["narrow", "seconds"]
SpeedWay = Literal["eager", "compiled"]
ROLES: tuple[Role, ...] = get_args(Role)
"""The roles of the four disjoint splits that a run needs."""


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"


Bound = Annotated[float, PlainSerializer(_json_number, when_used="json")]
"""A number, or infinity, which JSON has no number for: it is the text Infinity or -Infinity there."""


class MetricInfo(Record):
    """The metric that scores the rows of a task, with its parameters: which numbers are `better`, whether each row has
    0 or 1, and the least and the largest number that a row can have."""

    name: str
    parameters: dict[str, float] = {}
    better: Better
    is_share: bool
    low: Bound
    high: Bound

    @property
    def scale(self) -> Scale:
        return Scale(self.better, self.is_share, self.low, self.high)

    @property
    def title(self) -> str:
        """The metric as people write it: numeric 0.05."""
        return " ".join([self.name, *(f"{value:g}" for value in self.parameters.values())])


Metrics = dict[str, MetricInfo]
"""The metric of each task; empty in results of older versions, which knew only exact answers."""


def scale_of(metrics: Metrics) -> Scale:
    """The scale of the mean over the rows of these tasks."""
    return common_scale([metric.scale for metric in metrics.values()])


def metric_title(metrics: Metrics) -> str:
    """What the mean over the rows of all tasks is, in a word or two: accuracy, if rows are right or wrong to the last
    token; the metric's name; score, if tasks have different metrics."""
    titles = {metric.title for metric in metrics.values()}
    if titles <= {"exact"}:
        return "accuracy"
    return titles.pop() if len(titles) == 1 else "score"


class Latency(Record):
    """Milliseconds from pixels to answer at batch 1."""

    p50: float
    p95: float


class Interval(Record):
    """A confidence interval: of a drop in accuracy between two models on the same rows, of a share of rows, of a speed
    or of the ratio of two speeds."""

    low: Bound
    high: Bound
    confidence: float


class Timing(Record):
    """How speed was measured: in `passes` over the same `rows` of `of_rows` rows, and in `single_rows` single ones, in
    `seconds`, those of a model that took turns with this one included. The model's own answers were counted on
    `own_rows` of the rows.

    There was no further pass because speed was known well enough (`narrow`), or because the time was up (`seconds`).
    `rate` is the interval of the model's samples per second. `ratio` is that of the ratio of two models that took
    turns, the samples per second of the second over those of the first, paired by turn; None for a model alone.
    """

    passes: int
    rows: int
    of_rows: int
    single_rows: int
    own_rows: int
    seconds: float
    stopped: Stopped
    rate: Interval
    ratio: Interval | None = None

    def __str__(self) -> str:
        rows = f"{self.rows} rows" if self.rows == self.of_rows else f"{self.rows} of {self.of_rows} rows"
        until = "speed was known well enough" if self.stopped == "narrow" else "the time was up"
        singles = f"{self.single_rows} single row{'s' if self.single_rows > 1 else ''}"
        return f"{self.passes} passes over {rows} and {singles} in {self.seconds:.3g} s, until {until}"


class Speed(Record):
    """Samples per second from pixels to answer at the stated batch size, and latency at batch 1.

    Both are measured at the lengths of the right answers, `tokens` on average (in a batch at that of the longest); the
    model's own answers have `natural_tokens` on average. Both counts include the end token. Both are None in results of
    older versions, which measured each model at its own lengths; `natural_tokens` also where there was no time to count
    them. `timing` is None in results of older versions.

    `way` says whether the step that makes a token was compiled. `compiled` is the speed with a compiled step where it
    was measured too.
    """

    batch_size: int
    samples_per_second: float
    latency_ms: Latency
    tokens: float | None = None
    natural_tokens: float | None = None
    timing: Timing | None = None
    way: SpeedWay = "eager"
    compiled: "Speed | None" = None

    @property
    def ways(self) -> "list[Speed]":
        """Each way in which speed was measured; the first one counts."""
        return [self, *([self.compiled] if self.compiled else [])]

    @property
    def suffix(self) -> str:
        """What tables add to its name."""
        return ", compiled" if self.way == "compiled" else ""


class Drop(Record):
    """The accuracy lost between two models on the same rows, on the scale of its metric, and its paired interval. Below
    0 it was gained, whichever numbers are better."""

    value: float
    interval: Interval


class Headline(Record):
    """One model of the closing table. `checkpoint` is its digest; accuracies are on the test split, by the metrics of
    the result. For all from `batch_size` on see Speed; it is None where speed was not measured."""

    checkpoint: str
    address: str
    parameters: int
    parameters_by_tower: dict[str, int]
    accuracy: float
    accuracy_by_task: dict[str, float]
    batch_size: int | None = None
    samples_per_second: float | None = None
    latency_ms: Latency | None = None
    tokens: float | None = None
    natural_tokens: float | None = None
    timing: Timing | None = None
    way: SpeedWay = "eager"
    compiled: Speed | None = None

    @property
    def speed(self) -> Speed | None:
        """Its speed; None where that was not measured."""
        return speed_of(self)


def speed_of(record: Record) -> Speed | None:
    """The speed in a record that has the fields of one among others, all None where it was not measured."""
    values = {name: getattr(record, name) for name in Speed.model_fields}
    return None if values["samples_per_second"] is None else Speed(**values)


class Machine(Record):
    """What computed a part: its pod (empty outside a cluster), node and kinds of GPU; the most memory in bytes that the
    part took: of the process, and of all its GPUs together; and how many rows went through a model `at_once` in the
    end, by what was done with them (importance, distill, evaluate, answer, speed)."""

    pod: str = ""
    node: str = ""
    gpu: str = ""
    peak_memory: int | None = None
    peak_gpu_memory: int | None = None
    at_once: dict[str, int] = {}


class StepResult(Record):
    """One step. `accuracy_pruned` is before distilling, `accuracy` after; `drop` is from `reference`, all on the gate's
    split: means over its rows, each by the metric of its task; `drop_by_task` is empty in results of older versions.
    `seconds`, `machines` and `energy` by part (importance, prune, distill, evaluate). Values of parts that did not run
    are None; results of older versions have no machines and no energy, and a part whose energy is unknown has none. A
    jump of a warm run is one step: `jump` are all steps of its schedule that it makes at once, and `stage`, `tower` and
    `removed` are those of the first of them. `learning_rate` is the one that was found for the step, None where the
    plan gives it. `economy` is how its training saved memory and why, None if it needed to save none."""

    stage: str
    index: int
    tower: str
    removed: int
    decision: Decision
    reason: str
    parent: str
    checkpoint: str | None
    address: str | None
    parameters: int
    parameters_by_tower: dict[str, int]
    accuracy_pruned: float | None
    accuracy: float | None
    accuracy_by_task: dict[str, float]
    reference: float
    drop: float | None
    drop_interval: Interval | None
    drop_by_task: dict[str, Drop] = {}
    metrics: Metrics = {}
    score_reliability: float | None
    loss: list[float]
    seconds: dict[str, float]
    machines: dict[str, Machine] = {}
    energy: dict[str, Energy] = {}
    jump: list[ScheduledStep] = []
    learning_rate: float | None = None
    economy: Economy | None = None

    @property
    def title(self) -> str:
        """What the step makes smaller, in a few words."""
        return jump_title(self.jump) if self.jump else f"{self.stage} -{self.removed}"


def jump_title(jump: Sequence[ScheduledStep]) -> str:
    """A jump in a few words: how many steps it goes over, and how much it removes in each stage."""
    removed: dict[str, int] = {}
    for step in jump:
        removed[step.stage] = removed.get(step.stage, 0) + step.removed
    return f"jump over {len(jump)} steps ({', '.join(f'{stage} -{much}' for stage, much in removed.items())})"


class SkippedRow(Record):
    """A faulty row that was left out: where it is, and why."""

    place: str
    why: str


class StartedFrom(Record):
    """What a warm run started from: the key of an earlier run, and how many steps that kept."""

    run: str
    steps: int


class DataInfo(Record):
    """One split of the data, and its role in a run."""

    split: str
    role: Role
    rows: int
    digest: str


class RunEnergy(Record):
    """Energy in kWh: of 1,000 inferences of both models at the batch size of their speed, and of the `compression` in
    all and `by_part`. It `is_whole` if the energy of every part is known: else the compression took at least that.

    `break_even` is the number of inferences after which the compressed model has saved what the compression took; None
    if it saves nothing, or if one of the numbers is unknown. `saved_per_year` is what it saves in a year of
    `inferences_per_year`, below 0 if it takes more. See docs/energy.md.
    """

    original: Energy | None = None
    compressed: Energy | None = None
    compression: Energy | None = None
    by_part: dict[str, Energy] = {}
    is_whole: bool = True
    break_even: int | None = None
    inferences_per_year: int | None = None
    saved_per_year: float | None = None

    @property
    def saved(self) -> float | None:
        """What 1,000 inferences of the compressed model save, in kWh."""
        return self.original.kwh - self.compressed.kwh if self.original and self.compressed else None


class Result(Shown, Record):
    """result.json. `drop` is the test accuracy lost from original to compressed. Accuracies are means over rows, each
    by the metric of its task: `metrics` are those of the tasks of the test split. `started_from` is None if the run
    went the gradual way. `skipped_rows` faulty rows of the data were left out; the first of them are `skipped`.

    `seconds_by_part` and `own_seconds`, those of the run itself, are all the time that the run took: of it, `seconds`
    passed in the process that ended the run. `own_seconds` is None where tasks of a pipeline made the run. Results of
    older versions have none, no `data` and no `energy`."""

    original: Headline
    compressed: Headline
    drop: float
    drop_interval: Interval
    drop_by_task: dict[str, Drop] = {}
    metrics: Metrics = {}
    reduction: dict[str, float]
    steps: list[StepResult]
    run_key: str
    seconds: float
    seconds_by_part: dict[str, float]
    alpha: float
    environment: dict[str, str]
    started_from: StartedFrom | None = None
    skipped_rows: int = 0
    skipped: list[SkippedRow] = []
    data: list[DataInfo] = []
    own_seconds: float | None = None
    energy: RunEnergy | None = None

    def __repr__(self) -> str:
        before, after = self.original, self.compressed
        return (
            f"<run {self.run_key[:12]}: {in_short(before.parameters)} -> {in_short(after.parameters)} parameters "
            f"({self.reduction['all']:.1f}x smaller), test {metric_title(self.metrics)} "
            f"{before.accuracy:.4f} -> {after.accuracy:.4f}, "
            f"{self._kept()}>"
        )

    __str__ = __repr__

    def shown(self) -> tuple[Part, ...]:
        """The closing table, original against compressed, how speed was measured, and the number of kept steps."""
        warm = f", warm from run {self.started_from.run[:12]}" if self.started_from else ""
        timing = self.compressed.timing
        speed = [f"speed: {timing}"] if timing else [] if self.compressed.speed else ["speed was not measured"]
        return self._closing_table(), *speed, f"{self._kept()}, {self.seconds:.0f} s{warm}"

    def _kept(self) -> str:
        kept = sum(step.decision != "rolled back" for step in self.steps)
        return f"{kept} of {len(self.steps)} steps kept"

    def _closing_table(self) -> Grid:
        before, after, lost = self.original, self.compressed, self.drop_interval
        sizes = [
            (tower, count, after.parameters_by_tower.get(tower, 0))
            for tower, count in before.parameters_by_tower.items()
            if count
        ]
        rows = [
            (f"{name} parameters", in_short(count), in_short(left), f"{count / left:.1f}x smaller" if left else "gone")
            for name, count, left in [*sizes, ("all", before.parameters, after.parameters)]
        ]
        title = metric_title(self.metrics)
        change = _lost(Drop(value=self.drop, interval=lost))
        rows.append((f"test {title}", f"{before.accuracy:.4f}", f"{after.accuracy:.4f}", change))
        for task, accuracy in before.accuracy_by_task.items():
            drop = self.drop_by_task.get(task)
            name = f"  {task}{f', {self.metrics[task].title}' if title == 'score' and task in self.metrics else ''}"
            rows.append((name, f"{accuracy:.4f}", f"{after.accuracy_by_task[task]:.4f}", _lost(drop) if drop else ""))
        if before.speed and after.speed:
            for old, new in zip(before.speed.ways, after.speed.ways, strict=False):
                rows += _speed_rows(old, new)
        rows += _energy_rows(self.energy) if self.energy else []
        return Grid(("", "original", "compressed", ""), tuple(rows))


def _energy_rows(energy: RunEnergy) -> list[tuple[str, str, str, str]]:
    rows = []
    if energy.original and energy.compressed:
        old, new = energy.original, energy.compressed
        change = f"{old.kwh / new.kwh:.1f}x less" if old.kwh > new.kwh > 0 else "not less"
        rows.append(("kWh per 1,000 inferences", in_kwh(old.kwh), in_kwh(new.kwh), f"{change}, {new.label}"))
    if energy.compression:
        least = "" if energy.is_whole else "at least "
        took = f"{least}{in_kwh(energy.compression.kwh)}"
        paid = "" if energy.break_even is None else f", saved after {least}{energy.break_even:,} inferences"
        rows.append(("kWh of the compression", "", took, f"{energy.compression.label}{paid}"))
    return rows


def _lost(drop: Drop) -> str:
    return f"lost {drop.value:.4f} ({drop.interval.low:.4f} to {drop.interval.high:.4f})"


def _speed_rows(before: Speed, after: Speed) -> list[tuple[str, str, str, str]]:
    old, new = before.samples_per_second, after.samples_per_second
    change = faster(new / old)
    if after.timing and after.timing.ratio:
        change += f" ({after.timing.ratio.low:.2f} to {after.timing.ratio.high:.2f})"
    rows = [(f"samples/s at batch {before.batch_size}{after.suffix}", f"{old:.1f}", f"{new:.1f}", change)]
    for name in ("p50", "p95"):
        old, new = getattr(before.latency_ms, name), getattr(after.latency_ms, name)
        rows.append((f"latency {name}, ms{after.suffix}", f"{old:.1f}", f"{new:.1f}", faster(old / new)))
    if before.tokens is not None and before.natural_tokens is not None and after.natural_tokens is not None:
        own = (f"{before.natural_tokens:.1f}", f"{after.natural_tokens:.1f}")
        rows.append(("tokens of its own answers", *own, f"speed is at {before.tokens:.1f}, the right answers'"))
    return rows


class RunInfo(Record):
    """The start of a run. `gate_accuracy` is the original's accuracy on the gate's split, by the `metrics` of its
    tasks."""

    run_key: str
    plan: Plan
    teacher: str
    teacher_address: str
    parameters_by_tower: dict[str, int]
    data: list[DataInfo]
    gate_accuracy: float
    metrics: Metrics = {}


class Recorder(Protocol):
    """Records a run while it proceeds, such as the lineage in MLflow. A resumed run repeats the earlier calls.

    `take_over` is called first, as soon as this process holds the run alone, before the original is measured.
    """

    def take_over(self, run_key: str) -> None: ...

    def begin(self, run: RunInfo) -> None: ...

    def step(self, step: StepResult) -> None: ...

    def end(self, result: Result, checkpoint: Path | None) -> None: ...


class NotRecorded:
    """The recorder of a run without lineage: it does nothing."""

    def take_over(self, run_key: str) -> None:
        pass

    def begin(self, run: RunInfo) -> None:
        pass

    def step(self, step: StepResult) -> None:
        pass

    def end(self, result: Result, checkpoint: Path | None) -> None:
        pass
