"""Compares the plan that `lmmpress advise` suggests for the sample with the sample's own, by runs of both.

    python bench/advise.py [--set KEY=VALUE ...]

Accuracy is that on the gate's split, of the last model that each run kept; the test split chooses nothing.
"""

import tempfile
from pathlib import Path
from typing import Any

from common import sample_arguments, show

from lmmpress import api
from lmmpress.plan import read_plan
from lmmpress.result import Result


def main() -> None:
    arguments = sample_arguments(__doc__, 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        advice = api.advise(arguments.preset, folder / "suggested.yaml", overrides=arguments.overrides)
        suggested = api.compress(read_plan(folder / "suggested.yaml"), folder / "suggested", speed=False, recorder=None)
        own = api.compress(arguments.preset, folder / "own", speed=False, recorder=None, overrides=arguments.overrides)
        show({"advice": advice.as_dict(), "suggested": outcome(suggested), "own": outcome(own)})


def outcome(result: Result) -> dict[str, Any]:
    """What a run came to on the gate's split, without the test split's numbers."""
    kept = [step for step in result.steps if step.decision != "rolled back"]
    return {
        "gate_accuracy": kept[-1].accuracy if kept else None,
        "parameters": kept[-1].parameters if kept else None,
        "seconds": result.seconds,
        "steps": [f"{step.title} {step.decision}" for step in result.steps],
    }


if __name__ == "__main__":
    main()
