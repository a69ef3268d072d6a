"""The outcome of an experiment: what tables and plots need of it, small enough to be kept in the repository."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict

from lmmpress.host.energy_use import Energy
from lmmpress.result import Result, StepResult

WATTS = 10.0
"""The watts of a core in every plan here: an estimate of energy over these is processor time."""
WORK = ("importance", "prune", "distill")
"""The parts of a step that make a model; the others measure it."""


class Note(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StepNote(Note):
    """A step, with its accuracies on the gate split. `language` are the parameters of the language tower, which the
    paper counts. `processor` is the processor time of each part in seconds, or its
    wall time where energy says nothing about processors."""

    stage: str
    decision: str
    parameters: int
    language: int
    before: float | None
    after: float | None
    reference: float
    checkpoint: str | None
    processor: dict[str, float]

    @property
    def work(self) -> float:
        """The processor time of all that makes the model."""
        return sum(self.processor.get(part, 0.0) for part in WORK)


class EndNote(Note):
    """A checkpoint on the test split. `faster` are its samples/s over those of the original, which took turns with
    it."""

    parameters: int
    language: int
    accuracy: float
    by_task: dict[str, float]
    faster: float | None


class Outcome(Note):
    """What an experiment found. `parameters` and `language` are those of the original, `rows` those of the split that
    was measured, `faster` the samples/s of the result over those of the original, if the run measured speed; `ends`
    are the checkpoints of an experiment that measures some."""

    steps: tuple[StepNote, ...] = ()
    parameters: int = 0
    language: int = 0
    rows: int = 0
    original: str = ""
    faster: float | None = None
    ends: dict[str, EndNote] = {}

    @property
    def kept(self) -> list[StepNote]:
        """The steps that led to the result."""
        return [step for step in self.steps if step.decision != "rolled back"]

    @property
    def accuracy(self) -> float | None:
        """The accuracy of the result on the gate split; None if a loss was not finite."""
        if not self.steps:
            return None
        return self.kept[-1].after if self.kept else self.start

    @property
    def start(self) -> float:
        """The accuracy of the original on the gate split."""
        return self.steps[0].reference

    @property
    def lowest(self) -> float | None:
        """The lowest accuracy of a distilled step."""
        return min((step.after for step in self.steps if step.after is not None), default=None)

    @property
    def size(self) -> int:
        """The parameters of the result's language tower."""
        return self.kept[-1].language if self.kept else self.language

    @property
    def size_of_all(self) -> int:
        """The parameters of the result, all towers, embeddings and heads together."""
        return self.kept[-1].parameters if self.kept else self.parameters

    @property
    def work(self) -> float:
        """The processor time of all that makes the model."""
        return sum(step.work for step in self.steps)


def steps_of(steps: Iterable[StepResult]) -> tuple[StepNote, ...]:
    """The notes of a run's steps."""
    return tuple(
        StepNote(
            stage=step.stage,
            decision=step.decision,
            parameters=step.parameters,
            language=step.parameters_by_tower["language"],
            before=_short(step.accuracy_pruned),
            after=_short(step.accuracy),
            reference=round(step.reference, 6),
            checkpoint=step.checkpoint,
            processor={
                part: processor_time_of(step.energy.get(part), seconds) for part, seconds in step.seconds.items()
            },
        )
        for step in steps
    )


def outcome_of_run(result: Result) -> Outcome:
    """What is noted of a run. Its measurements on the test split are left out."""
    before, after = result.original.samples_per_second, result.compressed.samples_per_second
    return Outcome(
        steps=steps_of(result.steps),
        parameters=result.original.parameters,
        language=result.original.parameters_by_tower["language"],
        rows=next(info.rows for info in result.data if info.role == "gate"),
        original=result.original.checkpoint,
        faster=round(after / before, 4) if before and after else None,
    )


def outcome_of_comparisons(original: str, compared: dict[str, dict[str, Any]]) -> Outcome:
    """What is noted of checkpoints that `lmmpress compare` has put beside the `original` on the test split, by their
    names."""
    first = next(iter(compared.values()))
    ends = {original: _end_of(first["a"], 1.0)}
    for name, one in compared.items():
        speeds = [one[side]["speed"] for side in ("a", "b")]
        before, after = (speed["samples_per_second"] if speed else None for speed in speeds)
        ends[name] = _end_of(one["b"], round(after / before, 4) if before and after else None)
    return Outcome(rows=first["data"]["rows"], ends=ends)


def _end_of(checkpoint: dict[str, Any], faster: float | None) -> EndNote:
    return EndNote(
        parameters=checkpoint["parameters"],
        language=checkpoint["parameters_by_tower"]["language"],
        accuracy=checkpoint["accuracy"],
        by_task=checkpoint["accuracy_by_task"],
        faster=faster,
    )


def processor_time_of(energy: Energy | None, seconds: float) -> float:
    """The processor time of a part in seconds: an estimate of its energy is that, times watts. Where counters tell the
    energy, or a GPU took some of it, the seconds that passed."""
    if energy is None or energy.how != (f"{WATTS:g} W a core, times CPU seconds",):
        return round(seconds, 2)
    return round(energy.kwh * 3_600_000 / WATTS, 2)


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
