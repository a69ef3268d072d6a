"""The part `prune`: applies one cut to a checkpoint, or all cuts of an earlier run with what that run has learned."""

from dataclasses import dataclass
from typing import Any

from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.once import Record, once
from lmmpress.errors import UserError
from lmmpress.lmm.checkpoint import add_difference, apply_cuts, read_checkpoint
from lmmpress.lmm.compression_record import continued, cuts_of, read_record
from lmmpress.lmm.verify import verify_cut
from lmmpress.pruning.choose import choose
from lmmpress.pruning.importance import Scores
from lmmpress.settings.schedule import RunEnds


@dataclass(frozen=True)
class Pruned:
    """The digest of the pruned checkpoint, and the part's record."""

    checkpoint: str
    record: Record

    @property
    def seconds(self) -> float:
        """How long pruning took."""
        return self.record.seconds


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
    return Pruned(record.values["checkpoint"], record)


def carry(materials: Materials, checkpoint: str, ends: RunEnds) -> Pruned:
    """Cut a checkpoint as an earlier run has cut its original, and add what that run's distilling changed.

    With O and P the two ends of the earlier run, and `cut` all its cuts together: cut(checkpoint) + (P - cut(O)). The
    difference of weights is a task vector (Ilharco et al., Editing Models with Task Arithmetic, ICLR 2023): what was
    learned for one version is applied to another. Nothing is scored. Raises UserError if the store no longer has one of
    the ends, or if they do not fit.
    """
    anatomy = materials.anatomy_of(checkpoint)

    def work(_: int) -> dict[str, Any]:
        source, original, result = (materials.store.checkpoint(one) for one in (checkpoint, ends.original, ends.result))
        done, all_of_them = (cuts_of(read_record(one) or {"history": []}) for one in (original, result))
        cuts = all_of_them[len(done) :]  # an original that was compressed before has its own
        entries = [{"pruned_from": checkpoint, "cut": cut.as_json()} for cut in cuts]
        record = continued(source, *entries, {"carried_from": ends.result}) | {"teacher": materials.original}
        with materials.store.scratch() as folder:
            try:
                apply_cuts(source, anatomy, cuts, folder / "new")
                apply_cuts(original, read_checkpoint(original), cuts, folder / "old")
                after = read_checkpoint(folder / "new")
                add_difference(folder / "new", after, result, folder / "old", folder / "checkpoint", record)
            except UserError as error:
                said = f"what the earlier run {ends.result[:12]} has learned cannot be carried over: {error}"
                raise UserError(f"{said}; set jumps.carry: false to score and cut anew") from None
            carried = materials.store.add_checkpoint(folder / "checkpoint")
        materials.remember(carried, after)
        return {"checkpoint": carried}

    inputs = {"checkpoint": checkpoint, "teacher": materials.original, "carried_from": ends.model_dump()}
    record = once(materials, "prune", inputs, work)
    return Pruned(record.values["checkpoint"], record)
