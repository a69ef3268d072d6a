"""What pruning in stages is compared with, on the test split once each:

- distilled without pruning, for as many epochs as the run's steps had together;
- all cuts at once, then as many epochs together;
- all cuts at once, then the epochs of one step.

    python bench/controls.py [--set KEY=VALUE ...]
"""

import argparse
import sys

from common import sample_materials, show

from lmmpress.axes import axis_named
from lmmpress.engine import steps
from lmmpress.evaluation.accuracy import by_task, image_of_row
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
        before, _ = steps.evaluate(one, original, "test")
        cut, _ = steps.evaluate(one, checkpoint, "test")
        distilled, loss, seconds = steps.distill(one, checkpoint)
        after, _ = steps.evaluate(one, distilled, "test")
        drop, interval = paired_drop(before, after, image_of_row(one.examples["test"].split), 0.95)
        result[name] = {
            "original": float(before.double().mean()),
            "before_distilling": float(cut.double().mean()),
            "accuracy": float(after.double().mean()),
            "by_task": by_task(one.examples["test"].split, after),
            "drop": drop,
            "drop_interval": [interval.low, interval.high],
            "last_loss": loss[-1],
            "distil_seconds": seconds,
        }
        print(f"{name}: {result[name]}", file=sys.stderr, flush=True)  # the next takes minutes
    show(result)


def all_at_once(materials, original: str) -> str:
    """Every stage's maximum cut in turn, scored each time, never distilled."""
    current = original
    for stage in materials.plan.stages:
        scores = steps.importance(materials, current)[0].scores if axis_named(stage.axis).needs_scores else None
        current, _ = steps.prune(materials, current, "language", stage.axis, stage.max, scores)
    return current


if __name__ == "__main__":
    main()
