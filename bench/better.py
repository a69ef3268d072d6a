"""Whether a setting is better than the preset's, over seeds, on the sample and on models that it was not chosen on.

    python bench/better.py --set KEY=VALUE [--set ...] [--folder DIR] [--seeds 0 1 2] [--models sample opt qwen3]

Each seed is a run of the preset's plan as it is and one with the settings. The other models are those of advise.py:
other language towers, with shares of the sample's amounts. Accuracy is that of the last model on the gate's split; the
test split is not read. What is in DIR already is not made again.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from advise import TOWERS, more_lost, noted, of_model, ran
from common import show, spread

from lmmpress.plan import parse_plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", required=True, dest="settings")
    parser.add_argument("--folder", type=Path, default=None, help="where runs are kept; a new folder by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", default=["sample", *TOWERS], choices=["sample", *TOWERS])
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="lmmpress-better-"))
    settings = tuple(arguments.settings)
    found = {name: compared(name, folder / name, arguments.seeds, settings) for name in arguments.models}
    show({"settings": list(settings), "models": found})


def compared(name: str, folder: Path, seeds: list[int], settings: tuple[str, ...]) -> dict[str, Any]:
    """The runs of each seed with and without the settings, and what is lost or gained by these."""
    raw = of_model(name, folder)
    pairs = [pair(raw, folder, seed, settings) for seed in seeds]
    return {
        "as_it_is": spread([one["as_it_is"]["gate_accuracy"] for one in pairs]),
        "with_settings": spread([one["with_settings"]["gate_accuracy"] for one in pairs]),
        "processor_seconds_ratio": spread(
            [one["with_settings"]["processor_seconds"] / one["as_it_is"]["processor_seconds"] for one in pairs]
        ),
        "seeds": pairs,
    }


def pair(raw: dict[str, Any], folder: Path, seed: int, settings: tuple[str, ...]) -> dict[str, Any]:
    """A seed's two runs, and how much more the one with the settings loses, on the same rows."""
    found: dict[str, Any] = {"seed": seed}
    outs = {}
    for way, own in (("as_it_is", ()), ("with_settings", settings)):
        outs[way] = folder / f"{way}-{seed}"
        plan = parse_plan(raw, ("splits.test=gate", f"seed={seed}", *own))
        found[way] = noted(folder / f"{way}-{seed}.json", lambda plan=plan, out=outs[way]: ran(plan, out))
    found["more_lost"] = noted(folder / f"more-lost-{seed}.json", lambda: more_lost(*outs.values()))
    return found


if __name__ == "__main__":
    main()
