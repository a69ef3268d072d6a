"""The part `prune`: applies one cut to a checkpoint."""

from dataclasses import dataclass
from typing import Any

from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.once import once
from lmmpress.lmm.checkpoint import apply_cuts
from lmmpress.lmm.compression_record import continued
from lmmpress.lmm.verify import verify_cut
from lmmpress.pruning.choose import choose
from lmmpress.pruning.importance import Scores


@dataclass(frozen=True)
class Pruned:
    """The digest of the pruned checkpoint, and the seconds that pruning took."""

    checkpoint: str
    seconds: float


def prune(materials: Materials, checkpoint: str, tower: str, axis: str, removed: int, scores: Scores | None) -> Pruned:
    """Cut a checkpoint, which is in the store, along an axis."""
    anatomy = materials.anatomy_of(checkpoint)
    cut = choose(anatomy, tower, axis, removed, scores)

    def work(_: int) -> dict[str, Any]:
        source = materials.store.checkpoint(checkpoint)
        with materials.store.scratch() as folder:
            entry = {"pruned_from": checkpoint, "cut": cut.as_json()}
            record = continued(source, entry) | {"teacher": materials.original}
            apply_cuts(source, anatomy, [cut], folder / "checkpoint", record)
            after = verify_cut(source, anatomy, [cut], folder / "checkpoint")
            pruned = materials.store.add_checkpoint(folder / "checkpoint")
        materials.remember(pruned, after)
        return {"checkpoint": pruned}

    inputs = {"checkpoint": checkpoint, "teacher": materials.original, "cut": cut.as_json()}
    record = once(materials, "prune", inputs, work)
    return Pruned(record.values["checkpoint"], record.seconds)
