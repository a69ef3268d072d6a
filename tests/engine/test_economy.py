"""Steps whose student learns in less memory: without the teacher, and with economies."""

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.certain import certain

from lmmpress.distillation.learner import Learner
from lmmpress.engine.compression import compress
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts import economy, training
from lmmpress.engine.parts.distill import distill
from lmmpress.engine.parts.launch import train_in_processes
from lmmpress.engine.parts.prune import prune
from lmmpress.engine.parts.training import Trained, train
from lmmpress.errors import UserError
from lmmpress.lmm.at_once import remembering
from lmmpress.lmm.checkpoint import load_model, read_record
from lmmpress.lmm.weights import WeightFile, weight_files
from lmmpress.plan import parse_plan
from lmmpress.progress import Said, listening
from lmmpress.pruning.economy import ROOM, Trainings
from lmmpress.pruning.memory import training_bytes
from lmmpress.result import Result
from lmmpress.settings.economy import NO_ECONOMY, Economy
from lmmpress.store import open_store

pytestmark = pytest.mark.usefixtures("trusting")
ALL = {"optimizer": "adamw8bit", "weights": "bfloat16", "recompute": "always"}


@pytest.fixture
def materials(raw_plan: dict[str, Any], tmp_path: Path) -> Callable[..., Materials]:
    def make(**distillation: Any) -> Materials:
        plan = parse_plan(raw_plan | {"distillation": raw_plan["distillation"] | distillation})
        store = open_store(str(tmp_path / "store"))
        return Materials(plan, store, store.add_checkpoint(Path(plan.model)))

    return make


def shorter(materials: Materials) -> str:
    """The original without a block."""
    return prune(materials, materials.original, "language", "block", 1, None).checkpoint


def weights(materials: Materials, trained: Trained) -> dict[str, torch.Tensor]:
    return dict(load_model(materials.store.checkpoint(certain(trained.checkpoint))).named_parameters())


