"""lmmpress doctor: what a cluster lacks, and what mends it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from lmmpress import api
from lmmpress.api import Granularity
from lmmpress.cli.shared import AsJson, Context, ProfileFile, console, out, say, the_profile
from lmmpress.errors import UserError
from lmmpress.host.extras import needs
from lmmpress.printing.terminal import Table

if TYPE_CHECKING:
    from lmmpress.doctor.finding import Finding
    from lmmpress.plan import Plan
    from lmmpress.tasks.cluster_profile import Profile

COLOURS = {"ok": "green", "warning": "yellow", "failed": "red", "unknown": "magenta"}


def doctor(
    cluster: ProfileFile = None,
    plan_file: Annotated[
        Path | None, typer.Option("--plan", metavar="PLAN.yaml", help="Try the store, model and data that it names.")
    ] = None,
    granularity: Annotated[
        Granularity | None, typer.Option(help="Look at the pods of this pipeline alone, instead of both.")
    ] = None,
    inside: Annotated[bool, typer.Option("--inside", help="Try bucket and MLflow from a pod too, by a Job.")] = False,
    context: Context = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 for warnings and what is unknown too.")] = False,
    as_json: AsJson = False,
) -> None:
    """What a cluster lacks for our pipelines, and what mends it. Exit code 1 where something failed."""
    if cluster is None:
        raise UserError("say which: --cluster CLUSTER.yaml")
    needs("kubernetes", "lmmpress doctor")
    from lmmpress.doctor.checks import checks, examine, run_check
    from lmmpress.doctor.cluster_reader import NoClusterError, connect
    from lmmpress.doctor.external_services import Addresses, as_pods_see, check_outside
    from lmmpress.doctor.in_cluster import check_from_inside
    from lmmpress.doctor.permissions import check_inside
    from lmmpress.doctor.pod_demands import BY_GRANULARITY
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
        if inside:
            shown.update("trying bucket and MLflow from a pod")
            allowed = run_check("inside", check_inside, profile, connected)
            found += allowed
            if not any(one.status == "failed" for one in allowed):
                found += run_check(
                    "inside", lambda *_: check_from_inside(profile, connected, addresses), profile, connected
                )
    counts = {status: sum(one.status == status for one in found) for status in COLOURS}
    if as_json:
        print(json.dumps({"findings": [asdict(one) for one in found], "counts": counts}, indent=1))
    else:
        out.print(_table(found))
        for one in found:  # beside the table, so that a command can be copied
            if one.mend and one.status != "ok":
                out.print(Text(f"{one.check}: ", style=COLOURS[one.status]).append(one.mend, style="bold"))
        out.print(", ".join(f"{count} {status}" for status, count in counts.items() if count))
    if counts["failed"] or (strict and (counts["warning"] or counts["unknown"])):
        raise typer.Exit(1)


def _of_the_plan(plan: "Plan | None", profile: "Profile") -> "list[Finding]":
    """What plan and profile say of each other: a bucket that nobody names is not tried, one without keys not opened."""
    from lmmpress.doctor.finding import unknown, warning

    if plan is None and profile.secrets.store:
        return [unknown("bucket", "no plan says which bucket is used, so none was tried", "--plan PLAN.yaml")]
    if plan is not None and str(plan.store).startswith("s3://") and not profile.secrets.store:
        mend = "secrets: {store: {name: ...}} in the profile; none is needed where the service account has a role"
        return [warning("secrets", "the plan's store is a bucket, and pods get no keys for it", mend)]
    return []


def _table(found: "list[Finding]") -> Table:
    table = Table("check", "", "what was found")
    for one in found:
        table.add_row(Text(one.check), Text(one.status, style=COLOURS[one.status]), Text(one.said))
    return table


def look_before(profile: "Profile", granularity: str, context: str | None) -> None:
    """What `submit` does first: UserError where a check failed, with the doctor's words; the rest is warned of."""
    from lmmpress.doctor.checks import before_submitting
    from lmmpress.doctor.cluster_reader import NoClusterError, connect

    try:
        connected = connect(context)
    except NoClusterError as error:
        if context:
            raise UserError(str(error)) from None
        say("warning", f"the cluster could not be looked at: {error}", "yellow")
        return
    with console.status("looking at the cluster (--no-checks leaves that out)"):
        found = before_submitting(profile, connected, granularity)
    if found[0].status == "failed":  # where pipelines are submitted to may well be reached without it
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
