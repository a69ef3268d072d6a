"""The part `speed`: measures how fast checkpoints answer, after the last stage.

Where the plan asks for no speed, only the environment is noted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.machine import gauge_for
from lmmpress.engine.parts.models import subject_of
from lmmpress.engine.parts.once import Record, energy_in, once, unreadable
from lmmpress.evaluation.energy import of_inferences
from lmmpress.evaluation.speed import environment, in_all_ways, sampled
from lmmpress.host.energy_use import Energy
from lmmpress.progress import say
from lmmpress.result import Speed


@dataclass(frozen=True)
class Speeds:
    """The speed of each checkpoint, None where the plan asks for none; the environment of the measurement; the energy
    of 1,000 inferences of each, None where it is unknown; and the part's record."""

    speeds: list[Speed] | list[None]
    environment: dict[str, str]
    inferences: Sequence[Energy | None]
    record: Record

    @property
    def seconds(self) -> float:
        """How long measuring took."""
        return self.record.seconds


def speed(materials: Materials, checkpoints: Sequence[str]) -> Speeds:
    """How fast two checkpoints answer; their measurements alternate.

    Raises UserError if this version of lmmpress cannot read the store's record.
    """
    settings = materials.plan.evaluation
    inputs = {
        "checkpoints": list(checkpoints),
        "data": materials.digest("test"),
        "dtype": str(materials.dtype),
        "settings": settings.of_speed(),
    }

    def work(_: int) -> dict[str, Any]:
        about = environment(materials.accelerator.device, materials.dtype)
        if not settings.speed:
            return {"speeds": [], "environment": about}
        rows = sampled(materials.split("test"), settings)
        answers = None
        if not all(row.answer for row in rows.rows):  # then the teacher's answers say how long answers are
            answered, asked = materials.answered("test"), set(rows.rows)
            pairs = zip(answered.split.rows, answered.rows, strict=True)
            answers = {row: example.answer for row, example in pairs if row in asked}
        subjects = [subject_of(materials, checkpoint, rows, answers) for checkpoint in checkpoints]
        gauge = gauge_for(materials, "speed")
        measured = in_all_ways(subjects, settings, gauge)
        energies = [of_inferences(one, gauge) for one in measured]
        for one in energies[:1]:
            say(f"energy is {one.label}: {'; '.join(one.how)}" if one else "nothing tells energy here: docs/energy.md")
        return {
            "speeds": [one.speed().model_dump() for one in measured],
            "environment": about,
            "inferences": [one and one.model_dump(mode="json") for one in energies],
        }

    record = once(materials, "speed", inputs, work)
    nothing = [None for _ in checkpoints]
    if not settings.speed:
        return Speeds([None for _ in checkpoints], record.values["environment"], nothing, record)
    try:
        speeds = [Speed.model_validate(one) for one in record.values["speeds"]]
    except ValidationError:
        speeds = []
    if len(speeds) != len(checkpoints):
        raise unreadable(materials, record, "has speeds that this version of lmmpress cannot read")
    inferences = record.values.get("inferences")  # none in records of older versions
    known = inferences if isinstance(inferences, list) and len(inferences) == len(checkpoints) else nothing
    return Speeds(speeds, record.values["environment"], [energy_in(one) for one in known], record)