def alive() -> list[torch.nn.Parameter]:
    gc.collect()
    return [one for one in gc.get_objects() if isinstance(one, torch.nn.Parameter) and not one.is_meta]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many numbers of parameters are alive beside the student, at the beginning of each training."""
    before, found = alive(), list[int]()  # those of other tests stay alive, so that no new one gets their number
    learn = training.distill

    def watched(learner: Learner, *args: Any) -> Any:
        known = {id(one) for one in (*before, *learner.parameters())}
        found.append(sum(one.numel() for one in alive() if id(one) not in known))
        return learn(learner, *args)

    monkeypatch.setattr(training, "distill", watched)
    return found


@pytest.mark.parametrize("changes", [{}, {"refit_rows": 8}, {"learning_rate": "auto"}, ALL], ids=str)
def test_while_a_student_learns_only_the_teachers_head_is_alive(
    materials: Callable[..., Materials], held: list[int], changes: dict[str, Any]
) -> None:
    mine = materials(**changes)
    assert None not in (mine.teacher_model, mine.teacher_head), "they are loaded now"
    distill(mine, shorter(mine))
    assert held == [sum(one.numel() for one in mine.teacher_head.parameters())]


@pytest.mark.parametrize("caches", [False, {"disk": 0}], ids=str)
def test_without_caches_or_room_for_them_the_teacher_stays(
    materials: Callable[..., Materials], held: list[int], caches: Any
) -> None:
    mine = materials(caches=caches)
    assert mine.teacher_model is not None, "it is loaded now"
    distill(mine, shorter(mine))
    assert held == [sum(one.numel() for one in mine.teacher_model.parameters())]


def test_where_the_store_has_the_caches_the_teacher_is_not_loaded(
    materials: Callable[..., Materials], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = materials()
    student = shorter(first)
    wanted = train(first, student, 5, first.plan.distillation)

    def refused(*_: Any) -> torch.nn.Module:
        raise AssertionError("the teacher is loaded")

    monkeypatch.setattr("lmmpress.engine.materials.load_model", refused)
    again = materials()
    assert train(again, student, 5, again.plan.distillation).loss == wanted.loss


def test_recomputation_changes_only_rounding_and_no_name(materials: Callable[..., Materials]) -> None:
    usual, again = materials(), materials(recompute="always")
    student = shorter(usual)
    one, other = (train(mine, student, 5, mine.plan.distillation) for mine in (usual, again))
    assert one.economy is None
    assert str(other.economy) == "recomputation"
    assert other.loss == pytest.approx(one.loss, rel=1e-5)
    exact = weights(usual, one)
    for name, value in weights(again, other).items():
        assert torch.allclose(value, exact[name], atol=1e-6), name
    assert certain(distill(usual, student).record).name == certain(distill(again, student).record).name


@pytest.mark.parametrize(
    "changes",
    [{"optimizer": "adamw8bit"}, {"weights": "bfloat16"}, {"optimizer": "adamw", "weights": "bfloat16"}, ALL],
    ids=str,
)
def test_a_student_learns_with_them_as_it_does_without(
    materials: Callable[..., Materials], changes: dict[str, Any]
) -> None:
    """Close to the same losses; and what is frozen stays as it is stored, to the last bit."""
    usual, mine = materials(epochs=4), materials(epochs=4, **changes)
    student = shorter(usual)
    wanted = train(usual, student, 5, usual.plan.distillation)
    found = train(mine, student, 5, mine.plan.distillation)
    assert wanted.loss[-1] < 0.8 * wanted.loss[0]
    assert found.loss == pytest.approx(wanted.loss, rel=0.1)
    assert certain(found.economy).needs_torchao
    start = {name: value for name, value in load_model(mine.store.checkpoint(student)).named_parameters()}
    for name, value in weights(mine, found).items():
        frozen = name.startswith(mine.frozen)
        assert torch.equal(value, start[name]) == frozen, name
    files = map(WeightFile, weight_files(mine.store.checkpoint(certain(found.checkpoint))))
    assert {file.dtype(name) for file in files for name in file} == {torch.float32}


def test_two_processes_learn_what_one_learns(materials: Callable[..., Materials]) -> None:
    """The weights of both are rounded alike, so they stay the same."""
    mine = materials(**ALL, epochs=2)
    student, settings = shorter(mine), mine.plan.distillation
    alone = train(mine, student, 5, settings)
    together = train_in_processes(mine, student, 5, settings.model_copy(update={"processes": 2}))
    assert together.loss == pytest.approx(alone.loss, rel=0.1)
    assert together.economy == alone.economy


def test_a_step_on_the_image_side_learns_with_them(raw_plan: dict[str, Any], tmp_path: Path) -> None:
    learned = raw_plan["distillation"] | {"image_side": "features"} | ALL
    plan = parse_plan(raw_plan | {"towers": ["vision", "language"], "distillation": learned})
    store = open_store(str(tmp_path / "store"))
    mine = Materials(plan, store, store.add_checkpoint(Path(plan.model)))
    student = prune(mine, mine.original, "vision", "block", 1, None).checkpoint
    found = train(mine, student, 5, plan.distillation)
    start = load_model(store.checkpoint(student))
    for name, value in weights(mine, found).items():
        assert torch.equal(value, start.get_parameter(name)) or name.startswith(mine.anatomy.image_side), name


def test_what_is_chosen_is_said_and_noted(
    raw_plan: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(economy, "_budget", lambda _: 1000)
    plan = parse_plan(raw_plan | {"stages": {"ffn": {"step": 16, "max": 16}}})
    said = []
    with listening(lambda event: said.append(event.words) if isinstance(event, Said) else None):
        result = compress(plan, tmp_path / "out")
    (step,) = result.steps
    chosen = certain(step.economy)
    assert chosen == Economy(recompute=True, optimizer="adamw8bit", why=chosen.why), "it computes in float32 here"
    (line,) = [line for line in said if line.startswith("distillation: ")]
    assert line == f"distillation: recomputation, 8-bit averages, 1 row at once: the student {chosen.why}"
    read = Result.model_validate_json((tmp_path / "out" / "result.json").read_text("utf-8"))
    assert read.steps == [step]
    history = certain(read_record(tmp_path / "out" / "compressed"))["history"]
    assert history[-1]["economy"] == {"recompute": True, "optimizer": "adamw8bit", "weights": "float32"}
    assert compress(plan, tmp_path / "out", resume=True).steps == [step]


def test_fewer_rows_at_once_come_before_economies(
    materials: Callable[..., Materials], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So numbers differ by rounding alone, and so does the record of the step."""
    usual, mine = materials(batch_size=32), materials(batch_size=32)
    student, needs, trainings = shorter(usual), dict[int, int](), economy._trainings

    def noted(*arguments: Any) -> Trainings:
        found = trainings(*arguments)
        needs.update({rows: training_bytes(found(rows), NO_ECONOMY) for rows in (16, 8)})
        return found

    monkeypatch.setattr(economy, "_trainings", noted)
    wanted = train(usual, student, 5, usual.plan.distillation)
    assert needs[8] < needs[16]
    monkeypatch.setattr(economy, "_budget", lambda _: int(1.001 * needs[8] / ROOM))
    said = []
    listener = listening(lambda event: said.append(event.words) if isinstance(event, Said) else None)
    with listener, remembering({}) as at_once:
        found = train(mine, student, 5, mine.plan.distillation)
    assert at_once["distill"] == 8
    assert found.economy is None
    assert found.loss == pytest.approx(wanted.loss, rel=1e-5)
    assert any(line.startswith("distillation: 8 rows at once: the student takes ") for line in said)
    assert certain(distill(usual, student).record).name == certain(distill(mine, student).record).name


def test_what_fits_is_as_it_always_was(materials: Callable[..., Materials]) -> None:
    mine = materials()
    said = []
    with listening(lambda event: said.append(event.words) if isinstance(event, Said) else None):
        found = distill(mine, shorter(mine))
    assert found.economy is None
    assert not any("economy" in line or "student" in line for line in said)


def test_a_missing_package_is_found_before_a_run_begins(
    raw_plan: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    plan = parse_plan(raw_plan, ("distillation.optimizer=adamw8bit",))
    with pytest.raises(UserError, match=r"optimizer: adamw8bit needs the package torchao: pip install 'lmmpress\[mem"):
        compress(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bfloat16_is_only_chosen_where_computation_is_in_it(
    raw_plan: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(economy, "_budget", lambda _: 1000)
    plan = parse_plan(raw_plan | {"dtype": "bfloat16"})
    store = open_store(str(tmp_path / "store"))
    mine = Materials(plan, store, store.add_checkpoint(Path(plan.model)))
    found = certain(distill(mine, shorter(mine)).economy)
    assert str(found) == "recomputation, 8-bit averages, bfloat16 weights"
