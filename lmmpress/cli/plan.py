"""lmmpress plan: the sizes that a plan leads to."""

import json
from typing import Annotated

import typer

from lmmpress import api
from lmmpress.cli.shared import AsJson, FromPreset, Overrides, PlanFile, Sample, one_plan, show


def plan(
    plan_file: PlanFile = None,
    from_preset: FromPreset = None,
    sample: Sample = False,
    hardware: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Say what each stage takes on a card (h100-80gb), on several (h100-80gbx8), on cpu, or here (auto).",
        ),
    ] = None,
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """The sizes after every step, from configs alone, without weights; with --hardware memory and time too."""
    sizes = api.plan_sizes(one_plan(plan_file, from_preset, sample), hardware=hardware, overrides=overrides)
    if as_json:
        print(json.dumps(sizes.as_json(), indent=1))
    else:
        show(sizes)
