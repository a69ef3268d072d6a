"""lmmpress compile and submit: a plan as a pipeline of Kubeflow's."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmmpress import api
from lmmpress.cli import argo
from lmmpress.cli.shared import (
    AsJson,
    Context,
    FromPreset,
    Overrides,
    PlanFile,
    ProfileFile,
    Sample,
    console,
    one_plan,
    out,
    say,
    the_profile,
)
from lmmpress.errors import UserError
from lmmpress.kubeflow import needs_sdk
from lmmpress.tasks.cluster_profile import Engine
from lmmpress.tasks.granularity import Choice

if TYPE_CHECKING:
    from lmmpress.pods.cluster_reader import Cluster

Grain = Annotated[
    Choice,
    typer.Option(
        help="A task for each part of a step, or for each stage; auto: step where the engine can hold and show it all."
    ),
]
RunBy = Annotated[Engine | None, typer.Option("--engine", help="What runs the pods; else what the profile names.")]
Strict = Annotated[bool, typer.Option("--strict", help="Treat warnings as errors.")]


def compile(
    target: Annotated[Path, typer.Option("--output", "-o", help="The pipeline's file, .yaml.")],
    plan_file: PlanFile = None,
    from_preset: FromPreset = None,
    sample: Sample = False,
    cluster: ProfileFile = None,
    engine: RunBy = None,
    granularity: Grain = Choice.auto,
    strict: Strict = False,
    overrides: Overrides = [],  # noqa: B006 (typer reads the default, nothing changes it)
    as_json: AsJson = False,
) -> None:
    """Write a plan as a pipeline that any Kubeflow, or Argo, runs: its numbers are the pipeline's parameters."""
    chosen = one_plan(plan_file, from_preset, sample)
    if (engine or the_profile(cluster).engine) == Engine.argo:
        return argo.compile(target, chosen, the_profile(cluster), granularity, strict, overrides, as_json)
    needs_sdk("lmmpress compile")
    from lmmpress.kubeflow.compile import compile_plan
    from lmmpress.kubeflow.fitting import fit
    from lmmpress.tasks.pod_memory import memory_warnings

    plan = api.as_plan(chosen, overrides, with_data=False)
    profile = the_profile(cluster)
    fitting = fit(plan, profile, granularity)
    short = memory_warnings(plan, profile, fitting.granularity)
    if strict and (found := [*profile.warnings(), *short]):
        raise UserError(found[0])
    warnings = short + compile_plan(plan, api.name_of_compressed(plan.model), profile, fitting.granularity, target)
    warnings += [fitting.warning] if fitting.warning else []
    if as_json:
        about = {"granularity": fitting.granularity, "why": fitting.said, "warnings": warnings}
        print(json.dumps({"pipeline": str(target), "bytes": target.stat().st_size} | about))
        return
    _warn(warnings)
    out.print(f"{target}: {target.stat().st_size:,} bytes, {fitting.said}")


def submit(
    plan_file: PlanFile = None,
    from_preset: FromPreset = None,
    sample: Sample = False,
    cluster: ProfileFile = None,
    engine: RunBy = None,
    granularity: Grain = Choice.auto,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run; exit code 1 if it does not succeed.")] = False,
    strict: Strict = False,
    checks: Annotated[
        bool, typer.Option("--checks/--no-checks", help="Check the cluster first, as doctor does.")
    ] = True,
    context: Context = None,
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Run a plan on a cluster's Kubeflow, or on its Argo."""
    if cluster is None:
        raise UserError("say where: --cluster CLUSTER.yaml")
    chosen = one_plan(plan_file, from_preset, sample)
    if (engine or the_profile(cluster).engine) == Engine.argo:
        again = _again(chosen, cluster, granularity, overrides, Engine.argo if engine else None)
        options = argo.Options(granularity, wait, strict, checks, context, overrides, as_json, again)
        return argo.submit(chosen, the_profile(cluster), options)
    needs_sdk("lmmpress submit")
    from lmmpress.kubeflow.fitting import fit
    from lmmpress.kubeflow.submit import submit as submit_plan
    from lmmpress.tasks.pod_memory import memory_warnings

    plan = api.as_plan(chosen, overrides, with_data=False)
    profile = the_profile(cluster)
    fitting = fit(plan, profile, granularity)
    warnings = [*profile.warnings(), *memory_warnings(plan, profile, fitting.granularity)]
    if strict and warnings:
        raise UserError(warnings[0])
    _warn(warnings + ([fitting.warning] if fitting.warning else []))
    if checks:
        from lmmpress.cli.doctor import look_before

        look_before(profile, fitting.granularity, context)
    client, submitted = submit_plan(plan, api.name_of_compressed(plan.model), profile, fitting.granularity)
    if not as_json:
        say("note", fitting.said, "dim")
        out.print(submitted.link)
    state = "SUBMITTED"
    if wait:
        from lmmpress.doctor.external_services import as_pods_see
        from lmmpress.kubeflow.follow import explain, follow

        seen = _cluster(context)
        try:
            with as_pods_see(profile.environment):
                state = follow(client, profile, plan, submitted, console.print, seen)
        except KeyboardInterrupt:
            raise UserError(f"no longer following; the run goes on: {submitted.link}") from None
        if state == "FAILED":
            explain(profile, submitted, seen, _again(chosen, cluster, granularity, overrides), console.print)
    if as_json:
        print(json.dumps({"run_id": submitted.run_id, "link": submitted.link, "state": state}))
    elif wait:
        out.print(state.lower())
    if wait and state != "SUCCEEDED":
        raise typer.Exit(1)


def _cluster(context: str | None) -> "Cluster | None":
    """The cluster of the kubeconfig, if there is one: it tells of pods what Kubeflow does not."""
    from lmmpress.pods.cluster_reader import NoClusterError, connect

    try:
        return connect(context)
    except (NoClusterError, UserError) as error:
        say("note", f"pods are not seen, so Kubeflow's own tasks are followed: {error}", "dim")
        return None


def _again(
    chosen: Path | str, cluster: Path, granularity: Choice, overrides: list[str], engine: Engine | None = None
) -> str:
    """The command that submits the same plan again."""
    plan = [str(chosen)] if isinstance(chosen, Path) else ["--preset", chosen]
    words = ["lmmpress", "submit", *plan, "--cluster", str(cluster)]
    words += ["--engine", engine.value] if engine else []
    words += ["--granularity", granularity.value] if granularity != Choice.auto else []
    return shlex.join([*words, *(word for one in overrides for word in ("--set", one)), "--wait"])


def _warn(warnings: list[str]) -> None:
    for warning in warnings:
        say("warning", warning, "yellow")
