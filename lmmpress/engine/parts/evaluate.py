"""The part `evaluate`: measures which rows a checkpoint answers right."""

from dataclasses import dataclass
from typing import Any

import torch

from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.models import model_of
from lmmpress.engine.parts.once import Inputs, once, unreadable
from lmmpress.evaluation.accuracy import answered_right
from lmmpress.result import Role


@dataclass(frozen=True)
class Evaluated:
    """Which rows are answered right, booleans [rows], and the seconds that measuring took."""

    right: torch.Tensor
    seconds: float

    @property
    def accuracy(self) -> float:
        """The share of rows that are answered right."""
        return float(self.right.double().mean())


def evaluate(materials: Materials, checkpoint: str, role: Role) -> Evaluated:
    """Which rows of a role a checkpoint answers right.

    Raises UserError if the store's record has a different number of rows.
    """
    inputs: Inputs = {
        "checkpoint": checkpoint,
        "data": materials.split(role).digest,
        "dtype": str(materials.dtype),
    }
    if len(materials.ends) > 1:  # a single end token is the one in every answer, so the name need not include it
        inputs["ends"] = sorted(materials.ends)

    def work(_: int) -> dict[str, Any]:
        examples = materials.examples(role)
        model = model_of(materials, checkpoint)
        size = materials.plan.evaluation.batch_size
        features, projector = materials.features(role), materials.anatomy.projector
        right = answered_right(model, examples, projector, features, size, materials.ends)
        return {"right": "".join("1" if hit else "0" for hit in right.tolist())}

    record = once(materials, "evaluate", inputs, work)
    marks = record.values["right"]
    if len(marks) != len(materials.split(role).rows):
        raise unreadable(materials, record, "has a different number of rows than the data")
    return Evaluated(torch.tensor([mark == "1" for mark in marks]), record.seconds)
