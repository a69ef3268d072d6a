"""The part `speed`: measures how fast checkpoints answer, after the last stage.

Where the plan asks for no speed, only the environment is noted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.models import subject_of
from lmmpress.engine.parts.once import once, unreadable
from lmmpress.evaluation.speed import environment, measure_speeds, sampled
from lmmpress.result import Speed


@dataclass(frozen=True)
class Speeds:
    """The speed of each checkpoint, None where the plan asks for none; the environment of the measurement, and the
    seconds that measuring took."""

    speeds: list[Speed] | list[None]
    environment: dict[str, str]
    seconds: float


def speed(materials: Materials, checkpoints: Sequence[str]) -> Speeds:
    """How fast two checkpoints answer; their measurements alternate.

    Raises UserError if this version of lmmpress cannot read the store's record.
    """
    settings = materials.plan.evaluation
    inputs = {
        "checkpoints": list(checkpoints),
        "data": materials.digest("test"),
        "dtype": str(materials.dtype),
        "settings": settings.model_dump(),
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
        measured = measure_speeds(subjects, settings)
        return {"speeds": [one.model_dump() for one in measured], "environment": about}

    record = once(materials, "speed", inputs, work)
    if not settings.speed:
        return Speeds([None for _ in checkpoints], record.values["environment"], record.seconds)
    try:
        speeds = [Speed.model_validate(one) for one in record.values["speeds"]]
    except ValidationError:
        speeds = []
    if len(speeds) != len(checkpoints):
        raise unreadable(materials, record, "has speeds that this version of lmmpress cannot read")
    return Speeds(speeds, record.values["environment"], record.seconds)
