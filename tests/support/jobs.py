"""Jobs that several processes do together, for tests; ranks.py is what runs in the processes."""

from pathlib import Path
from typing import Any

from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.worker import Job
from support.forks import Forks


def job_of(materials: Materials, checkpoint: str, folder: Path, **what: Any) -> Job:
    """A job with a checkpoint, whose result is a file of the folder."""
    result = folder / f"{what['part']}-{what['processes']}.json"
    where: dict[str, Any] = {
        "plan": materials.plan,
        "original": materials.original,
        "store": materials.store.root_address,
    }
    return Job(**where, checkpoint=checkpoint, result=result, **what)


def done_by(forks: Forks, job: Job, rows: int | None = None) -> str:
    """What the first process of a job wrote. The second has memory for so many rows at once, if that is given."""
    ended = forks.call("support.ranks", "together", job.model_dump(mode="json"), rows)
    beside = sorted(job.result.parent.glob(f"{job.result.name}.error-*"))
    assert ended == 0, "\n".join(path.read_text("utf-8") for path in beside)
    return job.result.read_text("utf-8")
