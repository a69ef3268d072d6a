"""What a comparison found, as data: two checkpoints, A and B, on the same rows; the content of comparison.json."""

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from lmmpress.printing.numbers import faster, in_bytes, in_short
from lmmpress.printing.sheet import Cell, Grid, Part, Picture, Shown
from lmmpress.printing.visible import shortened
from lmmpress.result import Interval, Record, Speed

FORMAT = 1
WITH_PICTURE = 50  # this many of the rows that differ most keep their pictures
_SHOWN = 10

Kind = Literal["lost", "changed", "gained"]
"""How two answers to a row differ: only A's is right, both are wrong, only B's is right."""


class Energy(Record):
    """Joules per sample at the batch size of the speed. `measured` by counters, which `how` names; or `estimated`."""

    joules_per_sample: float
    kind: Literal["measured", "estimated"]
    how: str


class Memory(Record):
    """The most memory in bytes that loading the model and answering one batch took: of the process beyond what it had
    before, None where the system does not tell it; and of all GPUs together, None without one."""

    process: int | None
    gpu: int | None
    batch_size: int


class Compared(Record):
    """One of the two checkpoints. `checkpoint` is its digest; `bytes` is the size of its files of weights, as stored.

    `speed` and `energy` are None where no speed was measured; `energy` also where nothing measures it and no power was
    stated.
    """

    checkpoint: str
    address: str
    parameters: int
    parameters_by_tower: dict[str, int]
    bytes: int
    accuracy: float
    accuracy_by_task: dict[str, float]
    memory: Memory
    speed: Speed | None
    energy: Energy | None


class Difference(Record):
    """A and B on the rows of one task, or on all rows.

    `both`, `lost`, `gained` and `neither` are the numbers of rows that both answer right, only A, only B, and neither.
    `same_answer` is the number of rows with equal answers, right or wrong. `drop` is the accuracy lost from A to B,
    with a paired interval; `p` is that of McNemar's exact test, by picture.
    """

    rows: int
    both: int
    lost: int
    gained: int
    neither: int
    same_answer: int
    drop: float
    drop_interval: Interval
    p: float

    @property
    def accuracies(self) -> tuple[float, float]:
        """The shares of rows that A and B answer right."""
        return (self.both + self.lost) / self.rows, (self.both + self.gained) / self.rows

    @property
    def agreement(self) -> float:
        """The share of rows with equal answers."""
        return self.same_answer / self.rows

    @property
    def differing(self) -> int:
        """The number of rows with different answers."""
        return self.rows - self.same_answer


class Ratio(Record):
    """B relative to A, measured `count` times: the median, and the range that `low` and `high` bound."""

    median: float
    low: float
    high: float
    count: int


class Turns(Record):
    """How speed was measured. `together`: both models were in memory at once; otherwise they were loaded in turn.

    `samples_per_second` is B's rate over A's in each turn, with the smallest and the largest; `latency` is A's time
    over B's for each single row, with the 5 % and 95 % quantiles. Above 1, B is faster.
    """

    together: bool
    samples_per_second: Ratio
    latency: Ratio

    def gain(self, b: Speed) -> tuple[float, str]:
        """How many times as many samples per second B answers, whose speed is `b`; and how sure that is, in words: its
        interval, or in comparisons of older versions the range over the turns."""
        rate, ratio = self.samples_per_second, b.timing.ratio if b.timing else None
        if ratio is None:
            return rate.median, f"{rate.low:.2f} to {rate.high:.2f} in {rate.count} turns"
        sure = f"{100 * ratio.confidence:g} %: {ratio.low:.2f} to {ratio.high:.2f}, {rate.count} turns"
        return math.sqrt(ratio.low * ratio.high), sure


class Said(Record):
    """A checkpoint's answer to a row. `ended` is false if it was cut off. `log_probability` is that of the right
    answer, None if it is not finite."""

    text: str
    right: bool
    ended: bool
    log_probability: float | None


class Differing(Record):
    """A row that A and B answer differently. `line` is its line in metadata.jsonl.

    `picture` is a small PNG, in the object only and not in JSON.
    """

    kind: Kind
    line: int
    file_name: str | None
    task: str
    question: str
    wanted: str
    a: Said
    b: Said
    picture: bytes | None = Field(default=None, exclude=True, repr=False)


class Data(Record):
    """The rows: where they are, the digest of their texts and pictures, how many rows and pictures; `tasks` are those
    that were asked for, none for all."""

    address: str
    split: str
    digest: str
    rows: int
    images: int
    tasks: list[str]


