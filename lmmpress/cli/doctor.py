"""lmmpress doctor: find what a cluster and the trigger lack, and how to add it."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmmpress import api
from lmmpress.api import Granularity
from lmmpress.cli.findings import show_findings
from lmmpress.cli.shared import AsJson, Context, ProfileFile, console, say, the_profile
from lmmpress.cli.trigger_shared import check_trigger
from lmmpress.errors import UserError
from lmmpress.host.extras import needs

if TYPE_CHECKING:
    from lmmpress.doctor.finding import Finding
    from lmmpress.plan import Plan
    from lmmpress.tasks.cluster_profile import Profile


def doctor(
    cluster: ProfileFile = None,
    plan_file: Annotated[
        Path | None, typer.Option("--plan", metavar="PLAN.yaml", help="Try the store, model and data of this plan.")
    ] = None,
    granularity: Annotated[
        Granularity | None, typer.Option(help="Check the pods of this pipeline only, instead of both.")
    ] = None,
    inside: Annotated[bool, typer.Option("--inside", help="Try bucket and MLflow from a pod too, by a Job.")] = False,
    trigger: Annotated[
        Path | None,
        typer.Option(metavar="TRIGGER.yaml", help="Check the trigger of these settings too, as `trigger check` does."),
    ] = None,
    context: Context = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 for warnings and unknown results too.")] = False,
    as_json: AsJson = False,
) -> None:
    """What a cluster and the trigger lack, and how to add it. Exit code 1 if a check failed."""
    if cluster is None and trigger is None:
        raise UserError("say what to look at: --cluster CLUSTER.yaml, --trigger TRIGGER.yaml, or both")
    found = [] if cluster is None else _of_the_cluster(cluster, plan_file, granularity, inside, context)
    if trigger is not None:
        found += check_trigger(trigger)
    show_findings(found, as_json, strict)


def _of_the_cluster(
    cluster: Path, plan_file: Path | None, granularity: Granularity | None, inside: bool, context: str | None
) -> "list[Finding]":
    """What the cluster of a profile lacks. UserError if it cannot be looked at."""
    needs("kubernetes", "lmmpress doctor")
    from lmmpress.doctor.checks import checks, examine, run_check
    from lmmpress.doctor.external_services import Addresses, as_pods_see, check_outside
    from lmmpress.doctor.in_cluster import check_from_inside
    from lmmpress.doctor.permissions import check_inside
    from lmmpress.doctor.plan_memory import check_plan_memory
    from lmmpress.doctor.pod_demands import BY_GRANULARITY
    from lmmpress.pods.cluster_reader import NoClusterError, connect
    from lmmpress.tasks.cluster_profile import COMPONENTS

    profile = the_profile(cluster)
    plan = api.as_plan(plan_file) if plan_file else None
    addresses = Addresses(plan.store, plan.model, plan.data) if plan else Addresses()
    try:
        connected = connect(context)
    except NoClusterError as error:
        raise UserError(str(error)) from None
    components = BY_GRANULARITY[granularity] if granularity else COMPONENTS
    with console.status("looking") as shown:
        found = examine(profile, connected, checks(components), lambda name: shown.update(f"looking at {name}"))
        shown.update("trying bucket and MLflow from here")
        with as_pods_see(profile.environment):
            found += run_check("from here", lambda *_: check_outside(addresses, here=True), profile, connected)
        found += _of_the_plan(plan, profile)
        if plan is not None:
            shown.update("counting the memory of the plan")
            check = partial(check_plan_memory, plan, granularity or Granularity.step)
            found += run_check("memory of the plan", check, profile, connected)
        if inside:
            shown.update("trying bucket and MLflow from a pod")
            allowed = run_check("inside", check_inside, profile, connected)
            found += allowed
            if not any(one.status == "failed" for one in allowed):
                found += run_check(
                    "inside", lambda *_: check_from_inside(profile, connected, addresses), profile, connected
                )
    return found


def _of_the_plan(plan: "Plan | None", profile: "Profile") -> "list[Finding]":
    """Check plan against profile: without a plan no bucket is tried, and without keys pods cannot open it."""
    from lmmpress.doctor.finding import unknown, warning

    if plan is None and profile.secrets.store:
        return [unknown("bucket", "no plan says which bucket is used, so none was tried", "--plan PLAN.yaml")]
    if plan is not None and str(plan.store).startswith("s3://") and not profile.secrets.store:
        mend = "secrets: {store: {name: ...}} in the profile; none is needed if the service account has a role"
        return [warning("secrets", "the plan's store is a bucket, and pods get no keys for it", mend)]
    return []


def look_before(profile: "Profile", granularity: str, context: str | None) -> None:
    """Run the checks before `submit`: UserError with the doctor's message if one failed; a warning for the rest."""
    from lmmpress.doctor.checks import before_submitting
    from lmmpress.pods.cluster_reader import NoClusterError, connect

    try:
        connected = connect(context)
    except NoClusterError as error:
        if context:
            raise UserError(str(error)) from None
        say("warning", f"the cluster could not be looked at: {error}", "yellow")
        return
    with console.status("looking at the cluster (--no-checks leaves that out)"):
        found = before_submitting(profile, connected, granularity)
    if found[0].status == "failed":  # Kubeflow may be reachable even if the cluster's API is not
        say("warning", f"the cluster could not be looked at: {found[0].said}", "yellow")
        return
    faults = [one for one in found if one.status == "failed"]
    for one in found:
        if one.status == "warning":
            say("warning", _line(one), "yellow")
    if unseen := [one.check for one in found if one.status == "unknown"]:
        say("warning", f"could not be looked at: {', '.join(unseen)}; `lmmpress doctor` says why", "yellow")
    for one in faults[1:]:
        say("failed", _line(one), "red")
    if faults:
        more = f" (and {len(faults) - 1} more, above)" if len(faults) > 1 else ""
        raise UserError(f"{_line(faults[0])}{more}; --no-checks submits all the same")


def _line(one: "Finding") -> str:
    return f"{one.check}: {one.said}" + (f"; {one.mend}" if one.mend else "")
