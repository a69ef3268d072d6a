"""One of the processes that distil together, as `distillation/launch.py` starts them."""

import json
import sys
from pathlib import Path

from lmmpress.engine.materials import Materials
from lmmpress.engine.steps import distill_here
from lmmpress.plan import Plan
from lmmpress.store import open_store


def work(job_file: Path) -> None:
    """Do this process's share of a job; the first process writes what came of it."""
    job = json.loads(job_file.read_text("utf-8"))
    materials = Materials(Plan.model_validate(job["plan"]), open_store(job["store"]), job["original"])
    if materials.accelerator.num_processes != materials.plan.distillation.processes:
        raise RuntimeError(f"started as one of {materials.accelerator.num_processes} processes")
    result = distill_here(materials, job["checkpoint"], job["seed"])
    if materials.accelerator.is_main_process:
        Path(job["result"]).write_text(json.dumps(result), "utf-8")
    materials.accelerator.wait_for_everyone()
    materials.accelerator.end_training()


if __name__ == "__main__":
    work(Path(sys.argv[1]))
