"""lmmpress run: compress a model."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lmmpress import api
from lmmpress.api import Granularity
from lmmpress.cli.shared import AsJson, FromPreset, Overrides, PlanFile, Sample, one_plan, out, show
from lmmpress.errors import UserError
from lmmpress.host.full_disk import is_full


class Engine(StrEnum):
    """What runs the steps of a run."""

    local = "local"
    kfp_local = "kfp-local"


def run(
    directory: Annotated[Path, typer.Option("--out", help="Where the result goes.")],
    plan_file: PlanFile = None,
    from_preset: FromPreset = None,
    sample: Sample = False,
    engine: Annotated[
        Engine, typer.Option(help="In this process, or as the tasks of the pipeline, a process each.")
    ] = Engine.local,
    granularity: Annotated[
        Granularity, typer.Option(help="With kfp-local: a task for each part of a step, or for each stage.")
    ] = Granularity.step,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in --out.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Begin even if the models need more memory than there is.")
    ] = False,
    speed: Annotated[
        bool | None, typer.Option("--speed/--no-speed", help="Measure speed at the end; by default as the plan says.")
    ] = None,
    overrides: Overrides = [],  # noqa: B006 (typer reads the default, nothing changes it)
    as_json: AsJson = False,
) -> None:
    """Compress a model: result.json, report.html, compressed/ and the lineage in mlflow.db."""
    plan = one_plan(plan_file, from_preset, sample)
    try:
        result = api.compress(
            plan,
            directory,
            engine=engine.value,
            granularity=granularity,
            resume=resume,
            force=force,
            speed=speed,
            overrides=overrides,
        )
    except KeyboardInterrupt:
        kept = directory / "plan.json"
        raise UserError(f"stopped; continue with the same command and --resume ({kept} is kept)") from None
    except Exception as error:
        if is_full(error) and (directory / "plan.json").is_file():
            raise UserError(
                f"no space left on the disk of {directory}, or of its store; free some, and continue with the same "
                "command and --resume"
            ) from error
        raise
    if as_json:
        print((directory / "result.json").read_text("utf-8"))
    else:
        show(result)
        out.print(f"report: {directory / 'report.html'}")
        out.print(f"checkpoint: {directory / 'compressed'}")
