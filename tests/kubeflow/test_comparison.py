"""A pipeline of Kubeflow ends with a comparison where the plan asks for one."""

from typing import Any

import pytest
from support.plans import PLAN

from lmmpress.errors import UserError
from lmmpress.kubeflow.compile import make_pipeline, specification
from lmmpress.plan import Plan, parse_plan
from lmmpress.tasks.granularity import Granularity
from lmmpress.tasks.parameters import arguments_of, as_compiled, plan_of


def tasks_of(plan: Plan, granularity: Granularity) -> dict[str, Any]:
    made = make_pipeline(granularity, arguments_of(plan, "antgmm"), plan.stages, compare=plan.compare)
    spec, _ = specification(made)
    tasks: dict[str, Any] = spec["root"]["dag"]["tasks"]
    return tasks


@pytest.mark.parametrize("granularity", Granularity)
def test_the_comparison_comes_after_the_result_is_published(granularity: Granularity) -> None:
    plan = parse_plan(PLAN | {"compare": True})
    tasks = tasks_of(plan, granularity)
    assert "publish" in tasks["compare"]["dependentTasks"]
    assert not [name for name, task in tasks.items() if "compare" in task.get("dependentTasks", [])]
    without = tasks_of(parse_plan(PLAN), granularity)
    assert without.keys() == tasks.keys() - {"compare"}


@pytest.mark.parametrize(("asked", "made"), [(True, "without"), (False, "with")])
def test_a_pipeline_that_was_compiled_otherwise_is_refused(asked: bool, made: str) -> None:
    plan = parse_plan(PLAN | {"compare": asked})
    arguments = arguments_of(plan, "antgmm")
    given = {key: value for key, value in arguments.items() if not key.endswith(("_step", "_max"))}
    given["stages"] = [stage.as_written() for stage in plan.stages]
    del given["name"]
    assert plan_of(as_compiled(plan.stages, [], asked), "", **given) == plan
    with pytest.raises(UserError, match=f"was compiled {made} a comparison at its end; compile the plan anew"):
        plan_of(as_compiled(plan.stages, [], not asked), "", **given)