class Comparison(Shown, Record):
    """comparison.json. `differing` are the rows with different answers, the worst first: all of them, or of the
    comparison that a store keeps of a run as many as fit."""

    format: int = FORMAT
    a: Compared
    b: Compared
    data: Data
    all: Difference
    by_task: dict[str, Difference]
    turns: Turns | None
    differing: list[Differing]
    environment: dict[str, str]
    seconds: float

    def __repr__(self) -> str:
        lost = self.all.drop_interval
        return (
            f"<{in_short(self.a.parameters)} and {in_short(self.b.parameters)} parameters on {self.data.rows} rows: "
            f"accuracy {self.a.accuracy:.4f} and {self.b.accuracy:.4f}, lost {self.all.drop:.4f} "
            f"({lost.low:.4f} to {lost.high:.4f}), {100 * self.all.agreement:.1f} % equal answers>"
        )

    __str__ = __repr__

    def shown(self) -> tuple[Part, ...]:
        """Accuracy by task, then sizes and speed, then the first rows that differ."""
        parts: list[Part] = [self._accuracies(), self._costs()]
        if self.b.speed is None:
            parts.append("speed was not measured")
        elif self.b.speed.timing:
            parts.append(f"speed: {self.b.speed.timing}")
        rows = [_cells(row) for row in self.differing[:_SHOWN]]
        if rows:
            parts.append(Grid(("line", "picture", "task", "wanted", "A", "B"), tuple(rows)))
        differing = self.all.differing
        shown = f", the worst {len(rows)} above" if len(rows) < differing else ""
        parts.append(f"{differing} of {self.data.rows} rows have different answers{shown}")
        return tuple(parts)

    def _accuracies(self) -> Grid:
        rows = [
            (
                task,
                str(one.rows),
                *(f"{accuracy:.4f}" for accuracy in one.accuracies),
                f"{one.drop:.4f} ({one.drop_interval.low:.4f} to {one.drop_interval.high:.4f})",
                f"{one.p:.2g}",
                f"{100 * one.agreement:.1f} %",
            )
            for task, one in (self.by_task | {"all": self.all}).items()
        ]
        head = ("accuracy", "rows", "A", "B", "lost (95 % interval)", "p", "equal")
        return Grid(head, tuple(rows), frozenset({len(rows) - 1}))

    def _costs(self) -> Grid:
        a, b = self.a, self.b
        rows = [
            ("parameters", in_short(a.parameters), in_short(b.parameters), _smaller(a.parameters, b.parameters)),
            ("weights", in_bytes(a.bytes), in_bytes(b.bytes), _smaller(a.bytes, b.bytes)),
        ]
        for name in ("process", "gpu"):
            old, new = getattr(a.memory, name), getattr(b.memory, name)
            if old is not None and new is not None:
                what = f"peak memory of the {'GPU' if name == 'gpu' else name}, batch {a.memory.batch_size}"
                rows.append((what, in_bytes(old), in_bytes(new), _smaller(old, new)))
        if self.turns and a.speed and b.speed:
            latency = self.turns.latency
            speeds = (f"{a.speed.samples_per_second:.1f}", f"{b.speed.samples_per_second:.1f}")
            gain, sure = self.turns.gain(b.speed)
            spread = f"{faster(gain)} ({sure})"
            rows.append((f"samples/s at batch {a.speed.batch_size}", *speeds, spread))
            for name in ("p50", "p95"):
                old, new = getattr(a.speed.latency_ms, name), getattr(b.speed.latency_ms, name)
                rows.append((f"latency {name}, ms", f"{old:.1f}", f"{new:.1f}", faster(old / new)))
            spread = f"{faster(latency.median)} ({latency.low:.2f} to {latency.high:.2f} in {latency.count} rows)"
            rows.append(("latency, row by row", "", "", spread))
        if a.energy and b.energy:
            joules = (f"{a.energy.joules_per_sample:.3g}", f"{b.energy.joules_per_sample:.3g}")
            rows.append((f"joules per sample, {a.energy.kind}", *joules, a.energy.how))
        return Grid(("", "A", "B", ""), tuple(rows))


def _smaller(before: int, after: int) -> str:
    if before == after:
        return "the same"
    if not before or not after:
        return ""
    return f"{before / after:.1f}x smaller" if before > after else f"{after / before:.1f}x larger"


def _cells(row: Differing) -> tuple[Cell, ...]:
    texts = (row.wanted, row.a.text, row.b.text)
    picture: Cell = "" if row.picture is None else Picture(row.picture)
    return (str(row.line), picture, row.task, *(shortened(text, 40) for text in texts))


_ORDER: Mapping[Kind, int] = {"lost": 0, "changed": 1, "gained": 2}


def badness(row: Differing) -> tuple[int, float, int]:
    """A key that sorts the worst row first: rows that only A answers right, then rows that both answer wrong, then rows
    that only B answers right; among them by how much less likely the right answer is to B."""
    a, b = row.a.log_probability, row.b.log_probability
    return _ORDER[row.kind], 0.0 if a is None or b is None else b - a, row.line
