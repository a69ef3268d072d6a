"""Algorithm 1 without models: which step follows which decision."""

from hypothesis import given
from hypothesis import strategies as st
from support.algorithm import follow

from lmmpress.engine.algorithm import next_step
from lmmpress.plan import parse_plan
from lmmpress.result import Decision

PLAN = parse_plan(
    {
        "model": "m",
        "data": "d",
        "stages": {"block": {"step": 2, "max": 5}, "ffn": {"step": 8, "max": 16}, "io": {"step": 4, "max": 4}},
    }
)


def test_accepted_steps_follow_each_other_to_the_end() -> None:
    steps, _, end = follow(PLAN, ["accepted"] * 6)
    assert [(step.stage.name, step.index, step.removed) for step in steps] == [
        ("block", 0, 2),
        ("block", 1, 2),
        ("block", 2, 1),
        ("ffn", 0, 8),
        ("ffn", 1, 8),
        ("io", 0, 4),
    ]
    assert [step.parent for step in steps] == ["original", *(f"checkpoint {number}" for number in range(5))]
    assert end == "checkpoint 5"


def test_the_last_step_is_the_last_that_the_stages_can_make() -> None:
    """It is known before any decision: where the gate ends the last stage early, no step is the last one."""
    assert [step.last for step in follow(PLAN, ["accepted"] * 6)[0]] == [False] * 5 + [True]
    assert [step.last for step in follow(PLAN, ["rolled back", "rolled back", "accepted"])[0]] == [False, False, True]
    ffn = parse_plan(PLAN.model_dump(mode="json") | {"stages": {"ffn": {"step": 8, "max": 20}}})
    assert [step.last for step in follow(ffn, ["accepted"] * 3)[0]] == [False, False, True]
    assert [step.last for step in follow(ffn, ["accepted", "rolled back"])[0]] == [False, False]
    towers = parse_plan(ffn.model_dump(mode="json") | {"towers": ["vision", "language"]})
    assert [step.last for step in follow(towers, ["accepted"] * 6)[0]] == [False] * 5 + [True]
    assert [step.last for step in follow(towers, ["rolled back", "accepted", "accepted", "accepted"])[0]] == [
        False
    ] * 3 + [True]


def test_a_step_that_is_rolled_back_ends_its_stage_and_the_next_starts_from_the_last_accepted() -> None:
    steps, _, _ = follow(PLAN, ["accepted", "rolled back", "accepted"])
    assert [(step.stage.name, step.parent) for step in steps[1:]] == [
        ("block", "checkpoint 0"),
        ("ffn", "checkpoint 0"),
    ]


def test_a_step_that_is_kept_ends_its_stage_and_the_next_starts_from_it() -> None:
    steps, _, _ = follow(PLAN, ["kept", "accepted"])
    assert [(step.stage.name, step.parent) for step in steps] == [("block", "original"), ("ffn", "checkpoint 0")]


def test_accuracy_is_compared_with_the_start_of_the_stage_or_with_the_original() -> None:
    steps, _, _ = follow(PLAN, ["accepted"] * 6)
    assert [step.reference for step in steps] == ["original"] * 3 + ["checkpoint 2"] * 2 + ["checkpoint 4"]
    original = parse_plan(PLAN.model_dump(mode="json") | {"tolerance": {"reference": "original"}})
    assert {step.reference for step in follow(original, ["accepted"] * 6)[0]} == {"original"}


@given(st.lists(st.sampled_from(["accepted", "rolled back", "kept"]), max_size=8))
def test_a_history_cut_short_anywhere_leads_to_the_same_next_step(decisions: list[Decision]) -> None:
    """A process that resumes a run relies on it."""
    steps, history, _ = follow(PLAN, decisions)
    for number, step in enumerate(steps):
        assert next_step(PLAN, "original", history[:number]) == step


@given(st.lists(st.sampled_from(["accepted", "rolled back", "kept"]), min_size=6, max_size=6))
def test_the_result_is_the_last_checkpoint_that_was_accepted_or_kept(decisions: list[Decision]) -> None:
    _, history, end = follow(PLAN, decisions)
    taken = [step.checkpoint for step in history if step.decision != "rolled back"]
    assert end == (taken[-1] if taken else "original")


def test_a_stage_that_comes_twice_starts_from_what_is_left_by_then() -> None:
    """The gate closes the first stage along an axis, and not the second; each counts its own steps."""
    stages = [
        {"axis": "block", "step": 1, "max": 2},
        {"axis": "ffn", "tower": "vision", "step": 8, "max": 8},
        {"axis": "block", "step": 1, "max": 2},
    ]
    plan = parse_plan({"model": "m", "data": "d", "stages": stages})
    steps, _, end = follow(plan, ["rolled back", "accepted", "accepted", "accepted"])
    assert [(step.stage.name, step.index, step.tower, step.parent, step.reference) for step in steps] == [
        ("block", 0, "language", "original", "original"),
        ("ffn", 0, "vision", "original", "original"),
        ("block-2", 0, "language", "checkpoint 1", "checkpoint 1"),
        ("block-2", 1, "language", "checkpoint 2", "checkpoint 1"),
    ]
    assert end == "checkpoint 3"
