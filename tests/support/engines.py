"""A plan, run by each engine: all have to come to the same steps, checkpoints and lineage."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lmmpress.engine.compression import compress
from lmmpress.kubeflow.compile import compile_plan
from lmmpress.plan import parse_plan
from lmmpress.result import Result
from lmmpress.tasks.cluster_profile import Profile
from lmmpress.tasks.granularity import Granularity
from lmmpress.tasks.parameters import arguments_of
from lmmpress.tracking.client import local_store
from lmmpress.tracking.lineage import Lineage
from lmmpress.tracking.registry import name_of_compressed
from support.compiled import Compiled
from support.results import essence
from support.tasks import chain, result_of

GRANULARITIES = tuple(Granularity)
NewLineage = Callable[[Path], str]


def by_this_process(raw: dict[str, Any], out: Path, new_lineage: NewLineage) -> Result:
    """A run in this process, with its lineage in the folder `out`."""
    lineage = Lineage(new_lineage(out), name_of_compressed(raw["model"]))
    return compress(parse_plan(raw), out, lineage)


def by_the_tasks_of_a_pipeline(
    raw: dict[str, Any],
    granularity: Granularity,
    folder: Path,
    new_lineage: NewLineage,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[Result, Compiled]:
    """The compiled pipeline's tasks in this process, with store and lineage in a folder."""
    folder.mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", new_lineage(folder))
    raw = raw | {"store": str(folder / "store")}
    plan, name = parse_plan(raw), name_of_compressed(raw["model"])
    compile_plan(plan, name, Profile(), granularity, folder / "pipeline.yaml")
    pipeline = Compiled(folder / "pipeline.yaml", folder / "tasks")
    pipeline.run(arguments_of(plan, name))
    return result_of(raw), pipeline


def by_kubeflows_runner(raw: dict[str, Any], granularity: Granularity, out: Path) -> Result:
    """The command line with Kubeflow's local runner: a process for each task."""
    file = out.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(raw, sort_keys=False), "utf-8")
    options = ["--engine", "kfp-local", "--granularity", granularity]
    command = [sys.executable, "-m", "lmmpress.cli", "run", str(file), "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert (out / "report.html").is_file()
    return Result.model_validate_json((out / "result.json").read_text("utf-8"))


def assert_same(raw: dict[str, Any], found: Result, folder: Path, wanted: Result, other: Path) -> None:
    """Check that two engines have equal results and equal lineage."""
    name = name_of_compressed(raw["model"])
    assert essence(found) == essence(wanted)
    assert found.compressed.checkpoint == wanted.compressed.checkpoint
    assert found.run_key == wanted.run_key
    assert chain(folder, name) == chain(other, name)
    assert local_store(folder) != local_store(other)
