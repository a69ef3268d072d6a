"""Compares `learning_rate: auto` with fixed rates on the first and the last step of a run of the sample.

    python bench/learning_rate.py [--rows 2250] [--seeds 0 1] [--rates 3e-5 6e-4]

A run of the sample on so many distillation rows keeps every step, whatever it loses. Then the models that its first and
its last step have cut are distilled again with each rate: 3e-5 is a plan's default, 6e-4 the preset's, which was chosen
by hand. Accuracies are those on the gate split; `trials_share` is the rows of the trials over those of the training.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import show

from lmmpress.distillation import learning_rate
from lmmpress.engine.compression import compress
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.distill import distill
from lmmpress.engine.parts.evaluate import evaluate
from lmmpress.lmm.checkpoint import read_record
from lmmpress.plan import Plan, parse_plan
from lmmpress.presets import preset
from lmmpress.result import StepResult
from lmmpress.store import Store, open_store

KEPT = "tolerance={alpha: 0.99, on_violation: keep, allow_zero: true}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2250)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-5, 6e-4])
    arguments = parser.parse_args()
    settings = (KEPT, f"distillation.rows={arguments.rows}", "evaluation.speed=false")
    folder = Path(tempfile.mkdtemp(prefix="lmmpress-rates-"))
    result = compress(parse_plan(preset("sample"), settings), folder)
    store = open_store(str(folder / "store"))
    found: dict[str, Any] = {"rows": arguments.rows}
    for name, step in {"first step": result.steps[0], "last step": result.steps[-1]}.items():
        found[name] = {"parameters": step.parameters, "pruned": step.accuracy_pruned}
        for rate in [*arguments.rates, "auto"]:
            found[name][str(rate)] = []
            for seed in arguments.seeds:
                changes = (*settings, f"seed={seed}", f"distillation.learning_rate={rate}")
                one = measured(parse_plan(preset("sample"), changes), store, result.original.checkpoint, step)
                found[name][str(rate)].append(one)
                print(json.dumps({name: {str(rate): one}}), file=sys.stderr, flush=True)
    show(found)


def measured(plan: Plan, store: Store, original: str, step: StepResult) -> dict[str, Any]:
    """The cut model of a step, distilled as the plan says."""
    materials = Materials(plan, store, original)
    history = (read_record(store.checkpoint(step.checkpoint or "")) or {})["history"]
    seen, whole = Counted(), len(materials.lessons("distill").rows) * plan.distillation.epochs
    with seen:
        distilled = distill(materials, history[-1]["distilled_from"])
    assert distilled.checkpoint, "the loss stays finite"
    accuracy = evaluate(materials, distilled.checkpoint, "gate").accuracy
    about: dict[str, Any] = {"accuracy": accuracy, "last_loss": distilled.loss[-1]}
    if distilled.learning_rate:
        about |= {"rate": distilled.learning_rate, "trials": seen.trials, "trials_share": seen.rows / whole}
    return about


class Counted:
    """Counts the trials of its block, and their rows."""

    def __enter__(self) -> None:
        self.trials = self.rows = 0
        self._really = learning_rate.updates_of

        def counting(*what: Any) -> Any:
            self.trials += 1
            for update in self._really(*what):
                self.rows += update.rows
                yield update

        learning_rate.updates_of = counting  # type: ignore[assignment]

    def __exit__(self, *_: object) -> None:
        learning_rate.updates_of = self._really


if __name__ == "__main__":
    main()
