"""A plan as the parameters of a pipeline, and back."""

from typing import Any

import pytest
from support.first_task import asked_by
from support.plans import PLAN

from lmmpress.plan import parse_plan
from lmmpress.tasks.parameters import plan_of


@pytest.mark.parametrize("given", [0.0, 0, "0", "0.0"])
def test_a_learning_rate_to_be_found_is_the_number_0(given: Any) -> None:
    """A parameter is a number for Kubeflow and a text for Argo."""
    plan = parse_plan(PLAN | {"distillation": {"learning_rate": "auto"}})
    arguments = asked_by(plan, "antgmm")
    name = arguments.pop("name")
    assert (name, arguments["learning_rate"]) == ("antgmm", 0)
    assert plan_of(**arguments | {"learning_rate": given}) == plan
    assert plan_of(**arguments | {"learning_rate": 1e-4}).distillation.learning_rate == 1e-4
