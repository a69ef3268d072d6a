"""The memory that parts need: what the formulas must hold for any model. bench/memory.py measures them."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tiny import config_of

from lmmpress.lmm.read_anatomy import anatomy_of
from lmmpress.plan import Plan, parse_plan
from lmmpress.pruning.memory import (
    BASE,
    CONTEXT,
    COPYING,
    LOADED,
    LOADING,
    Need,
    Weights,
    needs_of,
    needs_without_model,
)
from lmmpress.pruning.sizes import _moments, predict, predict_memory

MODEL = Weights(
    original=900_000_000,
    cut=800_000_000,
    trained=700_000_000,
    scored=600_000_000,
    reached=600_000_000,
    largest=50_000_000,
)
COUNT = st.integers(1, 10**11)


def plan_of(**changes: Any) -> Plan:
    return parse_plan({"model": "m", "data": "d", "stages": {"ffn": {"step": 8, "max": 8}}} | changes)


def of(weights: Weights, plan: Plan | None = None, sees_once: bool = False, **given: Any) -> dict[str, Need]:
    return {need.part: need for need in needs_of(weights, plan or plan_of(), sees_once, **given)}


def amounts(need: Need) -> tuple[int, int, int]:
    return need.process, need.process_with_gpu, need.gpu


@given(COUNT, st.floats(0.1, 1), st.floats(0, 1), st.integers(1, 8), st.sampled_from(["auto", "float32", "bfloat16"]))
def test_what_holds_for_every_model(count: int, left: float, trained: float, processes: int, dtype: str) -> None:
    cut = max(1, int(count * left))
    weights = Weights(count, cut, max(1, int(cut * trained)), count, count, count)
    plan = plan_of(dtype=dtype)
    needs, larger = (of(one, plan, processes=processes) for one in (weights, replace(weights, original=2 * count)))
    without = {need.part: need for need in needs_without_model()}
    for part, need in needs.items():
        assert all(less <= more for less, more in zip(amounts(need), amounts(larger[part]), strict=True))
        assert all(least <= own for least, own in zip(amounts(without[part]), amounts(need), strict=True))
    for part in ("importance", "distill", "evaluate"):
        assert all(own <= whole for own, whole in zip(amounts(needs[part]), amounts(needs["stage"]), strict=True))
    both = of(weights, plan_of(dtype=dtype, distillation={"caches": False}), processes=processes)["distill"]
    assert both.process > needs["evaluate"].process, "the student is held, and what trains it"
    assert both.gpu > needs["evaluate"].gpu
    assert all(own <= more for own, more in zip(amounts(needs["distill"]), amounts(both), strict=True))
    assert needs["gate"].process == needs["due"].process < COPYING <= needs["prune"].process


def test_refitting_holds_the_uncut_model_and_the_moments() -> None:
    """They are gone when the student learns, so only what is more than that counts."""
    settings = {"epochs": 0, "refit_rows": 8}
    weights = replace(MODEL, moments=100_000_000)
    refits = of(weights, plan_of(distillation=settings))["distill"]
    nothing = of(weights, plan_of(distillation={"epochs": 0}))["distill"]
    least = 4 * (weights.original + weights.cut + weights.moments)
    assert refits.process - nothing.process == LOADING + max(least, 8 * weights.cut), "nothing loads no model"
    learns, both = (of(weights, plan_of(distillation={"refit_rows": rows}))["distill"] for rows in (0, 8))
    assert amounts(learns) == amounts(both), "learning takes more than refitting here"


def test_the_widest_layer_is_what_refitting_holds() -> None:
    """A FFN of width 64 that writes into a stream of 48 needs more than anything that reads the stream."""
    anatomy = anatomy_of(config_of("text-opt"))
    assert _moments(anatomy, plan_of()) == 4 * 64 * (64 + 48)


def test_what_is_frozen_costs_no_gradient_and_no_optimizer_state() -> None:
    frozen, thawed = (of(replace(MODEL, trained=count))["distill"] for count in (400_000_000, 800_000_000))
    assert thawed.process - frozen.process == 400_000_000 * (4 + 8)
    assert thawed.gpu - frozen.gpu == 400_000_000 * (4 + 8 + 2), "and the copy that autocast keeps"
    assert thawed.process_with_gpu == frozen.process_with_gpu, "it is trained on the GPU"


def test_the_teacher_lies_beside_the_student_only_without_caches() -> None:
    """With them its head does, and the teacher before the student is loaded."""
    weights = replace(MODEL, head=30_000_000)
    alone, both = (of(weights, plan_of(distillation={"caches": caches}))["distill"] for caches in (True, False))
    assert both.process - alone.process == 4 * (weights.original - weights.head)
    assert both.gpu - alone.gpu == 2 * (weights.original - weights.head)
    small = replace(weights, cut=1_000_000, trained=1_000_000)
    assert of(small)["distill"].gpu == CONTEXT + 2 * weights.original, "it computes the caches"


def test_what_the_plan_names_of_an_economy_counts() -> None:
    """What it leaves open is as it always was."""
    usual = of(MODEL)["distill"]
    assert amounts(of(MODEL, plan_of(distillation={"recompute": "always"}))["distill"]) == amounts(usual)
    eight_bits = of(MODEL, plan_of(distillation={"optimizer": "adamw8bit"}))["distill"]
    assert usual.gpu - eight_bits.gpu == MODEL.trained * (8 - 2) - MODEL.trained * 8 // 256
    half = of(MODEL, plan_of(distillation={"weights": "bfloat16"}))["distill"]
    assert usual.gpu - half.gpu == 2 * MODEL.cut + (2 + 2) * MODEL.trained


def test_importance_keeps_gradients_only_where_its_criterion_does() -> None:
    held = {}
    for name, settings in {
        "dataset": {},
        "passes": {"passes": 4},
        "unreliable": {"reliability": False},
        "batch": {"accumulation": "batch"},
        "magnitude": {"criterion": "magnitude"},
    }.items():
        held[name] = of(MODEL, plan_of(importance=settings))["importance"].process
    assert held["dataset"] - held["batch"] == 4 * 2 * MODEL.scored
    frozen = of(replace(MODEL, reached=100_000_000))["importance"].process
    assert frozen - held["batch"] == 4 * 2 * 100_000_000
    assert held["unreliable"] - held["batch"] == 4 * MODEL.scored
    assert held["passes"] - held["batch"] == 4 * 2 * MODEL.scored // 4
    assert held["magnitude"] == held["batch"] == LOADED + 4 * MODEL.original
    seeing = of(MODEL, sees_once=True)["importance"].process
    assert seeing - held["dataset"] == 4 * MODEL.original, "the teacher computes what the student will see"


def test_without_epochs_nothing_is_distilled() -> None:
    assert of(MODEL, plan_of(distillation={"epochs": 0}))["distill"].process == BASE


def test_processes_on_one_machine_share_its_memory() -> None:
    one, four = (of(MODEL, processes=count)["distill"] for count in (1, 4))
    assert four.process > 4 * one.process
    assert four.process_with_gpu > 2 * one.process_with_gpu
    assert one.gpu < four.gpu < 2 * one.gpu


def test_processes_that_share_a_student_need_a_share_of_its_memory_on_each_gpu() -> None:
    def gpu(sharding: str, processes: int) -> int:
        return of(MODEL, plan_of(distillation={"sharding": sharding, "processes": processes}))["distill"].gpu

    assert gpu("full", 1) == gpu("none", 1) == gpu("auto", 1)
    student = 4 * MODEL.cut + 3 * 4 * MODEL.trained
    for count in (2, 4, 8):
        assert gpu("none", count) == gpu("auto", count)
        assert gpu("none", count) - gpu("full", count) >= student * (1 - 1 / count) - 6 * MODEL.largest
    assert gpu("full", 2) > gpu("full", 4) > gpu("full", 8)


@pytest.mark.parametrize(("part", "section"), [("importance", "importance"), ("evaluate", "evaluation")])
def test_processes_that_share_rows_hold_the_whole_model_each(part: str, section: str) -> None:
    one, four = (of(MODEL, plan_of(**{section: {"processes": count}})) for count in (1, 4))
    assert four[part].process > 4 * one[part].process
    assert one[part].gpu < four[part].gpu < 2 * one[part].gpu
    assert {name for name in one if one[name] != four[name]} <= {part, "stage"}


@pytest.mark.parametrize(("name", "tower", "axis"), [("blip2-llama", "language", "ffn"), ("llama", "language", "ffn")])
def test_a_plan_trains_what_is_not_frozen(name: str, tower: str, axis: str) -> None:
    anatomy = anatomy_of(config_of(name))
    found = []
    for towers in ([tower], ["largest"]):
        plan = plan_of(towers=towers)
        sizes = predict(anatomy, plan)
        found.append({need.part: need for need in predict_memory(anatomy, plan, sizes)})
    language, every = found
    if name.startswith("blip2"):
        assert language["distill"].process < every["distill"].process, "the image side is frozen"
        assert language["importance"].process > every["importance"].process, "the teacher computes visual features"
    else:
        assert language == every
