"""Distillation on several processes: one per GPU where there are GPUs, on the CPU otherwise.

The processes are started by torchrun, joined by accelerate, and share nothing with their parent but the store: each
(worker.py) finds plan, teacher and student there, does its share, and the first one writes the result.
"""

import os
import re
import subprocess
import sys

import torch

from lmmpress.engine.materials import Materials
from lmmpress.engine.parts import worker
from lmmpress.engine.parts.training import Trained
from lmmpress.engine.parts.worker import Job
from lmmpress.errors import UserError
from lmmpress.host.processes import environment


def train_in_processes(materials: Materials, checkpoint: str, seed: int) -> Trained:
    """Start the plan's number of processes and wait; what `train` gives in the first of them.

    Raises UserError where this machine has fewer GPUs, and where a process fails.
    """
    count = materials.plan.distillation.processes
    on_gpus = materials.accelerator.device.type == "cuda"
    if on_gpus and count > (gpus := torch.cuda.device_count()):
        raise UserError(f"distillation.processes is {count}, one for each GPU, and this machine has {gpus}")
    # computed here, once, so that no process finds the caches missing and makes them beside the others
    if materials.plan.distillation.caches:
        materials.features("distill")
        _ = materials.teacher_states
    with materials.store.scratch() as folder:
        job = Job(
            plan=materials.plan,
            original=materials.original,
            store=materials.store.root_address,
            checkpoint=checkpoint,
            seed=seed,
            result=folder / "result.json",
        )
        (folder / "job.json").write_text(job.model_dump_json(), "utf-8")
        command = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        command += ["-m", worker.__name__, str(folder / "job.json")]
        settings = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}
        if materials.accelerator.device.type == "cpu":
            # unseen, since a barrier of processes that see fewer GPUs than they are fails on the CPU too
            settings |= {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
        # torchrun starts the workers as `python -m`, and they inherit that the current directory is on nobody's path
        done = subprocess.run(
            command, stderr=subprocess.PIPE, text=True, encoding="utf-8", env=environment(**settings), check=False
        )
        if done.returncode or not (folder / "result.json").is_file():
            # torchrun ends with a summary that names no cause: the processes' own errors stand before it
            error = r"^(?:\[rank\d+\]: )?((?:\w+\.)*\w*(?:Error|Exception): .*\S)"
            causes = re.findall(error, done.stderr, re.MULTILINE)
            cause = causes[0] if causes else f"it ended with {done.returncode}"
            raise UserError(f"distillation on {count} processes failed: {cause}")
        return Trained.model_validate_json((folder / "result.json").read_text("utf-8"))
