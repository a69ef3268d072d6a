"""Processes that have a share of the student each (`distillation.sharding`)."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import ranks
from support.certain import certain
from support.forks import Forks
from support.jobs import done_by, job_of
from support.paths import ROOT

from lmmpress.distillation.optimizers import has_torchao
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.importance import importance
from lmmpress.engine.parts.launch import train_in_processes
from lmmpress.engine.parts.lesson import side_of
from lmmpress.engine.parts.prune import prune
from lmmpress.engine.parts.sharding import _whole, sharding_of
from lmmpress.engine.parts.training import Trained, lasting, train
from lmmpress.errors import UserError
from lmmpress.lmm.checkpoint import load_model
from lmmpress.plan import Plan, parse_plan
from lmmpress.pruning.economy import ROOM, choose
from lmmpress.pruning.memory import training_bytes
from lmmpress.settings.distillation import Distillation
from lmmpress.settings.economy import NO_ECONOMY
from lmmpress.store import open_store

STAGES = {"block": {"step": 1, "max": 1}}


@pytest.fixture
def raw(raw_plan: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    settings = raw_plan["distillation"] | {"epochs": 2, "batch_size": 7, "micro_batch_size": 2, "sharding": "full"}
    return raw_plan | {"stages": STAGES, "store": str(tmp_path / "store"), "distillation": settings}


def begun(raw: dict[str, Any], tower: str = "language") -> tuple[Materials, str]:
    """A run's materials, and its model with one block less, or with a vision tower of narrower blocks."""
    plan = parse_plan(raw)
    store = open_store(certain(plan.store))
    materials = Materials(plan, store, store.add_checkpoint(Path(plan.model)))
    if tower == "vision":
        scores = importance(materials, materials.original).scored.scores
        return materials, prune(materials, materials.original, tower, "ffn", 16, scores).checkpoint
    return materials, prune(materials, materials.original, tower, "block", 1, None).checkpoint


def weights(materials: Materials, checkpoint: str | None) -> dict[str, torch.Tensor]:
    return load_model(materials.store.checkpoint(certain(checkpoint))).state_dict()


def assert_same(materials: Materials, student: str, one: Trained, other: Trained) -> None:
    """The same losses, and weights that differ by much less than how far they went: where a gradient is next to
    nothing, rounding decides the sign of AdamW's first updates."""
    exact = materials.dtype is torch.float32
    assert min(one.loss) > 1e-5, "more than rounding"
    assert other.loss == pytest.approx(one.loss, rel=1e-4 if exact else 0.05)
    before, mine, theirs = (weights(materials, name) for name in (student, one.checkpoint, other.checkpoint))
    assert mine.keys() == theirs.keys()
    moved = sum(float((mine[name] - before[name]).abs().sum()) for name in mine)
    apart = sum(float((mine[name] - theirs[name]).abs().sum()) for name in mine)
    assert moved > 0
    assert apart < (0.01 if exact else 0.5) * moved
    folders = [materials.store.checkpoint(certain(name)) for name in (one.checkpoint, other.checkpoint)]
    layouts = [sorted((path.name, path.stat().st_size) for path in folder.iterdir()) for folder in folders]
    assert layouts[0] == layouts[1]


CASES: dict[str, tuple[str, int, dict[str, Any], dict[str, Any]]] = {
    # tied head, frozen image side; of 7 rows the last process has one portion less than the others
    "tied": ("llama", 4, {}, {"micro_batch_size": 1}),
    # ties between encoder and decoder, and a projector that learns from pixels that are read anew
    "encoder and decoder": ("t5", 2, {"towers": ["qformer", "language"]}, {"caches": False}),
    # the image side alone, with a block that its features skip
    "image side": ("llava-clip-llama", 2, {"towers": ["vision", "language"]}, {"image_side": "features"}),
    "half precision": ("llama", 2, {"dtype": "bfloat16"}, {}),
    "everything": ("llama", 2, {}, {"refit_rows": 8, "learning_rate": "auto", "stop_within": True, "epochs": 3}),
}


@pytest.mark.parametrize("case", CASES)
def test_shares_learn_what_one_process_learns(
    raw: dict[str, Any], make_checkpoint: Callable[..., Path], forks: Forks, tmp_path: Path, case: str
) -> None:
    model, count, changes, settings = CASES[case]
    raw = raw | changes | {"model": str(make_checkpoint(model)), "distillation": raw["distillation"] | settings}
    tower = "vision" if case == "image side" else "language"
    materials, student = begun(raw, tower)
    assert side_of(materials, student, materials.plan.distillation) == ("image" if tower == "vision" else "whole")
    alone = train(materials, student, 5, materials.plan.distillation)
    job = job_of(materials, student, tmp_path, part="distill", processes=count, seed=5)
    together = Trained.model_validate_json(done_by(forks, job))
    assert together.learning_rate == (alone.learning_rate and pytest.approx(alone.learning_rate, rel=0.05))
    assert_same(materials, student, alone, together)
    held = [int(Path(f"{job.result}.held-{rank}").read_text("utf-8")) for rank in range(count)]
    whole = sum(parameter.numel() for parameter in load_model(materials.store.checkpoint(student)).parameters())
    assert sum(held) == whole
    assert max(held) < 1.3 * whole / count


