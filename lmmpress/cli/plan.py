"""lmmpress plan: the sizes that a plan leads to."""

import json
from typing import Annotated

import typer

from lmmpress import api
from lmmpress.cli.shared import AsJson, Overrides, PlanFile, one_plan, show


def plan(
    plan_file: PlanFile = None,
    from_preset: Annotated[str | None, typer.Option("--preset", help="A built-in plan: sample or paper.")] = None,
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """The sizes after every step, from configs alone, without weights."""
    sizes = api.plan_sizes(one_plan(plan_file, from_preset), overrides=overrides)
    if as_json:
        print(json.dumps(sizes.as_list(), indent=1))
    else:
        show(sizes)
