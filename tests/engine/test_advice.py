"""Advice: what cuts lose, what that suggests, and the plan that is written."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.data import COLORS

from lmmpress.api import advise, plan_sizes
from lmmpress.engine import sensitivity
from lmmpress.engine.advice import maxima, ratio_at, shares_at
from lmmpress.engine.compression import compress
from lmmpress.engine.expected_time import Pace, expected
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts import once
from lmmpress.engine.parts.distill import distill
from lmmpress.engine.parts.evaluate import evaluate
from lmmpress.engine.parts.importance import importance
from lmmpress.engine.parts.prune import prune
from lmmpress.engine.sensitivity import Loss, Sensitivity, Way, cuts_of_way, floor_of, measure
from lmmpress.engine.suggestion import cost_of, kept_of, suggest
from lmmpress.errors import UserError
from lmmpress.lmm.checkpoint import read_checkpoint
from lmmpress.plan import parse_plan, read_plan
from lmmpress.result import Drop, Interval
from lmmpress.store import open_store

STAGES = {"block": {"step": 1, "max": 2}, "ffn": {"step": 16, "max": 32}}
FFN, BLOCK = Way("ffn", "language", "language", 100, 1), Way("block", "language", "language", 12, 1)


def loss(way: Way, removed: int, accuracy: float, saved: float = 0.1, before: float = 0.9) -> Loss:
    interval = Interval(low=-1.0, high=1.0, confidence=0.95)
    drop = Drop(value=before - accuracy, interval=interval)
    return Loss(way, removed, saved, accuracy, drop, "0" * 64, {"prune": 1.0, "distill": 0.0, "evaluate": 2.0})


def found(*losses: Loss, floor: float = 0.1, accuracy: float = 0.9) -> Sensitivity:
    return Sensitivity(accuracy, floor, "higher", losses, 3.0)


def materials_of(raw: dict[str, Any], folder: Path) -> Materials:
    plan, store = parse_plan(raw), open_store(str(folder))
    return Materials(plan, store, store.add_checkpoint(Path(plan.model)))


@pytest.fixture
def text_data(tmp_path: Path) -> Path:
    """Rows without pictures."""
    rows = [
        {
            "question": f"标题{'新品包邮'[number % 4]}",
            "answer": list(COLORS)[number % 4],
            "task": "color",
            "split": split,
        }
        for split in ("score", "distill", "gate", "test")
        for number in range(8)
    ]
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n", "utf-8")
    return folder


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the parts that are computed, as they begin."""
    names: list[str] = []
    original = once.now_making

    def making(part: str) -> Any:
        names.append(part)
        return original(part)

    monkeypatch.setattr(once, "now_making", making)
    return names


@pytest.mark.parametrize("refit", [0, 8])
def test_a_cut_loses_what_pruning_and_evaluating_it_says(
    raw_plan: dict[str, Any], taught: Path, tmp_path: Path, refit: int
) -> None:
    raw_plan |= {"model": str(taught), "stages": STAGES}
    raw_plan["distillation"] |= {"refit_rows": refit}
    losses = measure(materials_of(raw_plan, tmp_path / "one")).losses
    assert [(one.way.axis, one.removed) for one in losses] == [
        ("block", 1),
        ("block", 2),
        ("ffn", 6),
        ("ffn", 16),
        ("ffn", 32),
    ]
    other = materials_of(raw_plan, tmp_path / "other")
    before = evaluate(other, other.original, "gate")
    scores = importance(other, other.original).scored.scores
    for one in losses:
        cut = prune(other, other.original, "language", one.way.axis, one.removed, scores)
        assert cut.checkpoint == one.checkpoint
        settings = other.plan.distillation.model_copy(update={"epochs": 0})
        checkpoint = distill(other, cut.checkpoint, settings).checkpoint
        assert (checkpoint != cut.checkpoint) == bool(refit and one.way.axis == "ffn")
        after = evaluate(other, str(checkpoint), "gate")
        assert one.accuracy == after.accuracy
        assert one.drop.value == pytest.approx(before.accuracy - after.accuracy)
        assert one.drop.interval.low <= one.drop.value <= one.drop.interval.high
        whole, left = other.anatomy.parameters, other.anatomy_of(cut.checkpoint).parameters
        assert one.saved == pytest.approx((whole - left) / whole)


