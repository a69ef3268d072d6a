"""Measures the whole run of a sample as a user starts it: seconds, peak memory, and the compressed model.

python bench/sample_run.py [--preset sample-hard] [--runs 3] [--set KEY=VALUE ...]
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import sample_arguments, show, spread

from lmmpress.presets import preset


def main() -> None:
    arguments = sample_arguments(__doc__, 3)
    preset(arguments.preset)  # the data is generated before the clock starts
    runs = [run(arguments.preset, arguments.overrides) for _ in range(arguments.runs)]
    last = runs[-1][2]
    tower = [last[model]["parameters_by_tower"]["language"] for model in ("original", "compressed")]
    show(
        {
            "seconds": spread([seconds for seconds, _, _ in runs]),
            "peak_gb": spread([peak / 2**20 for _, peak, _ in runs]),
            "language_reduction": tower[0] / tower[1],
            "test_accuracy_by_task": [last[model]["accuracy_by_task"] for model in ("original", "compressed")],
            "test_accuracy": [last[model]["accuracy"] for model in ("original", "compressed")],
            "drop": last["drop"],
            "drop_interval": last["drop_interval"],
            "samples_per_second_ratio": spread(
                [r["compressed"]["samples_per_second"] / r["original"]["samples_per_second"] for _, _, r in runs]
            ),
            "latency_p50_ratio": spread(
                [r["original"]["latency_ms"]["p50"] / r["compressed"]["latency_ms"]["p50"] for _, _, r in runs]
            ),
            "tokens": last["original"]["tokens"],
            "natural_tokens": [last[model]["natural_tokens"] for model in ("original", "compressed")],
            "seconds_by_part": last["seconds_by_part"],
            "decisions": [
                f"{step['stage']} {step['decision']} {step['accuracy_pruned']:.4f} -> {step['accuracy']:.4f}"
                for step in last["steps"]
            ],
            "same_checkpoint_each_run": len({r["compressed"]["checkpoint"] for _, _, r in runs}) == 1,
        }
    )


def run(name: str, overrides: list[str]) -> tuple[float, int, dict]:
    """The seconds, the peak resident kilobytes of the process, and its result.json."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        command = [sys.executable, "-m", "lmmpress.cli", "run", "--preset", name, "--out", str(out)]
        for override in overrides:
            command += ["--set", override]
        begun = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        if status:
            raise SystemExit(f"the run ended with status {status}")
        return seconds, usage.ru_maxrss, json.loads((out / "result.json").read_text("utf-8"))


if __name__ == "__main__":
    main()
