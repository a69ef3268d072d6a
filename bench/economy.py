"""Measures what each economy of a training saves, and what it costs.

    python bench/economy.py [--width 1024] [--blocks 10] [--rows 2048] [--epochs 2]

Memory: the peak of distilling a random BLIP-2 with rows of a few bytes, above what the process has before its student
is loaded, against what the library predicts and by which it chooses (`predicted_over_measured`), and in bytes for each
parameter that is trained. Loss: that of the last epoch on the built-in sample without a block, over that without an
economy. Each economy has a process of its own, since memory that a process has used before hides its later needs.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from common import Peak, sample_materials, show

ROOT = Path(__file__).resolve().parent.parent

WAYS: dict[str, dict[str, str]] = {
    "none": {"recompute": "never", "optimizer": "adamw", "weights": "float32"},
    "recomputation": {"recompute": "always", "optimizer": "adamw", "weights": "float32"},
    "8-bit averages": {"recompute": "always", "optimizer": "adamw8bit", "weights": "float32"},
    "bfloat16 weights": {"recompute": "always", "optimizer": "adamw8bit", "weights": "bfloat16"},
}
"""Each with those before it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, number in {"width": 1024, "blocks": 10, "rows": 2048, "epochs": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--only", choices=WAYS)
    parser.add_argument("--what", choices=("memory", "loss"))
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps((memory if arguments.what == "memory" else loss)(arguments)))
        return
    found: dict[str, dict[str, Any]] = {}
    for way in WAYS:
        found[way] = {}
        for what in ("memory", "loss"):
            command = [sys.executable, "-W", "ignore", *sys.argv, "--only", way, "--what", what]
            printed = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, encoding="utf-8").stdout
            found[way] |= json.loads(printed.splitlines()[-1])
            print(way, found[way], file=sys.stderr)
    for each in found.values():
        each["loss_over_none"] = each["loss"] / found["none"]["loss"]
    show({"rows": arguments.rows, "epochs": arguments.epochs} | found)


def memory(arguments: argparse.Namespace) -> dict[str, float]:
    """The peak of one training, what was predicted of it, and the parameters that it trained."""
    sys.path.insert(0, str(ROOT / "tests"))
    from memory import random_model

    from lmmpress.engine.materials import Materials
    from lmmpress.engine.parts import economy, training
    from lmmpress.engine.parts.lesson import lesson_of, settle_teacher
    from lmmpress.plan import parse_plan
    from lmmpress.pruning.memory import training_bytes
    from lmmpress.store import open_store

    with tempfile.TemporaryDirectory() as name:
        raw = random_model(Path(name), arguments.width, arguments.blocks)
        raw["distillation"] |= WAYS[arguments.only]
        plan = parse_plan(raw)
        store = open_store(str(Path(name) / "store"))
        materials = Materials(plan, store, store.add_checkpoint(Path(plan.model)))
        settings, learn, seen = plan.distillation, training.distill, []
        lesson = lesson_of(materials, materials.original, "whole", settings, None)
        settle_teacher(materials, lesson, settings)
        assert materials.teacher_head is not None, "it is there before, so it does not count"
        gc.collect()

        def measured(learner: Any, *given: Any) -> Any:
            whole = economy._trainings(materials, materials.original, "whole", lesson, learner.model)
            sizes = whole(settings.rows_at_once)
            seen.append((training_bytes(sizes, settings.economy()) - _head(materials), sizes.trained))
            return learn(learner, *given)

        # what is written is read back, which takes memory of its own
        own = patch.multiple(training, distill=measured, save_trained=_stop)
        with own, Peak() as peak, suppress(_EndedError):
            training.train(materials, materials.original, 1, settings)
        (predicted, trained), *_ = seen
    return {
        "predicted_over_measured": predicted / peak.bytes,
        "bytes_for_each_trained": peak.bytes / trained,
        "measured_mb": peak.bytes / 2**20,
    }


class _EndedError(Exception):
    """A training has ended."""


def _stop(*_: Any) -> None:
    raise _EndedError


def _head(materials: Any) -> int:
    return sum(one.nbytes for one in materials.teacher_head.parameters())


def loss(arguments: argparse.Namespace) -> dict[str, float]:
    """The loss of the last epoch on the sample."""
    from lmmpress.engine.parts.prune import prune
    from lmmpress.engine.parts.training import train

    settings = {f"distillation__{name}": value for name, value in WAYS[arguments.only].items()}
    sizes = {"distillation__rows": str(arguments.rows), "distillation__epochs": str(arguments.epochs)}
    materials = sample_materials(**settings, **sizes)
    student = prune(materials, materials.original, "language", "block", 1, None).checkpoint
    return {"loss": train(materials, student, 1, materials.plan.distillation).loss[-1]}


if __name__ == "__main__":
    main()
