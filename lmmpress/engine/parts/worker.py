"""The main module of the processes of a part that launch.py starts."""

import json
import sys
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate.utils import gather_object
from pydantic import BaseModel
from safetensors.torch import save_file

from lmmpress.engine.materials import Materials
from lmmpress.engine.measured import values_in
from lmmpress.engine.parts.judging import worth_of
from lmmpress.engine.parts.scoring import scores_of
from lmmpress.engine.parts.training import train
from lmmpress.lmm.at_once import remembering
from lmmpress.plan import Plan
from lmmpress.progress import listening
from lmmpress.progress.relay import to_starter
from lmmpress.result import Role
from lmmpress.store import open_store

SECTIONS = {"importance": "importance", "distill": "distillation", "evaluate": "evaluation"}
"""The section of the plan with the settings of each part."""


class Job(BaseModel):
    """The job of `processes` of a part: `checkpoint` is distilled from the teacher `original`, or scored, or asked rows
    of a `role`. Both are in the store at the address `store`. Rows at once are as they were `lowered` so far. The first
    process writes values as JSON into the file `result`, with the rows `at_once` of each work and those that are
    `lowered` afterwards, and tensors into a file beside it."""

    part: Literal["importance", "distill", "evaluate"]
    processes: int
    plan: Plan
    original: str
    store: str
    checkpoint: str
    lowered: dict[str, int] = {}
    seed: int = 0
    role: Role = "gate"
    result: Path

    @property
    def tensors(self) -> Path:
        """The file of the tensors that the first process found, if there are any."""
        return self.result.with_suffix(".safetensors")


def work(job: Job) -> None:
    """Run this process's share of a job; the first process writes the result."""
    materials = Materials(job.plan, open_store(job.store), job.original, makes=frozenset())
    if materials.accelerator.num_processes != job.processes:
        raise RuntimeError(f"started as one of {materials.accelerator.num_processes} processes")
    is_first = materials.accelerator.is_main_process
    with listening(to_starter() if is_first else None), remembering(job.lowered) as at_once:
        values, tensors = _done(job, materials)
    rows = {"at_once": _least(at_once), "lowered": _least(job.lowered)}
    if is_first:
        if tensors:
            save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, job.tensors)
        job.result.write_text(json.dumps(values | rows), "utf-8")
    materials.accelerator.wait_for_everyone()
    materials.accelerator.end_training()


def _least(rows: dict[str, int]) -> dict[str, int]:
    """The fewest rows at once of all processes, of each work that one of them did."""
    told: list[dict[str, int]] = gather_object([rows])
    return {work: min(one[work] for one in told if work in one) for work in sorted(set().union(*told))}


def _done(job: Job, materials: Materials) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What this process has found: values, and tensors."""
    if job.part == "distill":
        return train(materials, job.checkpoint, job.seed, job.plan.distillation).model_dump(mode="json"), {}
    if job.part == "evaluate":
        return values_in(worth_of(materials, job.checkpoint, job.role)), {}
    scored = scores_of(materials, job.checkpoint, job.seed)
    return {"reliability": scored.reliability}, scored.scores


if __name__ == "__main__":
    work(Job.model_validate_json(Path(sys.argv[1]).read_text("utf-8")))
