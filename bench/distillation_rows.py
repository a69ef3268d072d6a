"""Measures how many rows distillation needs (the question of Fig. 7): the sample's plan with fewer and fewer of them.

    python bench/distillation_rows.py [--rows 9000 4500 2250 1125 560] [--seeds 0 1] [--folder DIR]

Every step is kept, whatever it loses, so that all runs end at the same size; the accuracy is that of the last step on
the gate split. Each number of rows is drawn at random by the seed, and trained on twice: in one epoch, as the plan
says, and in as many epochs as make the number of updates that all rows give. What is in DIR already is not made again.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import show, spread

from lmmpress.presets import preset
from lmmpress.result import Result

MOST = 9000
KEPT = "tolerance={alpha: 0.99, on_violation: keep, allow_zero: true}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[9000, 4500, 2250, 1125, 560])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--folder", type=Path, default=None, help="where runs are kept; a new folder by default")
    arguments = parser.parse_args()
    preset("sample")  # the data is generated first
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="lmmpress-rows-"))
    found: dict[str, Any] = {}
    for rows in arguments.rows:
        for name, epochs in {"one epoch": 1, "equal updates": round(MOST / rows)}.items():
            if name == "equal updates" and epochs == 1:
                continue
            results = [run(folder / f"{rows}-{epochs}-{seed}", rows, epochs, seed) for seed in arguments.seeds]
            ends = [result.steps[-1].accuracy or 0.0 for result in results]
            worst = [min(step.accuracy or 0.0 for step in result.steps) for result in results]
            about = {"epochs": epochs, "accuracy": spread(ends), "lowest_step": spread(worst)}
            found.setdefault(str(rows), {})[name] = about
            print(json.dumps({str(rows): {name: about}}), file=sys.stderr, flush=True)
    show({"parameters": results[0].compressed.parameters, "rows": found})


def run(out: Path, rows: int, epochs: int, seed: int) -> Result:
    """One run of the sample in a process of its own."""
    settings = [KEPT, f"seed={seed}", f"distillation.rows={rows}", "distillation.draw=random"]
    settings += [f"distillation.epochs={epochs}", "evaluation.speed=false"]
    if not (out / "result.json").exists():
        command = [sys.executable, "-m", "lmmpress.cli", "run", "--sample", "--out", str(out), "--resume"]
        changes = [word for setting in settings for word in ("--set", setting)]
        environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        subprocess.run([*command, *changes], check=True, env=environment, stdout=subprocess.DEVNULL)
    return Result.model_validate_json((out / "result.json").read_text("utf-8"))


if __name__ == "__main__":
    main()
