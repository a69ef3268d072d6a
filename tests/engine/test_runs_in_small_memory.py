"""Runs on a machine whose memory is too small for the rows at once that the plan asks for."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.certain import certain
from support.small_memory import memory_for

from lmmpress.engine.compression import compress
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts import launch
from lmmpress.engine.parts.distill import distill
from lmmpress.engine.parts.worker import Job
from lmmpress.errors import UserError
from lmmpress.lmm.checkpoint import load_model
from lmmpress.plan import parse_plan
from lmmpress.progress import Said, listening
from lmmpress.result import Result
from lmmpress.store import open_store

pytestmark = pytest.mark.usefixtures("trusting")
LOADS = ("engine.materials", "engine.parts.scoring", "engine.parts.models", "engine.parts.training")


@pytest.fixture
def small_plan(raw_plan: dict[str, Any], taught: Path) -> dict[str, Any]:
    """A plan of one step, whose batches have eight rows."""
    few = {
        "model": str(taught),
        "stages": {"ffn": {"step": 16, "max": 16}},
        "importance": raw_plan.get("importance", {}) | {"batch_size": 8},
        "distillation": raw_plan["distillation"] | {"batch_size": 8, "micro_batch_size": "auto", "refit_rows": 8},
        "evaluation": raw_plan.get("evaluation", {}) | {"batch_size": 8},
    }
    return raw_plan | few


@pytest.fixture
def with_memory_for(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Every model that some modules load from now on has memory for so many rows at once."""
    with ExitStack() as stack:

        def limit(rows: int, places: Sequence[str] = LOADS) -> None:
            def loaded(*args: Any, **options: Any) -> torch.nn.Module:
                model = load_model(*args, **options)
                stack.enter_context(memory_for(rows, model.get_submodule("language_model")))
                return model

            for place in places:
                monkeypatch.setattr(f"lmmpress.{place}.load_model", loaded)

        yield limit


def test_a_run_comes_to_the_same_and_notes_how_many_rows_were_at_once(
    small_plan: dict[str, Any], tmp_path: Path, with_memory_for: Callable[[int], None]
) -> None:
    plan, said = parse_plan(small_plan), list[str]()
    wanted = compress(plan, tmp_path / "wanted")
    with_memory_for(4)
    with listening(lambda event: said.append(event.words) if isinstance(event, Said) else None):
        compress(plan, tmp_path / "found")
    found = Result.model_validate_json((tmp_path / "found" / "result.json").read_text("utf-8"))
    ((one,), (other,)) = wanted.steps, found.steps
    assert other.decision == one.decision
    assert other.accuracy == pytest.approx(one.accuracy)
    assert other.loss == pytest.approx(one.loss, rel=1e-3)
    noted = {part: machine.at_once for part, machine in other.machines.items()}
    assert noted["importance"]["importance"] == noted["distill"]["distill"] == noted["evaluate"]["evaluate"] == 4
    assert one.machines["distill"].at_once["distill"] == 64
    speeds = certain(found.original.speed), certain(found.compressed.speed)
    assert speeds[0].batch_size == speeds[1].batch_size <= 4
    assert [line for line in said if line.startswith("distill: ")] == [
        "distill: 4 rows at once from here on, since more do not fit into the memory (distillation.micro_batch_size)"
    ]


def test_without_memory_for_a_row_a_run_ends_with_one_line_and_is_carried_on_elsewhere(
    small_plan: dict[str, Any], tmp_path: Path, with_memory_for: Callable[..., None]
) -> None:
    plan = parse_plan(small_plan)
    with_memory_for(0, ["engine.parts.training"])
    with pytest.raises(UserError, match=r"^distill: the memory is too small for a single row; .* --resume "):
        compress(plan, tmp_path / "out")
    with_memory_for(64, ["engine.parts.training"])
    compress(plan, tmp_path / "out", resume=True)
    assert (tmp_path / "out" / "compressed" / "config.json").is_file()


def test_what_processes_have_found_is_told_noted_and_given_to_the_next_ones(
    small_plan: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = parse_plan(small_plan | {"distillation": small_plan["distillation"] | {"processes": 2}})
    store = open_store(str(tmp_path / "store"))
    materials = Materials(plan, store, store.add_checkpoint(Path(plan.model)))
    jobs, said = list[Job](), list[str]()

    def torchrun(command: list[str], **_: Any) -> Any:
        jobs.append(Job.model_validate_json(Path(command[-1]).read_text("utf-8")))
        found = '{"checkpoint": null, "loss": [], "at_once": {"distill": 16}, "lowered": {"distill": 16}}'
        jobs[-1].result.write_text(found, "utf-8")
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(launch.subprocess, "run", torchrun)
    with listening(lambda event: said.append(event.words) if isinstance(event, Said) else None):
        record = certain(distill(materials, materials.original).record)
    assert certain(record.machine).at_once["distill"] == 16
    assert "at_once" not in record.values
    assert "distill: 16 rows at once from here on" in "".join(said)
    distill(materials, materials.original, plan.distillation.model_copy(update={"epochs": 7}))
    assert [job.lowered for job in jobs] == [{}, {"distill": 16}]
