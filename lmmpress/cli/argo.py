"""lmmpress compile and submit with --engine argo: a plan as a workflow of Argo's."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lmmpress import api
from lmmpress.argo import needs_hera
from lmmpress.cli.shared import console, out, say
from lmmpress.errors import UserError
from lmmpress.tasks.granularity import Choice

if TYPE_CHECKING:
    from lmmpress.tasks.cluster_profile import Profile


@dataclass(frozen=True)
class Options:
    """The options of submit; `again` is the command that carries the run on."""

    granularity: Choice
    wait: bool
    strict: bool
    checks: bool
    context: str | None
    overrides: list[str]
    as_json: bool
    again: str


def compile(
    target: Path,
    chosen: Path | str,
    profile: "Profile",
    granularity: Choice,
    strict: bool,
    overrides: list[str],
    as_json: bool,
) -> None:
    """Write a WorkflowTemplate."""
    needs_hera("lmmpress compile --engine argo")
    from lmmpress.argo.compile import compile_plan
    from lmmpress.argo.fitting import fit
    from lmmpress.tasks.pod_memory import memory_warnings

    plan = api.as_plan(chosen, overrides, with_data=False)
    fitting = fit(plan, granularity)
    short = memory_warnings(plan, profile, fitting.granularity)
    if strict and (found := [*profile.warnings(), *short]):
        raise UserError(found[0])
    warnings = short + compile_plan(plan, api.name_of_compressed(plan.model), profile, fitting.granularity, target)
    if as_json:
        about = {"granularity": fitting.granularity, "why": fitting.said, "warnings": warnings}
        print(json.dumps({"workflow": str(target), "bytes": target.stat().st_size} | about))
        return
    _warn(warnings)
    out.print(f"{target}: {target.stat().st_size:,} bytes, {fitting.said}")


def submit(chosen: Path | str, profile: "Profile", options: Options) -> None:
    """Make a workflow, show where it is, and follow it if asked to; exit code 1 if it does not succeed."""
    needs_hera("lmmpress submit --engine argo")
    from lmmpress.argo.cluster import connect
    from lmmpress.argo.fitting import fit
    from lmmpress.argo.submit import submit as submit_workflow
    from lmmpress.tasks.pod_memory import memory_warnings

    plan = api.as_plan(chosen, options.overrides, with_data=False)
    fitting = fit(plan, options.granularity)
    warnings = [*profile.warnings(), *memory_warnings(plan, profile, fitting.granularity)]
    if options.strict and warnings:
        raise UserError(warnings[0])
    _warn(warnings)
    if options.checks:
        from lmmpress.cli.doctor import look_before

        look_before(profile, fitting.granularity, options.context)
    workflows = connect(profile, options.context)
    name = api.name_of_compressed(plan.model)
    submitted = submit_workflow(plan, name, profile, fitting.granularity, workflows, lambda line: _warn([line]))
    if not options.as_json:
        out.print(submitted.link)
    phase = "Submitted"
    if options.wait:
        from lmmpress.argo.follow import explain, follow
        from lmmpress.doctor.external_services import as_pods_see

        try:
            with as_pods_see(profile.environment):
                phase = follow(workflows, plan, submitted, console.print)
        except KeyboardInterrupt:
            raise UserError(f"no longer following; the workflow goes on: {submitted.link}") from None
        if phase != "Succeeded":
            explain(workflows, submitted, options.again, console.print)
    if options.as_json:
        place = {"workflow": submitted.name, "namespace": submitted.place.namespace}
        print(json.dumps(place | {"link": submitted.link, "state": phase.upper()}))
    elif options.wait:
        out.print(phase.lower())
    if options.wait and phase != "Succeeded":
        raise typer.Exit(1)


def _warn(warnings: list[str]) -> None:
    for warning in warnings:
        say("warning", warning, "yellow")
