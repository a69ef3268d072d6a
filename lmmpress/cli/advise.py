"""lmmpress advise: the numbers of a plan, from what short cuts lose."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lmmpress import api
from lmmpress.cli.shared import AsJson, FromPreset, Overrides, PlanFile, Sample, one_plan, show
from lmmpress.errors import UserError


def advise(
    plan_file: PlanFile = None,
    from_preset: FromPreset = None,
    sample: Sample = False,
    target: Annotated[
        float | None,
        typer.Option(
            metavar="TIMES", help="How many times smaller the towers shall become, instead of the plan's max."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="SUGGESTED.yaml", help="A new file for the plan; results stay beside it."),
    ] = None,
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Suggest order, steps and maxima of a plan's stages from short cuts without distillation; with -o as a plan."""
    plan = one_plan(plan_file, from_preset, sample)
    try:
        advice = api.advise(plan, out, target=target, overrides=overrides)
    except KeyboardInterrupt:
        kept = "nothing is kept; with -o FILE a stopped command can be continued"
        raise UserError(f"stopped; {kept if out is None else 'continue with the same command'}") from None
    if as_json:
        print(json.dumps(advice.as_dict(), indent=1))
    else:
        show(advice)
