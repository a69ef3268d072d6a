"""Algorithm 1 along a schedule, without models: how far a warm run jumps, and what its jumps are compared with."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.algorithm import decided, follow

from lmmpress.engine.algorithm import Planned, next_step
from lmmpress.engine.warm import kept_steps
from lmmpress.errors import UserError
from lmmpress.plan import Plan, parse_plan
from lmmpress.result import Decision, StepResult

STAGES = {
    "block": {"step": 2, "max": 6},
    "ffn": {"step": 8, "max": 16},
    "attention": {"step": 8, "max": 16},
    "io": {"step": 4, "max": 4},
}
RAW = {"model": "m", "data": "d", "stages": STAGES}
RUN = "ab" * 32
ENDS = {"original": "0a" * 32, "result": "0b" * 32}


def warm(*steps: tuple[str, int], ends: dict[str, str] | None = None, **changes: Any) -> Plan:
    """A plan whose schedule has these steps of the language tower: stage, and how much each removes. With the `ends` of
    the earlier run a jump may carry over what that has learned."""
    found = [{"stage": stage, "tower": "language", "removed": removed} for stage, removed in steps]
    return parse_plan(RAW | {"schedule": {"run": RUN, "steps": found, "ends": ends}} | changes)


PATH = (("block", 2), ("block", 2), ("ffn", 8), ("ffn", 8), ("attention", 8), ("attention", 8), ("io", 4))


def until(plan: Plan, accepts: Callable[[Planned], bool]) -> tuple[list[Planned], list[StepResult]]:
    """Follow a run to its end whose gate accepts what `accepts` does."""
    steps: list[Planned] = []
    history: list[StepResult] = []
    while isinstance(planned := next_step(plan, "original", history), Planned):
        steps.append(planned)
        history.append(decided(planned, "accepted" if accepts(planned) else "rolled back", len(history)))
        assert len(history) < 200
    return steps, history


def test_the_first_step_of_a_warm_run_is_a_jump_to_the_end_of_the_schedule() -> None:
    steps, history, end = follow(warm(*PATH), ["accepted"])
    (jump,) = steps
    assert [(step.stage, step.removed) for step in jump.jump] == list(PATH)
    assert (jump.parent, jump.reference, jump.stage.name, jump.index) == ("original", "original", "block", 0)
    assert end == "checkpoint 0", "nothing beyond the schedule is searched"
    assert history[0].title == "jump over 7 steps (block -4, ffn -16, attention -16, io -4)"


def test_a_jump_that_is_not_accepted_is_tried_half_as_far_from_where_it_began() -> None:
    steps, _, _ = follow(warm(*PATH), ["rolled back", "rolled back"])
    assert [len(step.jump) for step in steps] == [7, 3]
    planned = follow(warm(*PATH), ["rolled back", "rolled back"])[2]
    assert isinstance(planned, Planned)
    assert (planned.jump, planned.stage.name, planned.removed, planned.parent) == ((), "block", 2, "original")
    assert [step.index for step in steps] + [planned.index] == [0, 1, 2]


def test_after_an_accepted_jump_the_next_is_no_longer() -> None:
    """So that few are tried in vain: at most log2 of the steps in the schedule."""
    steps, _, end = follow(warm(*PATH), ["rolled back", "accepted", "accepted", "accepted"])
    assert [[step.stage for step in one.jump] for one in steps] == [
        ["block", "block", "ffn", "ffn", "attention", "attention", "io"],
        ["block", "block", "ffn"],
        ["ffn", "attention", "attention"],
        [],
    ]
    assert (steps[3].stage.name, steps[3].removed) == ("io", 4)
    assert end == "checkpoint 3"


def test_what_is_carried_over_is_judged_as_it_is_before_it_is_distilled() -> None:
    steps, _, end = follow(warm(*PATH, ends=ENDS), ["accepted"])
    assert [step.distils for step in steps] == [False]
    assert end == "checkpoint 0", "no epoch is spent where the gate asks for none"
    refused: list[Decision] = ["rolled back", "rolled back", "accepted"]
    steps, _, _ = follow(warm(*PATH, ends=ENDS), refused)
    assert [(len(step.jump), step.distils, step.parent) for step in steps] == [
        (7, False, "original"),
        (7, True, "original"),
        (3, True, "original"),
    ]
    steps, _, _ = follow(warm(*PATH, ends=ENDS, jumps={"carry_epochs": 0}), refused)
    assert [len(step.jump) for step in steps] == [7, 3, 0], "without epochs there is nothing to try again"


def test_a_jump_is_compared_with_the_last_checkpoint_before_the_stage_that_it_begins_in() -> None:
    steps, _, _ = follow(warm(*PATH), ["rolled back", "accepted", "accepted", "accepted"])
    assert [(step.parent, step.reference) for step in steps] == [
        ("original", "original"),
        ("original", "original"),
        ("checkpoint 1", "original"),  # the first jump went into this stage: nothing between has none of it removed
        ("checkpoint 2", "checkpoint 2"),  # a stage begins
    ]
    original = warm(*PATH, tolerance={"reference": "original"})
    assert {step.reference for step in follow(original, ["rolled back", "accepted", "accepted"])[0]} == {"original"}


def test_a_single_step_that_is_not_accepted_ends_its_stage_and_the_rest_goes_the_gradual_way() -> None:
    broken: Decision = "rolled back"
    decisions: list[Decision] = [broken, broken, broken, "accepted", "accepted", "accepted", "accepted", "accepted"]
    steps, _, _ = follow(warm(*PATH[:4]), decisions)
    assert [len(step.jump) for step in steps] == [4, 2, 0, 0, 0, 0, 0, 0]
    assert [(step.stage.name, step.index, step.removed) for step in steps[2:]] == [
        ("block", 2, 2),
        ("ffn", 0, 8),
        ("ffn", 1, 8),
        ("attention", 0, 8),
        ("attention", 1, 8),
        ("io", 0, 4),
    ], "also the stages that the earlier run did not keep a step of"


def test_a_step_that_is_kept_although_it_broke_alpha_goes_on_the_gradual_way() -> None:
    steps, _, _ = follow(warm(*PATH[:2]), ["rolled back", "kept", "accepted"])
    assert [(step.stage.name, step.parent) for step in steps[1:]] == [("block", "original"), ("ffn", "checkpoint 1")]


def test_each_tower_of_a_stage_is_a_loop_of_its_own() -> None:
    """The loop of the tower whose step failed has ended; the stage goes on with its next tower."""
    steps = [
        {"stage": "ffn", "tower": "language", "removed": 8},
        {"stage": "ffn", "tower": "vision", "removed": 8},
        {"stage": "io", "tower": "vision", "removed": 4},
    ]
    changes = {"towers": ["language", "vision"], "schedule": {"run": RUN, "steps": steps}}
    plan = parse_plan(RAW | changes | {"stages": {"ffn": STAGES["ffn"], "io": STAGES["io"]}})
    made, _, _ = follow(plan, ["rolled back", "rolled back", "accepted", "accepted", "accepted", "accepted"])
    assert [(step.stage.name, step.index, step.tower, len(step.jump)) for step in made] == [
        ("ffn", 0, "language", 3),
        ("ffn", 1, "language", 0),
        ("ffn", 2, "vision", 0),
        ("ffn", 3, "vision", 0),
        ("io", 0, "language", 0),
        ("io", 1, "vision", 0),
    ]


@given(
    st.integers(1, 7),
    st.sampled_from([None, ENDS]),
    st.lists(st.sampled_from(["accepted", "rolled back"]), max_size=30),
)
def test_a_warm_history_cut_short_anywhere_leads_to_the_same_next_step(
    long: int, ends: dict[str, str] | None, decisions: list[Decision]
) -> None:
    plan = warm(*PATH[:long], ends=ends)
    steps, history, _ = follow(plan, decisions)
    for number, step in enumerate(steps):
        assert next_step(plan, "original", history[:number]) == step
    names = Counter((step.stage.name, step.index) for step in steps)
    assert max(names.values(), default=1) == 1, "a step has a name of its own"


@given(st.integers(1, 7), st.integers(1, 7))
def test_where_the_gate_accepts_jumps_up_to_a_length_the_schedule_is_made_whole_in_few(long: int, most: int) -> None:
    plan = warm(*PATH[:long])
    steps, history = until(plan, lambda planned: len(planned.jump) <= most)
    accepted = [planned for planned, step in zip(steps, history, strict=True) if step.decision == "accepted"]
    made = [one for planned in accepted for one in planned.jump or [(planned.stage.name, planned.removed)]]
    assert len(made) == long
    assert len(steps) - len(accepted) <= math.log2(long)
    assert len(accepted) <= max(1, math.ceil(2 * long / most))
    assert kept_steps(plan, "original", history) == list(plan.schedule.steps if plan.schedule else [])


@given(st.lists(st.sampled_from(["accepted", "rolled back"]), min_size=10, max_size=10))
def test_a_run_that_starts_from_a_gradual_one_and_is_accepted_keeps_what_that_kept(decisions: list[Decision]) -> None:
    """On the same weights both end with the same shape."""
    gradual = parse_plan(RAW)
    _, history, _ = follow(gradual, decisions)
    kept = kept_steps(gradual, "original", history)
    if not kept:
        return
    plan = Plan.model_validate(
        gradual.model_dump() | {"schedule": {"run": RUN, "steps": [one.model_dump() for one in kept]}}
    )
    for accepts in (lambda planned: True, lambda planned: not planned.jump):
        _, again = until(plan, accepts)
        assert kept_steps(plan, "original", again) == kept


def test_a_run_without_a_schedule_is_what_it_was() -> None:
    """`start_from` that found nothing, and how to jump, change neither the steps nor the run key."""
    plain, asking = parse_plan(RAW), parse_plan(RAW | {"start_from": "previous", "jumps": {"share": 1}})
    assert asking.key_settings() == plain.key_settings()
    assert until(asking, lambda planned: True)[0] == until(plain, lambda planned: True)[0]
    warmed = warm(*PATH)
    assert warmed.key_settings() != plain.key_settings()
    assert warm(*PATH, jumps={"share": 1}).key_settings() != warmed.key_settings()


@pytest.mark.parametrize(
    "steps",
    [[("ffn", 8), ("block", 2)], [("glm", 2)], [], [("block", 2)] * 4, [("ffn", 24)]],
    ids=["the stages in another order", "no stage of the plan", "no step", "too many steps", "more than the maximum"],
)
def test_a_schedule_that_the_stages_cannot_make_is_refused(steps: Sequence[tuple[str, int]]) -> None:
    with pytest.raises(UserError, match="schedule"):
        warm(*steps)


@pytest.mark.parametrize(
    ("steps", "share", "epochs"), [(1, 0.25, 4), (2, 0.25, 4), (8, 0.25, 8), (9, 0.25, 9), (8, 1, 32)]
)
def test_a_jump_distils_for_a_share_of_the_epochs_that_its_steps_have(steps: int, share: float, epochs: int) -> None:
    assert parse_plan(RAW | {"jumps": {"share": share}}).epochs_over(steps) == epochs
