"""lmmpress itself: its criteria for widths, with repair and without, and blocks at once or in steps. Random dimensions,
the plainest of all ways, are one of its criteria."""

from collections.abc import Callable, Mapping
from typing import Any

from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.distill import distill
from lmmpress.engine.parts.importance import importance
from lmmpress.engine.parts.prune import prune
from lmmpress.plan import parse_plan
from lmmpress.presets import preset
from lmmpress.pruning.importance import Scores
from peers.peer import TOWER, Case, Peer

WIDTHS = ("ffn", "attention", "io")
STEPS = (6, 4)  # the block stage of lmmpress/presets/sample.yaml

TAYLOR = {"criterion": "taylor", "accumulation": "dataset"}  # a plan's default: the paper's choice
MAGNITUDE = {"criterion": "magnitude"}  # lmmpress/presets/sample.yaml
REPAIR = MAGNITUDE | {"refit_rows": 512}  # as bench/refit.py
RANDOM = {"criterion": "random"}


def by_scores(case: Case, scores: Scores | None) -> str:
    """The checkpoint without the least important dimensions; without scores the last blocks go."""
    return prune(case.materials, case.start, TOWER, case.task.axis, case.task.removed, scores).checkpoint


def by_criterion(settings: Mapping[str, Any]) -> Callable[[Case], str]:
    """Cuts by one of lmmpress's criteria; with `refit_rows` it repairs what is left."""
    asked = dict(settings)
    rows = asked.pop("refit_rows", 0)

    def cut(case: Case) -> str:
        changes = [f"importance.{key}={value}" for key, value in asked.items()]
        plan = parse_plan(preset("sample"), (f"seed={case.seed}", *changes))
        materials = Materials(plan, case.materials.store, case.materials.original)
        pruned = by_scores(case, importance(materials, case.start).scored.scores)
        return learned(case, pruned, epochs=0, refit_rows=rows) if rows else pruned

    return cut


def last_blocks(case: Case) -> str:
    return by_scores(case, None)


def in_steps(case: Case) -> str:
    """The last blocks go in the preset's steps, with an epoch after every step but the last."""
    current = case.start
    for step in STEPS:
        if current != case.start:
            current = learned(case, current, epochs=1)
        current = prune(case.materials, current, TOWER, "block", step, None).checkpoint
    return current


def learned(case: Case, checkpoint: str, **changes: Any) -> str:
    """The checkpoint after lmmpress's distillation, with changed settings."""
    found = distill(case.materials, checkpoint, case.materials.plan.distillation.model_copy(update=changes)).checkpoint
    assert found, "the loss stays finite"
    return found


PEERS = (
    Peer("lmmpress, last blocks", last_blocks, ("block",)),
    Peer(
        "lmmpress, last blocks in two steps", in_steps, ("block",), {"steps": STEPS}, only=("12 to 2 blocks",), epochs=1
    ),
    Peer("lmmpress, taylor", by_criterion(TAYLOR), WIDTHS, TAYLOR),
    Peer("lmmpress, magnitude", by_criterion(MAGNITUDE), WIDTHS, MAGNITUDE),
    Peer("lmmpress, magnitude and repair", by_criterion(REPAIR), WIDTHS, REPAIR),
    Peer("random", by_criterion(RANDOM), WIDTHS, RANDOM),
)
