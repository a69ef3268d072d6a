"""The memory of a plan on the cards that nodes say they have."""

from typing import Any

import pytest
from support.tiny import config_of

from lmmpress.doctor import plan_memory
from lmmpress.doctor.plan_memory import check_plan_memory
from lmmpress.lmm.read_anatomy import anatomy_of
from lmmpress.plan import parse_plan
from lmmpress.tasks.cluster_profile import Profile
from lmmpress.tasks.granularity import Granularity

PLAN = parse_plan(
    {
        "model": "m",
        "data": "d",
        "importance": {"criterion": "magnitude"},
        "stages": {"ffn": {"step": 8, "max": 8}},
        "distillation": {"batch_size": 64, "micro_batch_size": 64},
    }
)


class Nodes:
    """A cluster of one node, whose cards have so many MiB."""

    def __init__(self, mib: int | None) -> None:
        labels = {} if mib is None else {"nvidia.com/gpu.memory": str(mib)}
        self.nodes = [{"metadata": {"name": "a", "labels": labels}}]

    def items(self, path: str, **_: Any) -> list[dict[str, Any]]:
        return self.nodes


def check(mib: int | None) -> list[tuple[str, str]]:
    found = check_plan_memory(PLAN, Granularity.step, Profile(), Nodes(mib))  # type: ignore[arg-type]
    return [(one.status, one.mend) for one in found]


def test_the_largest_card_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    anatomy = anatomy_of(config_of("llama"))
    monkeypatch.setattr(plan_memory, "reached_anatomy", lambda _: anatomy)
    assert check(None) == [], "no node says what its cards have"
    assert check(40_000) == [("ok", "")]
    ((status, mend),) = check(513)
    assert status == "failed"
    assert mend.startswith(("set distillation.micro_batch_size", "the smallest card"))


def test_a_model_out_of_reach_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_memory, "reached_anatomy", lambda _: None)
    assert check(40_000) == []
