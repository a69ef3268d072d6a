"""Makes a part in several processes: one for each GPU, or several on the CPU, on this machine or on several.

torchrun starts the processes, accelerate connects them, and they share only the store with their parent. Each process
(worker.py) reads the models from the store and takes its share of the rows; the first one writes the result. Of several
machines the first makes what all of them need, and then hands them the job.
"""

import json
import os
import re
import subprocess
import sys
from typing import Any

import torch
from safetensors.torch import load_file

from lmmpress.data.facts import Values
from lmmpress.engine.materials import Materials
from lmmpress.engine.measured import values_of
from lmmpress.engine.meeting import Meeting
from lmmpress.engine.parts import worker
from lmmpress.engine.parts.judging import make_caches
from lmmpress.engine.parts.lesson import lesson_of, side_of
from lmmpress.engine.parts.sharding import sharding_of
from lmmpress.engine.parts.training import Trained
from lmmpress.engine.parts.worker import SECTIONS, Job
from lmmpress.errors import AwayError, UserError
from lmmpress.host.machines import Machines
from lmmpress.host.processes import environment
from lmmpress.lmm.at_once import AtOnce
from lmmpress.progress.relay import RELAY, from_started
from lmmpress.pruning.importance import Scored
from lmmpress.result import Role
from lmmpress.settings.distillation import Distillation
from lmmpress.store import Store


def train_in_processes(materials: Materials, checkpoint: str, seed: int, settings: Distillation) -> Trained:
    """The result of `train` in the first of the settings' processes.

    Raises UserError if this machine has fewer GPUs, or if a process fails; so do all functions here.
    """
    settings = settings.model_copy(update={"sharding": sharding_of(materials, checkpoint, settings)})
    # the processes only read the caches
    materials.lessons("distill")
    if settings.cached:
        lesson_of(materials, checkpoint, side_of(materials, checkpoint, settings), settings, None)
    materials.release_teacher()  # each process that needs it loads its own
    plan = materials.plan.model_copy(update={"distillation": settings})
    job = {"part": "distill", "processes": settings.processes, "plan": plan, "seed": seed}
    setting = "distillation.micro_batch_size"
    return Trained.model_validate(_found(materials, checkpoint, settings.rows_at_once, setting, **job)[0])


def score_in_processes(materials: Materials, checkpoint: str, seed: int) -> Scored:
    """What `scores_of` gives in each of the plan's processes."""
    materials.lessons("score")
    materials.features("score")
    materials.release_teacher()
    settings = materials.plan.importance
    job = {"part": "importance", "processes": settings.processes, "plan": materials.plan, "seed": seed}
    found, scores = _found(materials, checkpoint, settings.batch_size, "importance.batch_size", **job)
    return Scored(scores, found["reliability"])


def judge_in_processes(materials: Materials, checkpoint: str, role: Role) -> Values:
    """What `worth_of` gives in each of the plan's processes."""
    make_caches(materials, checkpoint, role)
    materials.release_teacher()
    settings = materials.plan.evaluation
    job = {"part": "evaluate", "processes": settings.processes, "plan": materials.plan, "role": role}
    return values_of(_found(materials, checkpoint, settings.batch_size, "evaluation.batch_size", **job)[0])


def _found(
    materials: Materials, checkpoint: str, asked: int, setting: str, **what: Any
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Start the processes of a job and wait for them: the values and tensors that they have found. Where they had no
    room for as many rows at once as a setting had asked for, a line says so."""
    with materials.store.scratch() as folder:
        job = Job(
            original=materials.original,
            store=materials.store.root_address,
            checkpoint=checkpoint,
            lowered=materials.lowered,
            result=folder / "result.json",
            **what,
        )
        if materials.meeting:
            materials.meeting.hand_out(job.model_dump_json())
        machines = materials.meeting.machines if materials.meeting else None
        _run(job, materials.accelerator.device.type == "cuda", machines)
        found = json.loads(job.result.read_text("utf-8"))
        tensors = load_file(job.tensors) if job.tensors.is_file() else {}
    used, lowered = found.pop("at_once"), found.pop("lowered")
    for work, rows in used.items():
        AtOnce(asked if work in lowered else rows, work, setting).lower_and_tell(rows)
    return found, tensors


def join(store: Store, meeting: Meeting) -> None:
    """Take part in what the first machine of a meeting makes, and end when that has ended."""
    job = Job.model_validate_json(meeting.job())
    with store.scratch() as folder:
        own = job.model_copy(update={"result": folder / "result.json"})
        _run(own, torch.cuda.is_available(), meeting.machines)


def _run(job: Job, on_gpus: bool, machines: Machines | None) -> None:
    """Run the processes of a job on this machine, all of them or those that it has of several machines.

    Raises UserError if they fail; AwayError if that may be the fault of another machine, so that a new try may help.
    """
    section, here = SECTIONS[job.part], machines.processes if machines else job.processes
    if on_gpus and here > (gpus := torch.cuda.device_count()):
        raise UserError(f"{section}.processes is {here}, one for each GPU, but this machine has {gpus} GPUs")
    folder = job.result.parent
    (folder / "job.json").write_text(job.model_dump_json(), "utf-8")
    command = [sys.executable, "-P", "-m", "torch.distributed.run", *_meets(machines), "--nproc-per-node", str(here)]
    command += ["-m", worker.__name__, str(folder / "job.json")]
    events = folder / "events.jsonl"
    variables = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // here)), RELAY: str(events)}
    if not on_gpus:
        # hide the GPUs: a barrier fails, even on the CPU, if the processes see fewer GPUs than there are processes
        variables |= {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    # torchrun starts the workers with `python -m`; this environment keeps the current directory off their path
    with from_started(events):
        process = subprocess.run(
            command, stderr=subprocess.PIPE, text=True, encoding="utf-8", env=environment(**variables), check=False
        )
    is_first = machines is None or machines.is_first
    if process.returncode or (is_first and not job.result.is_file()):
        cause, stays = _cause(process.stderr, process.returncode)
        kind = UserError if stays or machines is None else AwayError
        raise kind(f"{section} on {job.processes} processes failed: {cause}")


def _meets(machines: Machines | None) -> list[str]:
    """How torchrun finds the processes of other machines."""
    if machines is None:
        return ["--standalone"]
    where: dict[str, int | str] = {"--nnodes": machines.count, "--node-rank": machines.number}
    where |= {"--master-addr": machines.address, "--master-port": machines.port}
    return [str(word) for option in where.items() for word in option]


def _cause(errors: str, code: int) -> tuple[str, bool]:
    """Why processes failed, from what they and torchrun wrote to stderr and torchrun's exit code; and whether another
    try would fail in the same way: by a fault of the input, which one of them found, or for the memory of a GPU."""
    if "Signal 9 (SIGKILL) received" in errors:  # the errors of the others follow from that
        return "one of them was killed (SIGKILL), as by a machine or container that runs out of memory", False
    # torchrun's summary at the end names no cause; the errors of the processes come before it
    error = r"^(?:\[rank\d+\]: )?((?:\w+\.)*\w*(?:Error|Exception): .*\S)"
    found = re.search(error, errors, re.MULTILINE)
    cause = found[1] if found else f"torchrun exited with {code}"
    told = cause.removeprefix(f"{UserError.__module__}.{UserError.__qualname__}: ")
    return told, told != cause or "OutOfMemoryError" in cause
