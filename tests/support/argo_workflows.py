"""Workflows of Argo's for tests, of a short plan."""

from pathlib import Path
from typing import Any

from lmmpress.argo.compile import make_workflow
from lmmpress.plan import parse_plan
from lmmpress.store import open_store
from lmmpress.store.run_state import read_state, write_state
from lmmpress.tasks.cluster_profile import Profile
from lmmpress.tasks.granularity import Granularity
from support.argo_runner import Runner, Workflow, in_this_process

RETRIES = 2
PROFILE = {
    "volumes": [{"claim": "all", "path": "/"}],
    "defaults": {"retries": {"count": RETRIES, "seconds": 1}},
    "patience": "5s",
}


def short(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Two steps of block and one of ffn, with the store in a folder that stands for a volume of the pods."""
    stages = {name: raw["stages"][name] for name in ("block", "ffn")}
    return raw | {"stages": stages, "store": str(folder / "store")}


def let_the_lease_run_out(raw: dict[str, Any]) -> None:
    """What 90 seconds do after the last task of a submission: all tasks of a test are one process, which lives on."""
    store = open_store(raw["store"])
    for entry in store.objects.entries("runs/"):
        read = read_state(store.objects, entry.name)
        read.stored.lease = None
        write_state(store.objects, entry.name, read)


def workflow(
    raw: dict[str, Any],
    folder: Path,
    granularity: Granularity = Granularity.step,
    run: Runner = in_this_process,
    **more: Any,
) -> Workflow:
    made = make_workflow(parse_plan(raw), "antgmm", Profile.model_validate(PROFILE), granularity)
    return Workflow(made["spec"], folder, run, **more)
