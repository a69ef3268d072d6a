"""Compares importance criteria: loss and accuracy on the gate split after equal cuts by each, without distillation.

    python bench/criteria.py [--checkpoint DIR] [--rows 500] [--seeds 3]

The language tower of the checkpoint (by default the sample model) loses half of an axis, and a quarter. Random cuts are
repeated with several seeds. Scores use only the score split; the test split is not used.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from common import on_gate, sample_materials, show, spread

from lmmpress.axes import axes
from lmmpress.lmm.batches import Batches, grouped
from lmmpress.lmm.checkpoint import apply_cuts, load_model, read_checkpoint
from lmmpress.pruning.choose import choose
from lmmpress.pruning.importance import answer_loss, score
from lmmpress.settings.importance import Importance

CRITERIA: dict[str, dict[str, Any]] = {
    "dataset": {"accumulation": "dataset"},
    "batch": {"accumulation": "batch"},
    "sample": {"accumulation": "sample"},
    "sample, all owned": {"accumulation": "sample", "owned": "all"},
    "magnitude": {"criterion": "magnitude"},
    "random": {"criterion": "random"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    materials = sample_materials(importance__rows=str(arguments.rows))
    checkpoint = arguments.checkpoint or materials.teacher
    model, anatomy = load_model(checkpoint), read_checkpoint(checkpoint)
    examples = materials.examples("score")
    result: dict[str, Any] = {"uncut": on_gate(materials, model)}
    for name, changes in CRITERIA.items():
        settings = Importance(**changes)
        size = 1 if settings.accumulation == "sample" else 32
        scoring_batches = Batches(examples, grouped(examples, size), materials.features("score"))
        seeds = range(arguments.seeds) if settings.criterion == "random" else range(1)
        for seed in seeds:
            scored = score(
                model,
                anatomy,
                scoring_batches,
                len(examples.rows),
                lambda batch: answer_loss(materials.logits(model, batch), batch),
                settings,
                torch.Generator().manual_seed(seed),
            )
            for axis in (one.name for one in axes() if one.needs_scores):
                body = anatomy.axis("language", axis)
                for share in (4, 2):
                    removed = body.width // share // body.unit * body.unit
                    cut = choose(anatomy, "language", axis, removed, scored.scores)
                    with tempfile.TemporaryDirectory() as folder:
                        apply_cuts(checkpoint, read_checkpoint(checkpoint), [cut], Path(folder) / "cut")
                        found = on_gate(materials, load_model(Path(folder) / "cut"))
                    row = result.setdefault(f"{axis} -1/{share}", {})
                    row.setdefault(name, []).append(found)
            result.setdefault("reliability", {})[name] = scored.reliability
    for key, row in result.items():
        if " -1/" in key:
            for name, found in row.items():
                row[name] = {what: spread([one[what] for one in found])["median"] for what in ("loss", "accuracy")} | (
                    {"loss_range": [min(one["loss"] for one in found), max(one["loss"] for one in found)]}
                    if len(found) > 1
                    else {}
                )
    show(result)


if __name__ == "__main__":
    main()
