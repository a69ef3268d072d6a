"""Measures what refitting after a cut is worth: gate accuracy and loss with it and without it, by criterion and seed.

    python bench/refit.py [--seeds 3] [--rows 2250]

For each seed the sample's block stage is made once, on so many rows. Then each axis alone is cut by half, the
input/output width by a quarter, by every criterion, and measured before and after refitting, without distillation. At
last FFN, attention and input/output width are cut at once, as far as the preset goes and by its criterion, and
distilled for one epoch with refitting and without. The test split is not used.
"""

import argparse
import sys

from common import on_gate, sample_materials, show, spread

from lmmpress.axes import axis_named
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.distill import distill
from lmmpress.engine.parts.importance import importance
from lmmpress.engine.parts.prune import prune
from lmmpress.lmm.checkpoint import load_model

CRITERIA: dict[str, dict[str, str]] = {
    "magnitude": {"criterion": "magnitude"},
    "taylor": {"criterion": "taylor", "accumulation": "sample"},
    "fisher": {"criterion": "fisher", "accumulation": "sample"},
    "fisher, temperature 3": {"criterion": "fisher", "accumulation": "sample", "temperature": "3"},
    "random": {"criterion": "random"},
}
REFIT_ROWS = 512
SINGLE = {"ffn": 2, "attention": 2, "io": 4}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=2250)
    arguments = parser.parse_args()
    found: dict[str, dict[str, list[dict[str, float]]]] = {}

    def note(what: str, criterion: str, measured: dict[str, float]) -> None:
        found.setdefault(what, {}).setdefault(criterion, []).append(measured)
        print(what, criterion, measured, file=sys.stderr, flush=True)

    for seed in range(arguments.seeds):
        changes = {"seed": str(seed), "distillation__rows": str(arguments.rows)}
        first = sample_materials(**changes)
        start = blocks(first)
        note("after the block stage", "none", measure(first, start))
        for name, settings in CRITERIA.items():
            asked = {f"importance__{key}": value for key, value in settings.items()}
            materials = Materials(sample_materials(**changes, **asked).plan, first.store, first.original)
            for axis, part in SINGLE.items():
                cut = one_cut(materials, start, axis, part)
                note(f"{axis} -1/{part}", name, measure(materials, cut))
                note(f"{axis} -1/{part}, refitted", name, measure(materials, refitted(materials, cut)))
        cut = all_cuts(first, start)
        note("all", "magnitude", measure(first, cut))
        note("all, refitted", "magnitude", measure(first, refitted(first, cut)))
        note("all, distilled", "magnitude", measure(first, learned(first, cut, 0)))
        note("all, refitted, distilled", "magnitude", measure(first, learned(first, cut, REFIT_ROWS)))
    show(
        {
            what: {
                name: {key: spread([one[key] for one in each]) for key in ("loss", "accuracy")}
                for name, each in by_criterion.items()
            }
            for what, by_criterion in found.items()
        }
        | {"rows": arguments.rows}
    )


def blocks(materials: Materials) -> str:
    """The checkpoint after the sample's block stage."""
    current, stage = materials.original, materials.plan.stage("block")
    for removed in stage.removals():
        current = learned(materials, prune(materials, current, "language", "block", removed, None).checkpoint, 0)
    return current


def one_cut(materials: Materials, start: str, axis: str, part: int) -> str:
    body = materials.anatomy_of(start).axis("language", axis)
    removed = body.width // part // body.unit * body.unit
    scores = importance(materials, start).scored.scores
    return prune(materials, start, "language", axis, removed, scores).checkpoint


def all_cuts(materials: Materials, start: str) -> str:
    """The maximum cut of every stage but blocks, without distillation."""
    current = start
    for stage in materials.plan.stages:
        if axis_named(stage.axis).needs_scores:
            removed = sum(stage.removals())
            scores = importance(materials, current).scored.scores
            current = prune(materials, current, "language", stage.axis, removed, scores).checkpoint
    return current


def refitted(materials: Materials, cut: str) -> str:
    settings = materials.plan.distillation.model_copy(update={"epochs": 0, "refit_rows": REFIT_ROWS})
    found = distill(materials, cut, settings).checkpoint
    assert found, "without epochs no loss can be infinite"
    return found


def learned(materials: Materials, cut: str, refit_rows: int) -> str:
    found = distill(materials, cut, materials.plan.distillation.model_copy(update={"refit_rows": refit_rows}))
    assert found.checkpoint, "the loss stays finite"
    return found.checkpoint


def measure(materials: Materials, checkpoint: str) -> dict[str, float]:
    return on_gate(materials, load_model(materials.store.checkpoint(checkpoint)))


if __name__ == "__main__":
    main()
