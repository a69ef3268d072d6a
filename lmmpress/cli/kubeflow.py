"""lmmpress compile and submit: a plan as a pipeline of Kubeflow's."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmmpress import api
from lmmpress.api import Granularity
from lmmpress.cli.shared import (
    AsJson,
    Context,
    Overrides,
    PlanFile,
    ProfileFile,
    console,
    one_plan,
    out,
    say,
    the_profile,
)
from lmmpress.errors import UserError
from lmmpress.kubeflow import needs_sdk

if TYPE_CHECKING:
    from lmmpress.kubeflow.submit import Seen

Sample = Annotated[bool, typer.Option("--sample", help="The built-in sample's plan.")]
Grain = Annotated[Granularity, typer.Option(help="A task for each part of a step, or for each stage.")]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse what would only be warned of.")]


def compile(
    target: Annotated[Path, typer.Option("--output", "-o", help="The pipeline's file, .yaml.")],
    plan_file: PlanFile = None,
    sample: Sample = False,
    cluster: ProfileFile = None,
    granularity: Grain = Granularity.step,
    strict: Strict = False,
    overrides: Overrides = [],  # noqa: B006 (typer reads the default, nothing changes it)
    as_json: AsJson = False,
) -> None:
    """Write a plan as a pipeline that any Kubeflow runs: its numbers are the pipeline's parameters."""
    needs_sdk("lmmpress compile")
    from lmmpress.kubeflow.compile import compile_plan

    plan = api.as_plan(one_plan(plan_file, "sample" if sample else None), overrides, with_data=False)
    profile = the_profile(cluster)
    if strict and (found := profile.warnings()):
        raise UserError(found[0])
    warnings = compile_plan(plan, api.name_of_compressed(plan.model), profile, granularity, target)
    if as_json:
        print(json.dumps({"pipeline": str(target), "bytes": target.stat().st_size, "warnings": warnings}))
        return
    _warn(warnings)
    out.print(f"{target}: {target.stat().st_size:,} bytes")


def submit(
    plan_file: PlanFile = None,
    sample: Sample = False,
    cluster: ProfileFile = None,
    granularity: Grain = Granularity.step,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run; exit code 1 if it does not succeed.")] = False,
    strict: Strict = False,
    checks: Annotated[
        bool, typer.Option("--checks/--no-checks", help="Look at the cluster first, as doctor does.")
    ] = True,
    context: Context = None,
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Run a plan on a cluster's Kubeflow."""
    needs_sdk("lmmpress submit")
    from lmmpress.kubeflow.submit import follow
    from lmmpress.kubeflow.submit import submit as submit_plan

    if cluster is None:
        raise UserError("say where: --cluster CLUSTER.yaml")
    plan = api.as_plan(one_plan(plan_file, "sample" if sample else None), overrides, with_data=False)
    profile = the_profile(cluster)
    warnings = profile.warnings()
    if strict and warnings:
        raise UserError(warnings[0])
    _warn(warnings)
    if checks:
        from lmmpress.cli.doctor import look_before

        look_before(profile, granularity, context)
    client, submitted = submit_plan(plan, api.name_of_compressed(plan.model), profile, granularity)
    if not as_json:
        out.print(submitted.link)
    state = "SUBMITTED"
    if wait:
        try:
            with _View() as view:
                state = follow(client, profile.kubeflow, submitted.run_id, view.tell)
        except KeyboardInterrupt:
            raise UserError(f"no longer following; the run goes on: {submitted.link}") from None
    if as_json:
        print(json.dumps({"run_id": submitted.run_id, "link": submitted.link, "state": state}))
    elif wait:
        out.print(state.lower())
    if wait and state != "SUCCEEDED":
        raise typer.Exit(1)


class _View:
    """A line for each task that ends, and below them the ones that run."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._status = console.status("submitted")

    def __enter__(self) -> "_View":
        self._status.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._status.__exit__(None, None, None)

    def tell(self, seen: "Seen") -> None:
        for name, state in seen.tasks.items():
            if state not in ("RUNNING", "PENDING") and name not in self._told:
                self._told.add(name)
                console.print(f"{name}: {state.lower()}")
        running = [name for name, state in seen.tasks.items() if state == "RUNNING"]
        self._status.update(
            f"{seen.state.lower()}: {', '.join(running) or 'waiting for a pod'}, {len(self._told)} done"
        )


def _warn(warnings: list[str]) -> None:
    for warning in warnings:
        say("warning", warning, "yellow")
