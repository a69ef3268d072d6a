"""The part `importance` (Eq. 1-4): scores every dimension of a checkpoint."""

from dataclasses import dataclass
from typing import Any

from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.launch import score_in_processes
from lmmpress.engine.parts.once import Record, inputs_of, name_of, once
from lmmpress.engine.parts.scoring import scores_of
from lmmpress.errors import UserError
from lmmpress.pruning.importance import Scored, other_axes


@dataclass(frozen=True)
class Importances:
    """The scores of every group of a checkpoint, and the part's record."""

    scored: Scored
    record: Record

    @property
    def seconds(self) -> float:
        """How long scoring took."""
        return self.record.seconds


def importance(materials: Materials, checkpoint: str) -> Importances:
    """The scores of every group of a checkpoint, computed in as many processes as the plan says.

    Raises UserError if their record is in the store but their tensors are missing.
    """
    settings, others = materials.plan.importance, other_axes(stage.axis for stage in materials.plan.stages)
    lasting = settings.model_dump(exclude={"processes"})
    inputs = inputs_of(materials, checkpoint, materials.digest("score"), settings=lasting)
    if others:  # without other axes the name stays as in earlier versions
        inputs["axes"] = others
    name = name_of("importance", inputs)

    def work(seed: int) -> dict[str, Any]:
        if settings.criterion == "taylor" and settings.processes > materials.accelerator.num_processes:
            scored = score_in_processes(materials, checkpoint, seed)
        else:
            scored = scores_of(materials, checkpoint, seed)
        materials.store.write_tensors(name, {key: value.cpu() for key, value in scored.scores.items()})
        return {"reliability": scored.reliability}

    record = once(materials, "importance", inputs, work)
    scores = materials.store.read_tensors(name)
    if scores is None:
        raise UserError(
            f"{materials.store.root_address}: tensors/{name}.json is missing; `lmmpress store verify --discard` "
            "removes the record that needs it, then the scores are computed again"
        )
    return Importances(Scored(scores, record.values["reliability"]), record)
