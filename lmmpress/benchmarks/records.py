"""The numbers of harnesses as data, and the file beside a run's result that keeps them."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from lmmpress.errors import UserError
from lmmpress.files.strict_json import read_mapping
from lmmpress.host.whole_file import write_whole
from lmmpress.printing.sheet import Grid
from lmmpress.result import Record

BESIDE_RESULT = "benchmarks.json"
"""The name of the file in the folder of a run."""

LARGEST = 64 << 20
"""Bytes of a file of results."""

Text = Annotated[str, Field(max_length=300)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=1 << 53)]


class Benchmark(Record):
    """One number of a harness: one metric of one task, after one of the task's filters of answers.

    `stderr` is the standard error that the harness gives, None where it gives none. `samples` is how many rows of the
    task were measured, and `few_shot` how many solved ones stood before each; both are None where the harness does not
    say, as it does not say `few_shot` of a group of tasks. `higher_is_better` is None where the task does not say.
    """

    harness: Text
    harness_version: Text
    task: Text
    task_version: Text | None
    metric: Text
    filter: Text
    value: Number
    stderr: Number | None
    samples: Count | None
    few_shot: Count | None
    higher_is_better: bool | None

    @property
    def question(self) -> tuple[object, ...]:
        """What this number answers: two numbers can be compared where it is the same."""
        return (*self.asked, self.harness_version, self.task_version, self.samples)

    @property
    def asked(self) -> tuple[object, ...]:
        """What was asked for, whichever versions answered it."""
        return (self.harness, self.task, self.metric, self.filter, self.few_shot)

    @property
    def shown_metric(self) -> str:
        """The metric with its filter, unless it has none, and which way is better."""
        name = self.metric if self.filter in ("", "none") else f"{self.metric}, {self.filter}"
        return name if self.higher_is_better is not False else f"{name} (lower is better)"

    @property
    def shown_value(self) -> str:
        """The value with its standard error."""
        return f"{self.value:.4f}" if self.stderr is None else f"{self.value:.4f} ± {self.stderr:.4f}"


class Benchmarks(Record):
    """benchmarks.json: the numbers of the two ends of a run, by the digest of the checkpoint."""

    by_checkpoint: dict[Text, tuple[Benchmark, ...]] = Field(default_factory=dict)

    def pairs(self, before: str, after: str) -> list[tuple[Benchmark | None, Benchmark | None]]:
        """The numbers of two checkpoints, those side by side that answer the same question. At least one of a pair is
        there."""
        first, second = ({one.question: one for one in self.by_checkpoint.get(name, ())} for name in (before, after))
        return [(first.get(key), second.get(key)) for key in dict.fromkeys([*first, *second])]

    def with_numbers(self, checkpoint: str, numbers: Sequence[Benchmark]) -> "Benchmarks":
        """These and `numbers` of a checkpoint, which replace those that answer what was asked for now."""
        new = {number.asked for number in numbers}
        old = [number for number in self.by_checkpoint.get(checkpoint, ()) if number.asked not in new]
        return Benchmarks(by_checkpoint=self.by_checkpoint | {checkpoint: (*old, *numbers)})


def kept_benchmarks(folder: Path) -> Benchmarks:
    """The numbers that the folder of a run keeps; none if it has no such file.

    Raises UserError if the file is not in the form that lmmpress writes.
    """
    path = folder / BESIDE_RESULT
    try:
        return Benchmarks.model_validate(read_mapping(path, LARGEST))
    except FileNotFoundError:
        return Benchmarks()
    except ValidationError as error:
        raise UserError(f"{path}: not what lmmpress writes: {str(error).splitlines()[0]}") from None


def keep(folder: Path, checkpoint: str, numbers: Sequence[Benchmark]) -> None:
    """Keep the numbers of the checkpoint with that digest in the folder of a run."""
    kept = kept_benchmarks(folder).with_numbers(checkpoint, numbers)
    write_whole(folder / BESIDE_RESULT, kept.model_dump_json(indent=1))


def grid_of(numbers: Iterable[Benchmark]) -> Grid:
    """The numbers as a table."""
    rows = [
        (
            number.task if number.task_version is None else f"{number.task} (version {number.task_version})",
            number.shown_metric,
            number.shown_value,
            _shown(number.samples),
            _shown(number.few_shot),
            f"{number.harness} {number.harness_version}",
        )
        for number in numbers
    ]
    return Grid(("benchmark", "metric", "value", "samples", "few-shot", "by"), tuple(rows))


def _shown(count: int | None) -> str:
    return "" if count is None else str(count)
