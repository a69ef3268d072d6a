"""Launches distillation in several processes: one for each GPU, or several on the CPU.

torchrun starts the processes, accelerate connects them, and they share only the store with their parent. Each process
(worker.py) reads teacher and student from the store and trains on its share; the first one writes the result.
"""

import os
import re
import subprocess
import sys

import torch

from lmmpress.distillation.train import rows_at_once
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts import worker
from lmmpress.engine.parts.lesson import lesson_of, side_of
from lmmpress.engine.parts.training import Trained
from lmmpress.engine.parts.worker import Job
from lmmpress.errors import UserError
from lmmpress.host.processes import environment
from lmmpress.progress.relay import RELAY, from_started
from lmmpress.settings.distillation import Distillation


def train_in_processes(materials: Materials, checkpoint: str, seed: int, settings: Distillation) -> Trained:
    """Start the settings' number of processes, wait for them, and return the result of `train` in the first one.

    Raises UserError if this machine has fewer GPUs, or if a process fails.
    """
    count = settings.processes
    on_gpus = materials.accelerator.device.type == "cuda"
    if on_gpus and count > (gpus := torch.cuda.device_count()):
        raise UserError(f"distillation.processes is {count}, one for each GPU, but this machine has {gpus} GPUs")
    # the processes only read the caches
    materials.lessons("distill")
    if settings.cached:
        lesson_of(materials, checkpoint, side_of(materials, checkpoint, settings), settings, None)
    materials.release_teacher()  # each process that needs it loads its own
    with materials.store.scratch() as folder:
        job = Job(
            plan=materials.plan.model_copy(update={"distillation": settings}),
            original=materials.original,
            store=materials.store.root_address,
            checkpoint=checkpoint,
            seed=seed,
            lowered=materials.lowered,
            result=folder / "result.json",
        )
        (folder / "job.json").write_text(job.model_dump_json(), "utf-8")
        command = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        command += ["-m", worker.__name__, str(folder / "job.json")]
        events = folder / "events.jsonl"
        variables = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count)), RELAY: str(events)}
        if materials.accelerator.device.type == "cpu":
            # hide the GPUs: a barrier fails, even on the CPU, if the processes see fewer GPUs than there are processes
            variables |= {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
        # torchrun starts the workers with `python -m`; this environment keeps the current directory off their path
        with from_started(events):
            process = subprocess.run(
                command, stderr=subprocess.PIPE, text=True, encoding="utf-8", env=environment(**variables), check=False
            )
        if process.returncode or not (folder / "result.json").is_file():
            cause = _cause(process.stderr) or f"torchrun exited with {process.returncode}"
            raise UserError(f"distillation on {count} processes failed: {cause}")
        trained = Trained.model_validate_json((folder / "result.json").read_text("utf-8"))
    at_once = rows_at_once(settings)
    at_once.lower_and_tell(trained.at_once.get("distill", at_once.rows))
    return trained


def _cause(stderr: str) -> str | None:
    """Why a process failed. The summary at the end of what torchrun prints names no cause; the errors of the processes
    come before it."""
    error = r"^(?:\[rank\d+\]: )?((?:\w+\.)*\w*(?:Error|Exception): .*\S)"
    found = re.search(error, stderr, re.MULTILINE)
    return found and found[1].removeprefix(f"{UserError.__module__}.{UserError.__qualname__}: ")
