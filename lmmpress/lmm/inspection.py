"""Describes a checkpoint: its towers and widths, and every step that led from its teacher to it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmmpress.axes import axes
from lmmpress.files.digest import digest_checkpoint
from lmmpress.files.own_types import has_own_type
from lmmpress.lmm.anatomy import count_by_tower
from lmmpress.lmm.checkpoint import read_checkpoint
from lmmpress.lmm.compression_record import read_record, stages_of
from lmmpress.printing.numbers import in_short
from lmmpress.printing.sheet import Grid, Part, Shown

_BESIDE_TOWERS = ("embeddings", "heads", "rest")


@dataclass(frozen=True, repr=False)
class Inspection(Shown):
    """A description of a checkpoint, read from its files without loading the model.

    `checkpoint` and `teacher` are digests. `teacher`, `plan` and `run_key` are None for a model that is not compressed.
    `widths` are by tower and axis. `history` has an entry for each cut and each distillation, oldest first.
    """

    checkpoint: str
    family: str
    teacher: str | None
    loads_with: str
    parameters_by_tower: dict[str, int]
    widths: dict[str, dict[str, int]]
    history: list[dict[str, Any]]
    plan: dict[str, Any] | None
    run_key: str | None

    @property
    def parameters(self) -> int:
        """The number of all parameters."""
        return sum(self.parameters_by_tower.values())

    def as_dict(self) -> dict[str, Any]:
        """The output of `lmmpress inspect --json`."""
        return {key: value for key, value in vars(self).items() if key != "run_key"}

    def __repr__(self) -> str:
        towers = ", ".join(f"{name} {in_short(self.parameters_by_tower[name])}" for name in self.widths)
        origin = (
            f"{len(self.history)} changes since teacher {str(self.teacher)[:12]}" if self.history else "an original"
        )
        return f"<{self.family} checkpoint {self.checkpoint[:12]}: {in_short(self.parameters)} ({towers}), {origin}>"

    def shown(self) -> tuple[Part, ...]:
        """The widths by tower, the changes since the teacher, and the plan."""
        parts: list[Part] = [
            f"{self.family} checkpoint {self.checkpoint[:12]}, loads with {self.loads_with}",
            self._towers(),
        ]
        if self.history:
            parts += [f"made from teacher {str(self.teacher)[:12]}:", self._changes()]
        if self.plan:
            stages = ", ".join(f"{name} -{most}" for name, most in stages_of(self.plan))
            alpha = self.plan["tolerance"]["alpha"]
            parts.append(f"by a plan of {stages}, with alpha {alpha} (run {str(self.run_key)[:12]})")
        return tuple(parts)

    def _towers(self) -> Grid:
        counts = {name: in_short(count) for name, count in self.parameters_by_tower.items()}
        names = [axis.name for axis in axes()]
        towers = [
            (tower, *(str(widths.get(name, "")) for name in names), counts[tower])
            for tower, widths in self.widths.items()
        ]
        others = [(name, *("" for _ in names), counts[name]) for name in _BESIDE_TOWERS]
        return Grid(("tower", *names, "parameters"), (*towers, *others))

    def _changes(self) -> Grid:
        rows = []
        for entry in self.history:
            rows.append((str(entry["made_from"])[:12], _what(entry)))
        return Grid(("from", "what"), tuple(rows))


def inspect_checkpoint(directory: Path) -> Inspection:
    """Describe the checkpoint in a directory. Raises UserError if there is none, or if it is damaged."""
    anatomy = read_checkpoint(directory)
    record = read_record(directory) or {}
    return Inspection(
        checkpoint=digest_checkpoint(directory),
        family=anatomy.family,
        teacher=record.get("teacher"),
        loads_with="trust_remote_code=True" if has_own_type(anatomy.config) else "plain transformers",
        parameters_by_tower=count_by_tower(anatomy),
        widths={
            name: {axis: body.width for axis, body in tower.axes.items()} for name, tower in anatomy.towers.items()
        },
        history=[_change(entry) for entry in record.get("history", [])],
        plan=record.get("plan"),
        run_key=record.get("run_key"),
    )


def _what(change: dict[str, Any]) -> str:
    if change.get("carried"):
        return "what distilling had changed there, carried over"
    return "distilled" if change.get("distilled") else f"{change['axis']} of {change['tower']} -{change['removed']}"


def _change(entry: dict[str, Any]) -> dict[str, Any]:
    """One entry of a record: the checkpoint it started from, and the cut, `distilled` or `carried`."""
    if carried := entry.get("carried_from"):
        return {"made_from": carried, "carried": True}
    made_from = {"made_from": entry.get("pruned_from") or entry.get("distilled_from")}
    cut = entry.get("cut")
    if not cut:
        return made_from | {"distilled": True}
    # `amount` is the older name of the same number; it goes with the next release
    return made_from | {"tower": cut["tower"], "axis": cut["axis"], "removed": cut["amount"], "amount": cut["amount"]}
