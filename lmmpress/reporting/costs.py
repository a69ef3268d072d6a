"""What a run cost, for its page: where the time went, and the energy."""

from typing import NamedTuple

from lmmpress.host.energy_use import Energy
from lmmpress.printing.numbers import in_kwh
from lmmpress.reporting import words
from lmmpress.reporting.charts import PARTS
from lmmpress.result import Result, RunEnergy, StepResult

_THE_RUN = "the run itself"


class PartTime(NamedTuple):
    """The time and energy of a part of a run, and the part's share of all time."""

    name: str
    seconds: float
    share: float
    energy: str


class StepTime(NamedTuple):
    """The seconds of each part of a step, in the order of `PARTS`, and of all of them; None for a part that had
    nothing to do."""

    name: str
    parts: list[float | None]
    seconds: float


class Times(NamedTuple):
    """Where the time of a run went. `found` are seconds of parts that were not computed by the process that ended the
    run; None where that is not known."""

    by_part: list[PartTime]
    by_step: list[StepTime]
    seconds: float
    found: float | None


def times(result: Result) -> Times:
    """Where the time went: both lists add up to `seconds`."""
    rest = {} if result.own_seconds is None else {_THE_RUN: result.own_seconds}
    parts = result.seconds_by_part | rest
    whole = sum(parts.values())
    energies = result.energy.by_part if result.energy else {}
    by_part = [
        PartTime(part, seconds, seconds / whole if whole else 0.0, _kwh(energies.get(part)))
        for part, seconds in parts.items()
    ]
    steps = [_step(number, step) for number, step in enumerate(result.steps, start=1)]
    in_steps = {part: sum(step.seconds.get(part, 0.0) for step in result.steps) for part in parts}
    others = {part: max(0.0, seconds - in_steps[part]) for part, seconds in parts.items()}
    first = others.pop("evaluate", 0.0)
    others = {"the original, before the first step": first} | others
    by_step = steps + [
        StepTime(name, [None] * len(PARTS), seconds) for name, seconds in others.items() if seconds > 1e-6
    ]
    found = None if result.own_seconds is None else max(0.0, whole - result.seconds)
    return Times(by_part, by_step, whole, found if found is None or found > 1 else 0.0)


def _step(number: int, step: StepResult) -> StepTime:
    name = f"{number} {step.title}"
    return StepTime(name, [step.seconds.get(part) for part in PARTS], sum(step.seconds.values()))


def _kwh(energy: Energy | None) -> str:
    return words.MISSING if energy is None else in_kwh(energy.kwh)


class EnergyShown(NamedTuple):
    """The energy of a run in words: of 1,000 inferences of both models, None where it is unknown; and sentences."""

    inferences: tuple[str, str, str, str] | None
    sentences: list[str]


def energy_shown(energy: RunEnergy) -> EnergyShown:
    """What the energy of a run says to people."""
    inferences = None
    sentences = []
    if energy.original and energy.compressed:
        old, new = energy.original, energy.compressed
        change = f"{words.factor(old.kwh, new.kwh)} less" if old.kwh > new.kwh else "not less"
        inferences = (in_kwh(old.kwh), in_kwh(new.kwh), change, new.label)
        sentences.append(f"Inference is {new.label}: {'; '.join(new.how)}.")
    least = "" if energy.is_whole else "at least "
    if took := energy.compression:
        sentences.append(f"Compressing took {least}{in_kwh(took.kwh)}, {took.label}: {'; '.join(took.how)}.")
    if inferences:
        sentences += _paid_back(energy, least)
    return EnergyShown(inferences, sentences)


def _paid_back(energy: RunEnergy, least: str) -> list[str]:
    said = []
    if energy.saved is not None and energy.saved <= 0:
        said.append("The compressed model does not take less energy, so nothing pays the compression back.")
    elif energy.break_even is not None:
        said.append(
            f"After {least}{words.count(energy.break_even)} inferences the compressed model has saved what compressing "
            "took."
        )
    if energy.inferences_per_year and energy.saved_per_year is not None:
        much = in_kwh(abs(energy.saved_per_year))
        what = f"saves {much}" if energy.saved_per_year >= 0 else f"takes {much} more"
        said.append(f"At {words.count(energy.inferences_per_year)} inferences a year it {what} a year.")
    return said