@pytest.mark.parametrize(
    "economy", [{"optimizer": "adamw8bit"}, {"optimizer": "adamw8bit", "weights": "bfloat16", "recompute": "always"}]
)
def test_shares_learn_with_economies(
    raw: dict[str, Any], forks: Forks, tmp_path: Path, economy: dict[str, str]
) -> None:
    """Averages have other scales and weights are rounded by other draws than in one process: losses are close."""
    materials, student = begun(raw | {"distillation": raw["distillation"] | economy | {"epochs": 4}})
    alone = train(materials, student, 5, materials.plan.distillation)
    job = job_of(materials, student, tmp_path, part="distill", processes=2, seed=5)
    together = Trained.model_validate_json(done_by(forks, job))
    assert str(together.economy) == str(alone.economy)
    assert together.loss == pytest.approx(alone.loss, rel=0.05)
    assert together.loss[-1] < 0.8 * together.loss[0]
    start, found = weights(materials, student), weights(materials, together.checkpoint)
    for name, value in found.items():
        assert value.dtype is torch.float32
        assert torch.equal(value, start[name]) == name.startswith(materials.frozen), name


@pytest.mark.long
def test_after_one_process_was_killed_a_run_resumes_to_the_same_result(
    raw: dict[str, Any], taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = raw | {"model": str(taught)}
    materials, student = begun(raw)
    settings = materials.plan.distillation.model_copy(update={"processes": 2})
    alone = train(materials, student, 5, settings)
    monkeypatch.setattr("lmmpress.engine.parts.launch.worker", ranks)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests"), str(ROOT)]))
    monkeypatch.setenv(ranks.DIES, str(tmp_path / "died"))
    with pytest.raises(UserError, match=r"^distillation on 2 processes failed: [^\n]+$") as failed:
        train_in_processes(materials, student, 5, settings)
    assert (tmp_path / "died").exists()
    assert "SIGKILL" in str(failed.value)
    assert_same(materials, student, alone, train_in_processes(materials, student, 5, settings))


@pytest.mark.long
def test_a_process_without_memory_ends_all_that_share_a_student_with_it(
    raw: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot begin anew alone; one line says what to set, and with that it learns."""
    materials, student = begun(raw)
    settings = materials.plan.distillation.model_copy(update={"processes": 2})
    monkeypatch.setattr("lmmpress.engine.parts.launch.worker", ranks)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests"), str(ROOT)]))
    monkeypatch.setenv(ranks.SMALL, "1")
    with pytest.raises(UserError, match=r"^distillation on 2 processes failed: distill: .* 2 rows at once, .*") as told:
        train_in_processes(materials, student, 5, settings)
    assert str(told.value).endswith("set distillation.micro_batch_size to a smaller number")
    fewer = settings.model_copy(update={"micro_batch_size": 1})
    alone = train(materials, student, 5, fewer.model_copy(update={"processes": 1}))
    assert_same(materials, student, alone, train_in_processes(materials, student, 5, fewer))


class Gpu:
    """A GPU of so many bytes."""

    def __init__(self, total: int) -> None:
        self.total_memory = total


def test_a_student_is_shared_where_a_gpu_has_no_room_for_it(
    raw: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    materials, student = begun(raw)
    auto = materials.plan.distillation.model_copy(update={"processes": 2, "sharding": "auto"})
    assert sharding_of(materials, student, auto) == "none", "without a GPU processes share one memory"
    monkeypatch.setattr(type(materials.accelerator), "device", torch.device("cuda"))
    whole = _whole(materials, student, auto)
    least = training_bytes(whole, choose(lambda _: whole, auto, 1, 1, has_torchao()).economy)
    assert least < training_bytes(whole, NO_ECONOMY), "economies come first"
    for size, found in ((least / ROOM - 1, "full"), (least / ROOM + 1, "none")):
        monkeypatch.setattr("torch.cuda.get_device_properties", lambda _, size=size: Gpu(int(size)))
        assert sharding_of(materials, student, auto) == found
        for named in ("none", "full"):
            assert sharding_of(materials, student, auto.model_copy(update={"sharding": named})) == named


def test_neither_run_nor_step_is_another_one_with_shares(raw: dict[str, Any]) -> None:
    plain: Plan = parse_plan(raw | {"distillation": raw["distillation"] | {"sharding": "none"}})
    assert plain.key_settings() == parse_plan(raw).key_settings()
    assert lasting(Distillation()) == lasting(Distillation(sharding="full"))