def test_only_the_splits_to_score_to_distil_and_of_the_gate_are_measured(
    raw_plan: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles: list[str] = []
    original = Materials.examples

    def examples(self: Materials, role: Any) -> Any:
        roles.append(role)
        return original(self, role)

    monkeypatch.setattr(Materials, "examples", examples)
    advise(raw_plan | {"stages": {"ffn": {"step": 16, "max": 32}}})
    assert set(roles) == {"score", "distill", "gate"}


@pytest.mark.parametrize(
    ("width", "unit", "cuts"), [(100, 1, [10, 25, 50]), (4, 1, [1, 2]), (64, 16, [16, 32]), (2, 1, [1]), (16, 16, [])]
)
def test_shares_are_cut_to_the_nearest_legal_number_each_once(width: int, unit: int, cuts: list[int]) -> None:
    assert cuts_of_way(replace(FFN, width=width, unit=unit)) == cuts


def test_what_loses_least_for_what_it_saves_comes_first() -> None:
    cheap, dear = loss(FFN, 10, 0.8, saved=0.4), loss(BLOCK, 1, 0.85, saved=0.01)
    for losses in ((cheap, dear), (dear, cheap)):
        stages = suggest(found(*losses), {FFN: 50, BLOCK: 6})
        assert [one.way for one in stages] == [FFN, BLOCK]
    stages = suggest(found(cheap, replace(dear, saved=0.9)), {FFN: 50, BLOCK: 6})
    assert [one.way for one in stages] == [BLOCK, FFN]


def test_of_cuts_that_lose_nothing_the_one_that_saves_more_comes_first() -> None:
    losses = loss(FFN, 10, 0.9, saved=0.1), loss(BLOCK, 1, 0.95, saved=0.2)
    assert cost_of(losses[:1]) == cost_of(losses[1:]) == 0
    assert [one.way for one in suggest(found(*losses), {FFN: 50, BLOCK: 6})] == [BLOCK, FFN]


@pytest.mark.parametrize(
    ("accuracies", "step"),
    [
        ((0.9, 0.85, 0.8), 50),
        ((0.9, 0.8, 0.71), 50),
        ((0.9, 0.8, 0.69), 25),
        ((0.9, 0.2, 0.8), 10),  # a larger cut that seems better than a smaller one is noise
        ((0.3, 0.2, 0.1), 5),
    ],
)
def test_a_step_is_the_largest_cut_that_keeps_three_quarters_of_the_skill(
    accuracies: tuple[float, float, float], step: int
) -> None:
    losses = [loss(FFN, removed, accuracy) for removed, accuracy in zip((10, 25, 50), accuracies, strict=True)]
    (stage,) = suggest(found(*losses), {FFN: 90})
    assert (stage.step, stage.most, stage.steps) == (step, 90, -(-90 // step))
    (limited,) = suggest(found(*losses), {FFN: 3})
    assert (limited.step, limited.most) == (3, 3)
    assert "maximum 3" in limited.reason


def test_skill_is_counted_from_what_no_skill_gives() -> None:
    half = loss(FFN, 10, 0.6)
    assert kept_of(found(half, floor=0.3), half) == pytest.approx(0.5)
    assert kept_of(found(half, floor=0.9), half) is None
    assert kept_of(found(half, floor=float("inf")), half) is None
    errors = Sensitivity(0.2, 1.0, "lower", (half,), 0.0)
    assert kept_of(errors, half) == pytest.approx(0.5)
    (stage,) = suggest(found(half, loss(FFN, 25, 0.6), floor=0.9), {FFN: 90})
    assert stage.step == 10


def test_a_smaller_step_than_the_smallest_cut_is_legal() -> None:
    way = replace(FFN, unit=8, width=96)
    assert suggest(found(loss(way, 8, 0.1)), {way: 48})[0].step == 8
    assert suggest(found(loss(way, 24, 0.1)), {way: 48})[0].step == 8


def test_the_floor_is_the_share_of_the_most_common_answer_of_each_task(
    raw_plan: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    answers = {"one": ["红色"] * 5 + ["绿色"] * 3, "other": ["蓝色"] * 4}
    rows = [
        {"question": f"标题{number}", "answer": answer, "task": task, "split": split}
        for split in ("score", "distill", "gate", "test")
        for task, given in answers.items()
        for number, answer in enumerate(given)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n", "utf-8")
    materials = materials_of(raw_plan | {"data": str(tmp_path)}, tmp_path / "store")
    assert floor_of(materials) == pytest.approx((5 + 4) / 12)
    metric = {"metrics": {"one": "token_f1", "default": "exact"}}
    assert floor_of(materials_of(raw_plan | {"data": str(tmp_path)} | metric, tmp_path / "store")) == (0 + 4) / 12


def test_the_time_is_that_of_all_steps(raw_plan: dict[str, Any]) -> None:
    raw_plan["distillation"] |= {"epochs": 2}
    losses = found(loss(FFN, 10, 0.8), loss(BLOCK, 1, 0.8))
    stages = suggest(losses, {FFN: 20, BLOCK: 3})
    plan = parse_plan(raw_plan)
    time = expected(plan, stages, losses, Pace(row=0.5, beside=7.0), 10, gpus=2)
    step = 1.0 + (7.0 + 2 * 10 * 0.5) + 2 * 2.0
    steps = {stage.way: stage.steps for stage in stages}
    assert time.steps == sum(steps.values())
    assert time.seconds == pytest.approx(time.steps * step + steps[FFN] * 3.0), "blocks are not scored"
    assert time.gpu_hours == pytest.approx(2 * time.seconds / 3600)
    assert expected(plan, stages, losses, Pace(0.5, 7.0), 10, gpus=0).gpu_hours is None


@pytest.mark.parametrize("kind", ["llama", "text-llama", "opt", "llava-clip-llama"])
def test_the_suggested_plan_is_one_that_other_commands_take(
    kind: str,
    raw_plan: dict[str, Any],
    make_checkpoint: Callable[..., Path],
    data: Path,
    text_data: Path,
    tmp_path: Path,
) -> None:
    raw_plan |= {"model": str(make_checkpoint(kind)), "stages": STAGES}
    raw_plan |= {"data": str(text_data if kind == "text-llama" else data)}
    out = tmp_path / "suggested.yaml"
    advice = advise(raw_plan, out)
    plan = read_plan(out)
    assert [(one.axis, one.step, one.max) for one in plan.stages] == [
        (one.way.axis, one.step, one.most) for one in advice.stages
    ]
    same = parse_plan(raw_plan, ("distillation.learning_rate=auto",))
    assert plan.model_dump(exclude={"stages"}) == same.model_dump(exclude={"stages"})
    assert len(plan_sizes(out)) == 1 + advice.time.steps
    lines = out.read_text("utf-8").splitlines()
    for stage in advice.stages:
        assert f"# {stage.reason}" in lines
    json.dumps(advice.as_dict(), allow_nan=False)
    assert not [entry for entry in tmp_path.iterdir() if entry.name not in (out.name, f"{out.name}.store", "texts")]


def test_a_run_takes_the_suggested_plan(raw_plan: dict[str, Any], tmp_path: Path, trusting: None) -> None:
    out = tmp_path / "suggested.yaml"
    raw_plan["stages"] = {"block": {"step": 1, "max": 1}}
    advice = advise(raw_plan, out)
    result = compress(read_plan(out), tmp_path / "run")
    assert len(result.steps) == advice.time.steps == 1


def test_each_tower_of_a_plan_has_a_stage_of_its_own(raw_plan: dict[str, Any], tmp_path: Path) -> None:
    raw_plan |= {"towers": ["vision", "language"], "stages": {"ffn": {"step": "25%", "max": "50%"}}}
    raw_plan["pipeline"] = {"approve": ["ffn"]}
    out = tmp_path / "suggested.yaml"
    advise(raw_plan, out)
    plan = read_plan(out)
    assert {(one.axis, one.tower, one.max) for one in plan.stages} == {("ffn", "vision", 24), ("ffn", "language", 32)}
    assert plan.pipeline.approve == ["ffn"]


def test_stages_on_the_largest_tower_stay_so(raw_plan: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "suggested.yaml"
    advise(raw_plan | {"towers": ["largest"], "stages": {"ffn": {"step": 8, "max": 16}}}, out)
    (stage,) = read_plan(out).stages
    assert (stage.tower or read_plan(out).towers[0], stage.max) == ("largest", 16)


def test_a_target_needs_towers_by_name(raw_plan: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="towers by name"):
        advise(raw_plan | {"towers": ["largest"]}, tmp_path / "other.yaml", target=2)


def test_a_target_sets_the_least_maxima_that_reach_it(raw_plan: dict[str, Any]) -> None:
    plan = parse_plan(raw_plan)
    anatomy = read_checkpoint(Path(plan.model))
    most = maxima(plan, anatomy, 3.0)
    (percent,) = [one for one in range(1, 100) if shares_at(list(most), one) == most][:1]
    assert ratio_at(plan, anatomy, list(most), percent) >= 3 > ratio_at(plan, anatomy, list(most), percent - 1)
    for target, words in ((10_000, "at most"), (1, "more than 1"), (float("nan"), "more than 1")):
        with pytest.raises(UserError, match=words):
            maxima(plan, anatomy, target)


def test_without_a_target_a_stage_removes_what_the_plan_says(raw_plan: dict[str, Any]) -> None:
    raw_plan["stages"] = [{"axis": "ffn", "step": 8, "max": 16}, {"axis": "ffn", "step": 4, "max": 12}]
    plan = parse_plan(raw_plan)
    assert list(maxima(plan, read_checkpoint(Path(plan.model)), None).values()) == [28]


def test_an_existing_file_is_refused_before_any_work(
    raw_plan: dict[str, Any], tmp_path: Path, computed: list[str]
) -> None:
    out = tmp_path / "suggested.yaml"
    out.write_text("mine", "utf-8")
    with pytest.raises(UserError, match="exists and is not changed"):
        advise(raw_plan, out)
    with pytest.raises(UserError, match="there is no folder"):
        advise(raw_plan, tmp_path / "none" / "suggested.yaml")
    (tmp_path / "other.yaml.store").mkdir()
    (tmp_path / "other.yaml.store" / "notes.txt").write_text("mine", "utf-8")
    with pytest.raises(UserError, match="is no store"):
        advise(raw_plan, tmp_path / "other.yaml")
    assert out.read_text("utf-8") == "mine"
    assert computed == []


def test_a_stopped_advice_carries_on(
    raw_plan: dict[str, Any], tmp_path: Path, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw_plan["stages"] = {"ffn": {"step": 16, "max": 32}}
    advise(raw_plan, tmp_path / "whole.yaml")
    all_parts = list(computed)
    computed.clear()

    calls: list[int] = []
    original = sensitivity.prune

    def stopping(materials: Materials, checkpoint: str, tower: str, axis: str, removed: int, scores: Any) -> Any:
        calls.append(removed)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(materials, checkpoint, tower, axis, removed, scores)

    out = tmp_path / "suggested.yaml"
    with monkeypatch.context() as patched:
        patched.setattr(sensitivity, "prune", stopping)
        with pytest.raises(KeyboardInterrupt):
            advise(raw_plan, out)
    assert not out.exists()
    assert computed
    advise(raw_plan, out)
    assert sorted(computed) == sorted(all_parts), "each part is computed once over both calls"
    first, second = (yaml.safe_load(path.read_text("utf-8")) for path in (tmp_path / "whole.yaml", out))
    assert first == second
    computed.clear()
    out.unlink()
    advise(raw_plan, out)
    assert computed == []
