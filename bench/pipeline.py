"""Measures the cost of scheduling: compiling, and the local runner's tasks against the same run in one process.

python bench/pipeline.py [--pairs 3] [--granularity stage|step] [--set KEY=VALUE ...]

A pair is one run of the sample in each of the two engines, in new folders; their order alternates. The cost of a task
is its time from start to end, imports included, minus the seconds of the step's parts that it computed.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from common import show, spread
from pipeline_size import documented_profile

from lmmpress.presets import preset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--granularity", choices=["step", "stage"], default="stage")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    preset("sample")  # the data is generated before the clock starts
    engines = {"local": [], "kfp-local": ["--engine", "kfp-local", "--granularity", arguments.granularity]}
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    overheads: list[float] = []
    same = []
    for number in range(arguments.pairs):
        results = {}
        for name in list(engines)[:: -1 if number % 2 else 1]:
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "out"
                begun = time.perf_counter()
                lmmpress("run", "--sample", "--out", str(out), *engines[name], *overridden(arguments.overrides))
                seconds[name].append(time.perf_counter() - begun)
                results[name] = json.loads((out / "result.json").read_text("utf-8"))
                if name == "kfp-local":
                    tasks = task_seconds((out / "tasks.log").read_text("utf-8"))
                    parts = sum(results[name]["seconds_by_part"].values())
                    overheads.append((sum(tasks) - parts) / len(tasks))
        same.append(len({one["compressed"]["checkpoint"] for one in results.values()}) == 1)
    show(
        {
            "granularity": arguments.granularity,
            "compile_seconds": {name: spread(compile_seconds(name)) for name in ("step", "stage")},
            "ratio": spread([there / here for here, there in zip(*seconds.values(), strict=True)]),
            "seconds": {name: spread(times) for name, times in seconds.items()},
            "tasks": len(tasks),
            "seconds_per_task_beside_the_work": spread(overheads),
            "same_checkpoint": all(same),
        }
    )


def compile_seconds(granularity: str) -> list[float]:
    """The seconds of the whole command, imports included, with a profile that has every key."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        target, profile = Path(folder) / "pipeline.yaml", Path(folder) / "cluster.yaml"
        profile.write_text(documented_profile().model_dump_json(), "utf-8")
        said = ["compile", "--sample", "--cluster", str(profile), "-o", str(target), "--granularity", granularity]
        for _ in range(5):
            begun = time.perf_counter()
            lmmpress(*said)
            found.append(time.perf_counter() - begun)
    return found


def lmmpress(*arguments: str) -> None:
    command = [sys.executable, "-m", "lmmpress.cli", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def overridden(pairs: list[str]) -> list[str]:
    return [word for pair in pairs for word in ("--set", pair)]


def task_seconds(log: str) -> list[float]:
    """The seconds of each task, from the output of the runner."""
    found, begun = [], None
    for line in re.sub(r"\x1b\[[0-9;]*m", "", log).splitlines():
        if at := re.match(r"(\d\d:\d\d:\d\d\.\d+) - INFO - (Executing task|Task '[^']+' finished)", line):
            moment = datetime.strptime(at[1], "%H:%M:%S.%f")
            if at[2] == "Executing task":
                begun = moment
            elif begun is not None:
                found.append((moment - begun).total_seconds() % 86400)
                begun = None
    return found


if __name__ == "__main__":
    main()
