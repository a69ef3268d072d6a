"""Shares before the first task: how many steps there may be, with the model in reach of this machine and without."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.plans import PLAN

from lmmpress.argo.fitting import fit
from lmmpress.errors import UserError
from lmmpress.kubeflow.fitting import fit as fit_kubeflow
from lmmpress.plan import Plan, parse_plan
from lmmpress.tasks.cluster_profile import Profile
from lmmpress.tasks.granularity import Choice, Granularity
from lmmpress.tasks.pod_memory import memory_warnings
from lmmpress.tasks.reached_model import numbers_where_known

MANY = {"ffn": {"step": "0.5%", "max": "60%"}}
"""At most 181 steps; 38 of an FFN that is 64 wide."""


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMMPRESS_PATIENCE", "1s")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")


@pytest.fixture
def near(make_checkpoint: Callable[..., Path]) -> Callable[..., Plan]:
    """A plan whose model this machine reaches."""
    return lambda **changes: parse_plan(PLAN | {"model": str(make_checkpoint("llama"))} | changes)


def far(**changes: Any) -> Plan:
    """A plan whose model only the cluster reaches."""
    return parse_plan(PLAN | changes)


def test_shares_are_numbers_where_the_model_is_in_reach_and_stay_shares_elsewhere(near: Callable[..., Plan]) -> None:
    assert numbers_where_known(near(stages=MANY)).stage("ffn").amounts() == {"step": 1, "max": 38}
    there = far(stages=MANY)
    assert numbers_where_known(there) is there
    wrong = near(stages={"ffn": {"step": 3, "max": 60}})
    assert numbers_where_known(wrong) is wrong


def test_the_granularity_follows_from_the_most_steps_that_shares_may_lead_to(near: Callable[..., Plan]) -> None:
    assert fit(near(stages=MANY)).granularity == Granularity.step
    assert "stage ffn may have 181 steps" in fit(far(stages=MANY)).said
    few = {"ffn": {"step": "50%", "max": "75%"}}
    assert fit(far(stages=few)).granularity == Granularity.step
    assert fit_kubeflow(far(stages=few), Profile()).granularity == Granularity.step


def test_a_share_beside_a_number_is_made_by_stage_unless_the_model_is_in_reach(near: Callable[..., Plan]) -> None:
    """How many steps there are then depends on the width alone."""
    mixed = {"block": {"step": 1, "max": "75%"}}
    assert fit(near(stages=mixed)).granularity == Granularity.step
    assert fit(far(stages=mixed)).granularity == Granularity.stage
    assert fit_kubeflow(far(stages=mixed), Profile()).granularity == Granularity.stage
    with pytest.raises(UserError, match="--granularity stage"):
        fit(far(stages=mixed), Choice.step)


def test_the_memory_of_pods_is_that_of_the_numbers(near: Callable[..., Plan]) -> None:
    profile = Profile.model_validate({"defaults": {"limits": {"memory": "1Mi"}}})
    shares = near(stages={"ffn": {"step": "25%", "max": "75%"}})
    numbers = near(stages={"ffn": {"step": 16, "max": 48}})
    assert memory_warnings(shares, profile, Granularity.step) == memory_warnings(numbers, profile, Granularity.step)
