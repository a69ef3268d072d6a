"""The main module of the distillation processes that launch.py starts."""

import sys
from pathlib import Path

from pydantic import BaseModel

from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.training import train
from lmmpress.lmm.at_once import remembering
from lmmpress.plan import Plan
from lmmpress.progress import listening
from lmmpress.progress.relay import to_starter
from lmmpress.store import open_store


class Job(BaseModel):
    """The job of the processes: distil `checkpoint` from the teacher `original`, both in the store at the address
    `store`, with rows at once as they were `lowered` so far. The first process writes the file `result`."""

    plan: Plan
    original: str
    store: str
    checkpoint: str
    seed: int
    lowered: dict[str, int]
    result: Path


def work(job: Job) -> None:
    """Run this process's share of a job; the first process writes the result."""
    materials = Materials(job.plan, open_store(job.store), job.original, makes=frozenset())
    if materials.accelerator.num_processes != materials.plan.distillation.processes:
        raise RuntimeError(f"started as one of {materials.accelerator.num_processes} processes")
    is_first = materials.accelerator.is_main_process
    # all of them do the same updates
    with listening(to_starter() if is_first else None), remembering(job.lowered) as at_once:
        trained = train(materials, job.checkpoint, job.seed, materials.plan.distillation)
    if is_first:
        job.result.write_text(trained.model_copy(update={"at_once": at_once}).model_dump_json(), "utf-8")
    materials.accelerator.wait_for_everyone()
    materials.accelerator.end_training()


if __name__ == "__main__":
    work(Job.model_validate_json(Path(sys.argv[1]).read_text("utf-8")))
