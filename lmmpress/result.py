"""The results of a run as data: the records that result.json, the report and the lineage are made of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, get_args

from pydantic import BaseModel, ConfigDict

from lmmpress.plan import Plan, ScheduledStep
from lmmpress.printing.numbers import faster, in_short
from lmmpress.printing.sheet import Grid, Part, Shown

Decision = Literal["accepted", "rolled back", "kept"]
Role = Literal["score", "distill", "gate", "test"]
ROLES: tuple[Role, ...] = get_args(Role)
"""The roles of the four disjoint splits that a run needs."""


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Latency(Record):
    """Milliseconds from pixels to answer at batch 1."""

    p50: float
    p95: float


class Speed(Record):
    """Samples per second from pixels to answer at the stated batch size, and latency at batch 1.

    Both are measured at the lengths of the right answers, `tokens` on average (in a batch at that of the longest); the
    model's own answers have `natural_tokens` on average. Both counts include the end token. Both are None in results of
    older versions, which measured each model at its own lengths.
    """

    batch_size: int
    samples_per_second: float
    latency_ms: Latency
    tokens: float | None = None
    natural_tokens: float | None = None


class Interval(Record):
    """A paired confidence interval of a drop in accuracy."""

    low: float
    high: float
    confidence: float


class Headline(Record):
    """One model of the closing table. `checkpoint` is its digest; accuracies are on the test split; for `tokens` and
    `natural_tokens` see Speed."""

    checkpoint: str
    address: str
    parameters: int
    parameters_by_tower: dict[str, int]
    accuracy: float
    accuracy_by_task: dict[str, float]
    batch_size: int
    samples_per_second: float
    latency_ms: Latency
    tokens: float | None = None
    natural_tokens: float | None = None


class Machine(Record):
    """What computed a part: its pod (empty outside a cluster), node and kinds of GPU, and the most memory in bytes that
    the part took: of the process, and of all its GPUs together."""

    pod: str = ""
    node: str = ""
    gpu: str = ""
    peak_memory: int | None = None
    peak_gpu_memory: int | None = None


class StepResult(Record):
    """One step. `accuracy_pruned` is before distilling, `accuracy` after; `drop` is from `reference`, all on the gate's
    split; `seconds` and `machines` by part (importance, prune, distill, evaluate). Values of parts that did not run are
    None; results of older versions have no machines. A jump of a warm run is one step: `jump` are all steps of its
    schedule that it makes at once, and `stage`, `tower` and `removed` are those of the first of them."""

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
    score_reliability: float | None
    loss: list[float]
    seconds: dict[str, float]
    machines: dict[str, Machine] = {}
    jump: list[ScheduledStep] = []

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


class StartedFrom(Record):
    """What a warm run started from: the key of an earlier run, and how many steps that kept."""

    run: str
    steps: int


class Result(Shown, Record):
    """result.json. `drop_interval` is that of the test accuracy lost, original minus compressed. `started_from` is None
    if the run went the gradual way."""

    original: Headline
    compressed: Headline
    drop: float
    drop_interval: Interval
    reduction: dict[str, float]
    steps: list[StepResult]
    run_key: str
    seconds: float
    seconds_by_part: dict[str, float]
    alpha: float
    environment: dict[str, str]
    started_from: StartedFrom | None = None

    def __repr__(self) -> str:
        before, after = self.original, self.compressed
        return (
            f"<run {self.run_key[:12]}: {in_short(before.parameters)} -> {in_short(after.parameters)} parameters "
            f"({self.reduction['all']:.1f}x smaller), test accuracy {before.accuracy:.4f} -> {after.accuracy:.4f}, "
            f"{self._kept()}>"
        )

    __str__ = __repr__

    def shown(self) -> tuple[Part, ...]:
        """The closing table, original against compressed, and the number of kept steps."""
        warm = f", warm from run {self.started_from.run[:12]}" if self.started_from else ""
        return self._closing_table(), f"{self._kept()}, {self.seconds:.0f} s{warm}"

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
        change = f"lost {self.drop:.4f} ({lost.low:.4f} to {lost.high:.4f})"
        rows.append(("test accuracy", f"{before.accuracy:.4f}", f"{after.accuracy:.4f}", change))
        for task, accuracy in before.accuracy_by_task.items():
            rows.append((f"  {task}", f"{accuracy:.4f}", f"{after.accuracy_by_task[task]:.4f}", ""))
        old, new = before.samples_per_second, after.samples_per_second
        rows.append((f"samples/s at batch {before.batch_size}", f"{old:.1f}", f"{new:.1f}", faster(new / old)))
        for name in ("p50", "p95"):
            old, new = getattr(before.latency_ms, name), getattr(after.latency_ms, name)
            rows.append((f"latency {name}, ms", f"{old:.1f}", f"{new:.1f}", faster(old / new)))
        if before.tokens is not None and before.natural_tokens is not None and after.natural_tokens is not None:
            own = (f"{before.natural_tokens:.1f}", f"{after.natural_tokens:.1f}")
            speed = f"speed is at {before.tokens:.1f}, the right answers'"
            rows.append(("tokens of its own answers", *own, speed))
        return Grid(("", "original", "compressed", ""), tuple(rows))


class DataInfo(Record):
    """One split of the data, and its role in a run."""

    split: str
    role: Role
    rows: int
    digest: str


class RunInfo(Record):
    """The start of a run. `gate_accuracy` is the original's accuracy on the gate's split."""

    run_key: str
    plan: Plan
    teacher: str
    teacher_address: str
    parameters_by_tower: dict[str, int]
    data: list[DataInfo]
    gate_accuracy: float


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
