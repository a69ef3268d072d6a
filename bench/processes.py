"""Measures the processor time of a distillation in several processes on this machine against that in one.

    python bench/processes.py [--rounds 3] [--rows 512] [--batch-sizes 64 512] [--processes 4]

The sample's original learns one epoch, with the settings of the sample's plan but for the size of an update: in one
process, in several that hold the student whole, and in several that have a share of it each (`distillation.sharding`).
Each computes with one thread. Processor time is that of the training loop alone, added up over the processes: imports,
rows, caches and a first run of the same loop on a few rows are left out. Waiting for another process takes none.
Wall-clock time is not measured: it says how many cores are free.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import sample_materials, show, spread

from lmmpress.distillation.learner import Learner, sharded
from lmmpress.distillation.train import Lesson, distill
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.lesson import lesson_of
from lmmpress.lmm.blocks import blocks_of
from lmmpress.lmm.checkpoint import load_model
from lmmpress.plan import Plan
from lmmpress.store import open_store

WARM_UP = 32  # rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--processes", type=int, default=4)
    arguments = parser.parse_args()
    materials = sample_materials(distillation__epochs="1")
    lesson_of(materials, materials.original, "whole", materials.plan.distillation, None)
    _ = materials.teacher_states
    job = {
        "plan": materials.plan.model_dump(mode="json"),
        "store": materials.store.root_address,
        "original": materials.original,
        "rows": arguments.rows,
        "rounds": arguments.rounds,
        "batch_sizes": arguments.batch_sizes,
    }
    alone, together = measured(job, 1, ["none"]), measured(job, arguments.processes, ["none", "full"])
    result: dict[str, Any] = {"rows": arguments.rows, "processes": arguments.processes}
    for size in map(str, arguments.batch_sizes):
        one = alone["none"][size]
        result[size] = {"one": {"seconds": spread(one["seconds"]), "loss": one["loss"]}}
        for name, sharding in (("whole", "none"), ("shares", "full")):
            many = together[sharding][size]
            ratios = [several / single for several, single in zip(many["seconds"], one["seconds"], strict=True)]
            result[size][name] = {"seconds": spread(many["seconds"]), "loss": many["loss"], "over_one": spread(ratios)}
    show(result)


def measured(job: dict[str, Any], count: int, shardings: list[str]) -> dict[str, dict[str, Any]]:
    """By sharding and size of an update: the seconds of processor time that so many processes took together in each
    round, and the loss of their epoch."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, "job.json")
        file.write_text(json.dumps(job | {"shardings": shardings}), "utf-8")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
        command += [__file__, "--work", str(file)]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        each = [json.loads(Path(f"{file}.{rank}").read_text("utf-8")) for rank in range(count)]
    found: dict[str, dict[str, Any]] = {}
    for sharding in shardings:
        for size, first in each[0][sharding].items():
            rounds = zip(*(one[sharding][size]["seconds"] for one in each), strict=True)
            found.setdefault(sharding, {})[size] = {"seconds": list(map(sum, rounds)), "loss": first["loss"]}
    return found


def work(file: str) -> None:
    """One of the processes."""
    job = json.loads(Path(file).read_text("utf-8"))
    plan, found = Plan.model_validate(job["plan"]), dict[str, dict[int, dict[str, Any]]]()
    materials = Materials(plan, open_store(job["store"]), job["original"])
    few = lesson_on(materials, plan.distillation.batch_size, WARM_UP)
    for sharding in job["shardings"]:
        learned(materials, few, sharding)
        found[sharding] = {size: {"seconds": []} for size in job["batch_sizes"]}
    for _ in range(job["rounds"]):
        for sharding in job["shardings"]:
            for size, taken in found[sharding].items():
                seconds, taken["loss"] = learned(materials, lesson_on(materials, size, job["rows"]), sharding)
                taken["seconds"].append(seconds)
    Path(f"{file}.{materials.accelerator.process_index}").write_text(json.dumps(found), "utf-8")
    materials.accelerator.end_training()


def lesson_on(materials: Materials, batch_size: int, rows: int) -> Lesson:
    """The lesson of the sample's plan on its first rows, in updates of another size."""
    settings = materials.plan.distillation.model_copy(update={"batch_size": batch_size})
    return lesson_of(materials, materials.original, "whole", settings, np.arange(rows))


def learned(materials: Materials, lesson: Lesson, sharding: str) -> tuple[float, float]:
    """The seconds of processor time of this process in the training loop, and the epoch's loss."""
    model, accelerator = load_model(materials.teacher), materials.accelerator
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(materials.frozen))
    learner = Learner(model)
    if sharding == "full":
        learner = sharded(model, blocks_of(model, materials.anatomy), accelerator.device, torch.float32)
    accelerator.wait_for_everyone()
    begun = time.process_time()
    losses = distill(learner, lesson, 1e-4, 0, accelerator)
    seconds = time.process_time() - begun
    assert losses
    return seconds, losses[0]


if __name__ == "__main__":
    work(sys.argv[2]) if sys.argv[1:2] == ["--work"] else main()
