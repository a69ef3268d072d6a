"""A run that cannot fit into this machine is refused before it begins."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.tiny import config_of

from lmmpress.engine import room
from lmmpress.engine.room import check_room, refuse
from lmmpress.errors import UserError
from lmmpress.host.memory import whole_memory
from lmmpress.lmm.read_anatomy import anatomy_of
from lmmpress.plan import Plan, parse_plan
from lmmpress.pruning.memory import Need
from lmmpress.pruning.sizes import predict

GIB = 1 << 30
NEEDS = (
    Need("prepare", 9 * GIB, 9 * GIB, 0),
    Need("importance", 6 * GIB, GIB, 3 * GIB),
    Need("distill", 5 * GIB, GIB, 4 * GIB),
    Need("evaluate", 2 * GIB, GIB, 2 * GIB),
)


@pytest.mark.parametrize(("there", "on_gpu"), [(6 * GIB, False), (4 * GIB, True)])
def test_what_fits_begins(there: int, on_gpu: bool) -> None:
    refuse(NEEDS, there, on_gpu)


@pytest.mark.parametrize(
    ("on_gpu", "said"),
    [
        (False, "importance needs 6.0Gi of memory at least, without rows, and this machine has 3.5Gi: set importance"),
        (True, "distill needs 4.0Gi of memory at least, without rows, and each GPU here has 3.5Gi: use a card"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_change(on_gpu: bool, said: str) -> None:
    with pytest.raises(UserError, match=f"^{said}.*--force"):
        refuse(NEEDS, 7 * GIB // 2, on_gpu)


def plan_of(**changes: Any) -> Plan:
    return parse_plan({"model": "m", "data": "d", "stages": {"ffn": {"step": 8, "max": 8}}} | changes)


def test_the_needs_are_those_of_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    anatomy = anatomy_of(config_of("llama"))
    sizes = predict(anatomy, plan_of())
    check_room(plan_of(), anatomy, sizes)
    monkeypatch.setattr(room, "whole_memory", lambda: 1 << 20)
    monkeypatch.setattr(room.torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="this machine has"):
        check_room(plan_of(), anatomy, sizes)


def test_a_student_that_gpus_may_share_needs_a_share_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    anatomy = anatomy_of(config_of("llama"))
    found: list[dict[str, Need]] = []
    monkeypatch.setattr(room, "refuse", lambda needs, *_: found.append({need.part: need for need in needs}))
    monkeypatch.setattr(room, "whole_memory", lambda: 1 << 40)
    monkeypatch.setattr(room.torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=1 << 40))
    for on_gpu in (True, False):
        monkeypatch.setattr(room.torch.cuda, "is_available", lambda there=on_gpu: there)
        for sharding in ("full", "auto", "none"):
            plan = plan_of(distillation={"processes": 4, "sharding": sharding})
            check_room(plan, anatomy, predict(anatomy, plan))
    gpus, cpu = ([one["distill"] for one in part] for part in (found[:3], found[3:]))
    assert gpus[0] == gpus[1]
    assert cpu[1] == cpu[2], "processes without a GPU share one memory"
    assert cpu[0] != cpu[2]


def test_a_containers_limit_is_all_there_is(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1048576\n", "utf-8")
    assert whole_memory(tmp_path) == 1 << 20
    (tmp_path / "memory.max").write_text("max\n", "utf-8")
    assert whole_memory(tmp_path) > 1 << 20
