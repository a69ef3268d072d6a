"""A pipeline of Kubeflow waits for a person after the stages that the plan names."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support.argo_workflows import short
from support.plans import PLAN
from support.tasks import prepared

from lmmpress.errors import UserError
from lmmpress.kubeflow.compile import make_pipeline, specification
from lmmpress.plan import parse_plan
from lmmpress.tasks.approval import approve, wait_for_approval
from lmmpress.tasks.granularity import Granularity
from lmmpress.tasks.parameters import arguments_of, as_compiled, plan_of


@pytest.mark.parametrize("granularity", Granularity)
def test_the_next_stage_comes_after_the_approval(granularity: Granularity) -> None:
    plan = parse_plan(PLAN | {"pipeline": {"approve": ["ffn"]}})
    made = make_pipeline(granularity, arguments_of(plan, "antgmm"), plan.stages, approve=plan.pipeline.approve)
    spec, _ = specification(made)
    tasks = spec["root"]["dag"]["tasks"]
    waits = {name: one for name, one in tasks.items() if one["componentRef"]["name"] == "comp-approval"}
    ((name, task),) = waits.items()
    assert task["inputs"]["parameters"]["stage"] == {"runtimeValue": {"constant": "ffn"}}
    after = [other for other, one in tasks.items() if name in one.get("dependentTasks", [])]
    assert [one for one in after if "attention" in one] == after
    assert any("ffn" in one for one in task["dependentTasks"])


def test_a_pipeline_that_was_compiled_for_other_approvals_is_refused() -> None:
    plan = parse_plan(PLAN | {"pipeline": {"approve": ["ffn"]}})
    arguments = arguments_of(plan, "antgmm")
    given = {key: value for key, value in arguments.items() if not key.endswith(("_step", "_max"))}
    given["stages"] = [stage.as_written() for stage in plan.stages]
    del given["name"]
    assert plan_of(as_compiled(plan.stages, ["ffn"]), "", **given) == plan
    with pytest.raises(UserError, match="compiled for block; compile the plan anew"):
        plan_of(as_compiled(plan.stages, ["block"]), "", **given)


def test_the_task_waits_until_somebody_approves(raw_plan: dict[str, Any], tmp_path: Path) -> None:
    plan = short(raw_plan, tmp_path) | {"pipeline": {"approve": ["block"]}}
    store, run, _ = prepared(plan)
    given: list[str] = []
    waiting = threading.Thread(target=lambda: given.append(wait_for_approval(store, run, "block", pause=0.05)))
    waiting.start()
    time.sleep(0.3)
    assert not given
    _, approved = approve(store, run, "block")
    waiting.join(20)
    assert given == [approved.by]
