"""The part `evaluate`: measures which rows a checkpoint answers right."""

from dataclasses import dataclass
from typing import Any

from lmmpress.data.facts import Marks
from lmmpress.engine.materials import Materials
from lmmpress.engine.measured import marks_of
from lmmpress.engine.parts.models import model_of
from lmmpress.engine.parts.once import Inputs, Record, once, unreadable
from lmmpress.evaluation.accuracy import answered_right
from lmmpress.result import Role


@dataclass(frozen=True)
class Evaluated:
    """Which rows are answered right, booleans [rows], the seconds that measuring took, and the record of both."""

    right: Marks
    record: Record

    @property
    def seconds(self) -> float:
        return self.record.seconds

    @property
    def accuracy(self) -> float:
        """The share of rows that are answered right."""
        return float(self.right.mean())


def evaluate(materials: Materials, checkpoint: str, role: Role) -> Evaluated:
    """Which rows of a role a checkpoint answers right.

    Raises UserError if the store's record has a different number of rows.
    """
    inputs: Inputs = {
        "checkpoint": checkpoint,
        "data": materials.digest(role),
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
    right = marks_of(record.values["right"])
    if len(right) != materials.facts(role).rows:
        raise unreadable(materials, record, "has a different number of rows than the data")
    return Evaluated(right, record)
