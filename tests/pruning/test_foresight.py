"""What a plan will take on some hardware: what must hold for any. bench/foresight.py compares it with updates."""

from dataclasses import replace
from typing import Any

import pytest
from support.tiny import config_of

from lmmpress.errors import UserError
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.read_anatomy import anatomy_of
from lmmpress.plan import Plan, parse_plan
from lmmpress.printing.numbers import in_time
from lmmpress.pruning.economy import ROOM
from lmmpress.pruning.foreseen import Foresight, foresight
from lmmpress.pruning.foresight import Foreseen
from lmmpress.pruning.hardware import Hardware, card_names, hardware_of
from lmmpress.pruning.memory import CONTEXT
from lmmpress.pruning.row_shapes import AllRows, RoleRows, assumed_rows
from lmmpress.pruning.work import Portion, Pupil, learned, looked, passed
from lmmpress.result import ROLES
from lmmpress.settings.distillation import Distillation

ROWS: AllRows = {
    role: RoleRows(rows, 16.0, 20, 3.0, 1.0, rows // 2) for role, rows in zip(ROLES, (40, 400, 40, 40), strict=True)
}
FIXED: dict[str, Any] = {"recompute": "never", "optimizer": "adamw", "weights": "float32"}
CARD = Hardware("card", 1, 1 << 34, 1e9, 2e9, 1e9, 1e-6, 4e9, "as the test says")


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return anatomy_of(config_of("blip2-opt"))


def plan_of(**changes: Any) -> Plan:
    raw = {"model": "m", "data": "d", "stages": {"block": {"step": 1, "max": 2}, "ffn": {"step": 8, "max": 16}}}
    return parse_plan(raw | {"importance": {"criterion": "magnitude"}} | changes)


def on(hardware: Hardware, anatomy: Anatomy, plan: Plan, rows: AllRows = ROWS) -> Foresight:
    return foresight(anatomy, plan, hardware, rows)


def test_an_update_is_counted_to_the_byte() -> None:
    """Weights, gradients and both averages of all that is trained, and what comes and goes, which grows with rows."""
    anatomy = anatomy_of(config_of("llama"))
    few, many = (learned(Pupil(anatomy, anatomy), Portion(rows, 20, 3 * rows), Distillation()) for rows in (2, 4))
    assert few.lasting - few.beside == pytest.approx(16 * anatomy.parameters, rel=0.01)
    assert few.states == pytest.approx(8 * anatomy.parameters, rel=0.01)
    assert few.beside == 4 * 64 * 48, "the teacher's head, in float32"
    assert 1.9 < (many.peak - many.lasting) / (few.peak - few.lasting) < 2.1
    assert many.portion.flops == pytest.approx(2 * few.portion.flops, rel=0.01), "but for the rotary angles"


def test_what_does_not_learn_costs_no_gradient(anatomy: Anatomy) -> None:
    portion = Portion(4, 20, 12, 4)
    whole, frozen, features = (
        learned(pupil, portion, Distillation())
        for pupil in (
            Pupil(anatomy, anatomy),
            Pupil(anatomy, anatomy, anatomy.image_side),
            Pupil(anatomy, anatomy, image_side_alone=True),
        )
    )
    assert whole.states == pytest.approx(frozen.states + features.states, rel=0.01)
    assert whole.portion.flops > frozen.portion.flops + 0.9 * features.portion.flops
    halved = learned(Pupil(anatomy, anatomy, half=True), portion, Distillation())
    assert halved.beside == whole.beside // 2, "the teacher is held in bfloat16"
    assert halved.states == whole.states, "the student's weights are not"


def test_a_backward_pass_takes_twice_the_forward_pass(anatomy: Anatomy) -> None:
    found = passed(anatomy, Portion(4, 20, 12, 4), half=False, seen=True)
    assert 2.5 * found.forward.flops < found.both.flops < 3.5 * found.forward.flops
    assert looked(anatomy, 8, half=True).features == 4 * 32 * 2, "query tokens x width x bytes"


def test_more_rows_take_time_and_no_memory(anatomy: Anatomy) -> None:
    plan = plan_of(distillation={"batch_size": 8, "micro_batch_size": 8})
    more = {role: replace(one, rows=2 * one.rows) for role, one in ROWS.items()}
    few, many = (on(CARD, anatomy, plan, rows) for rows in (ROWS, more))
    for less, twice in zip(few.stages[1:-1], many.stages[1:-1], strict=True):
        assert (twice.flops, twice.seconds) == (
            pytest.approx(2 * less.flops),
            pytest.approx(2 * less.seconds, rel=0.01),
        )
        assert (twice.memory, twice.stored, twice.parameters) == (less.memory, less.stored, less.parameters)
    assert [stage.name for stage in few.stages] == ["before", "block", "ffn", "after"]
    assert [stage.steps for stage in few.stages] == [0, 2, 2, 0]
    assert few.stages[1].memory > few.stages[2].memory, "students get smaller"
    assert 0 < few.utilisation < 1


def test_several_cards_share_the_rows(anatomy: Anatomy) -> None:
    plan = plan_of(distillation={"batch_size": 64})
    one, four = (on(replace(CARD, count=count), anatomy, plan) for count in (1, 4))
    assert four.stages[1].seconds < one.stages[1].seconds
    assert four.stages[1].flops == pytest.approx(one.stages[1].flops, rel=0.05)


def test_what_does_not_fit_says_what_to_change(anatomy: Anatomy) -> None:
    """And with that change it does fit."""
    settings: dict[str, Any] = {"batch_size": 256, "micro_batch_size": 256, **FIXED}
    whole = on(CARD, anatomy, plan_of(distillation=settings))
    small = replace(CARD, memory=CONTEXT + int((whole.worst.memory - CONTEXT) / 2 / ROOM))
    found = on(small, anatomy, plan_of(distillation=settings))
    assert whole.fits
    assert str(whole.shown()[-1]).startswith("fits: ")
    assert not found.fits
    assert found.advice.startswith("set distillation.micro_batch_size: ")
    size = int(found.advice.rpartition(" ")[2])
    assert on(small, anatomy, plan_of(distillation=settings | {"micro_batch_size": size})).fits
    tiny = replace(CARD, memory=CONTEXT + (1 << 16))
    assert on(tiny, anatomy, plan_of(evaluation={"batch_size": 1})).advice.endswith("fits on is t4")


def test_what_does_not_fit_learns_as_auto_chooses(anatomy: Anatomy) -> None:
    """With the economies that a run would choose it fits where it did not; blocks that are computed again take time."""
    settings: dict[str, Any] = {"batch_size": 256, "micro_batch_size": 256}
    usual = on(CARD, anatomy, plan_of(distillation=settings | FIXED))
    small = replace(CARD, memory=CONTEXT + int((usual.worst.memory - CONTEXT) * 0.8 / ROOM))
    found = on(small, anatomy, plan_of(distillation=settings))
    assert found.fits
    assert found.stages[1].chosen == "recomputation"
    assert 1.1 * usual.stages[1].flops < found.stages[1].flops < 1.4 * usual.stages[1].flops


def test_known_cards_are_read_with_their_number() -> None:
    one, eight = hardware_of("h100-80gb", 1), hardware_of("h100-80gbx8", 1)
    assert replace(one, count=8) == eight
    assert {hardware_of(name, 1).name for name in card_names()} == set(card_names())
    with pytest.raises(UserError, match="did you mean 'h100-80gb'"):
        hardware_of("h100-80g", 1)


def test_rows_are_assumed_where_there_is_no_data(anatomy: Anatomy) -> None:
    rows = assumed_rows(plan_of(distillation={"rows": 77}), anatomy)
    assert rows["distill"].rows == 77
    assert rows["gate"].longest > 4, "its image has four tokens"


def block_stage(count: int, memory: int = CARD.memory, **distillation: Any) -> Foreseen:
    """A stage that takes a block from a text model, on so many cards."""
    anatomy = anatomy_of(config_of("llama"))
    raw = {"stages": {"block": {"step": 1, "max": 1}}, "evaluation": {"batch_size": 1}}
    plan = plan_of(**raw, distillation={"batch_size": 64, "micro_batch_size": 4} | distillation)
    return on(replace(CARD, count=count, memory=memory), anatomy, plan).stages[1]


def test_a_card_holds_a_share_of_a_student() -> None:
    """Of one card that is all of it; `auto` shares it where nothing else helps, economies included."""
    whole, four = (block_stage(count, sharding="full", **FIXED) for count in (1, 4))
    assert whole == block_stage(1, sharding="none", **FIXED)
    assert four.memory < whole.memory
    assert block_stage(4, sharding="auto", **FIXED).memory > four.memory, "there is room for the whole"
    none, shared, auto = (block_stage(4, 1 << 16, sharding=one) for one in ("none", "full", "auto"))
    assert auto == shared != none


def test_fewer_rows_come_before_economies() -> None:
    whole = block_stage(1, micro_batch_size="auto")
    size = CONTEXT + int((whole.memory - CONTEXT) * 0.6 / ROOM)
    found = block_stage(1, size, micro_batch_size="auto")
    assert whole.chosen == ""
    assert found.chosen in ("32 rows at once", "16 rows at once")
    assert found.memory - CONTEXT <= ROOM * (size - CONTEXT)


def test_caches_without_room_are_computed_anew_by_every_step(anatomy: Anatomy) -> None:
    def found(caches: Any) -> Foresight:
        stages = {"block": {"step": 1, "max": 1}}
        return on(CARD, anatomy, plan_of(stages=stages, distillation={"batch_size": 64, "caches": caches}))

    usual, roomy, small = found(True), found({"disk": "1GB"}), found({"disk": 0})
    assert roomy.stages == usual.stages
    assert roomy.caches == usual.caches == "caches: 66.56 kB of visual features and 115.20 kB of teacher's states"
    assert found({"dtype": "float32"}).caches.startswith("caches: 133.12 kB of visual features and 230.40 kB")
    assert "of which 1.00 kB stay in memory and the rest is read" in found({"memory": 1000}).caches
    assert usual.stages[0].stored - small.stages[0].stored == 66_560 + 115_200
    assert small.stages[1].flops > 1.3 * usual.stages[1].flops
    assert small.stages[1].memory > usual.stages[1].memory, "the teacher stays"
    seconds = [sum(stage.seconds for stage in one.stages) for one in (small, usual)]
    assert small.caches.endswith(
        "every step runs the image towers over all its pictures and runs the teacher over all its rows: "
        f"{in_time(seconds[0] - seconds[1])} more in all"
    )
    some = found({"disk": 150_000})
    assert "so the teacher's states of distill (115.20 kB) are not kept" in some.caches
    assert small.stages[1].flops > some.stages[1].flops > usual.stages[1].flops
