"""lmmpress plan: the sizes that a plan leads to."""

import json

from lmmpress import api
from lmmpress.cli.shared import AsJson, FromPreset, Overrides, PlanFile, Sample, one_plan, show


def plan(
    plan_file: PlanFile = None,
    from_preset: FromPreset = None,
    sample: Sample = False,
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """The sizes after every step, from configs alone, without weights."""
    sizes = api.plan_sizes(one_plan(plan_file, from_preset, sample), overrides=overrides)
    if as_json:
        print(json.dumps(sizes.as_list(), indent=1))
    else:
        show(sizes)
