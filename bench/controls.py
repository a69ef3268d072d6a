"""Measures the controls of pruning in stages, each once on the test split:

- distillation without pruning, for as many epochs as all steps of the run together;
- all cuts at once, then distillation for as many epochs as all steps together;
- all cuts at once, then distillation for the epochs of one step.

    python bench/controls.py [--set KEY=VALUE ...]
"""

import argparse
import sys

from common import sample_materials, show

from lmmpress.axes import axis_named
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.distill import distill
from lmmpress.engine.parts.evaluate import evaluate
from lmmpress.engine.parts.importance import importance
from lmmpress.engine.parts.prune import prune
from lmmpress.evaluation.gate import paired_drop
from lmmpress.pruning.sizes import predict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    changes = dict(pair.split("=", 1) for pair in arguments.overrides)
    changes = {key.replace(".", "__"): value for key, value in changes.items()}
    materials = sample_materials(**changes)
    epochs = materials.plan.distillation.epochs
    planned = len(predict(materials.anatomy, materials.plan)) - 1
    result: dict[str, object] = {"steps": planned, "epochs_by_step": epochs}
    for name, pruned, spent in (
        ("not pruned, all epochs", False, planned * epochs),
        ("one-shot, all epochs", True, planned * epochs),
        ("one-shot, one step's epochs", True, epochs),
    ):
        one = sample_materials(**changes, distillation__epochs=str(spent))
        original = one.original
        checkpoint = all_at_once(one, original) if pruned else original
        before, cut = evaluate(one, original, "test"), evaluate(one, checkpoint, "test")
        distilled = distill(one, checkpoint)
        assert distilled.checkpoint, "the loss stays finite"
        after = evaluate(one, distilled.checkpoint, "test")
        drop = paired_drop(before.values, after.values, one.facts("test").owners(), 0.95)
        result[name] = {
            "original": before.accuracy,
            "before_distilling": cut.accuracy,
            "accuracy": after.accuracy,
            "by_task": one.facts("test").by_task(after.values),
            "drop": drop.value,
            "drop_interval": [drop.interval.low, drop.interval.high],
            "last_loss": distilled.loss[-1],
            "distil_seconds": distilled.seconds,
        }
        print(f"{name}: {result[name]}", file=sys.stderr, flush=True)  # the next takes minutes
    show(result)


def all_at_once(materials: Materials, original: str) -> str:
    """Apply the maximum cut of every stage in order, with new scores for each, without distillation."""
    current = original
    for stage in materials.plan.stages:
        scores = importance(materials, current).scored.scores if axis_named(stage.axis).needs_scores else None
        current = prune(materials, current, "language", stage.axis, stage.numbers()[1], scores).checkpoint
    return current


if __name__ == "__main__":
    main()
