"""The part `speed`: measures how fast checkpoints answer, after the last stage."""

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
    """The speed of each checkpoint, the environment of the measurement, and the seconds that measuring took."""

    speeds: list[Speed]
    environment: dict[str, str]
    seconds: float


def speed(materials: Materials, checkpoints: Sequence[str]) -> Speeds:
    """How fast checkpoints answer; their measurements alternate.

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
        rows = sampled(materials.split("test"), settings)
        measured = measure_speeds([subject_of(materials, checkpoint, rows) for checkpoint in checkpoints], settings)
        about = environment(materials.accelerator.device, materials.dtype)
        return {"speeds": [one.model_dump() for one in measured], "environment": about}

    record = once(materials, "speed", inputs, work)
    try:
        speeds = [Speed.model_validate(one) for one in record.values["speeds"]]
    except ValidationError:
        speeds = []
    if len(speeds) != len(checkpoints):
        raise unreadable(materials, record, "has speeds that this version of lmmpress cannot read")
    return Speeds(speeds, record.values["environment"], record.seconds)
