"""lmmpress approve: let a pipeline go on that waits for a person."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from lmmpress.cli.shared import AsJson, Context, ProfileFile, out, say, the_profile
from lmmpress.errors import UserError
from lmmpress.host.extras import is_installed

if TYPE_CHECKING:
    from lmmpress.tasks.cluster_profile import Profile


def approve(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run key, how it begins, or a submission's name.")],
    store: Annotated[str, typer.Option(metavar="ADDRESS", help="The store of the run.")],
    stage: Annotated[str | None, typer.Option(help="The stage, if the run does not wait yet.")] = None,
    cluster: ProfileFile = None,
    context: Context = None,
    as_json: AsJson = False,
) -> None:
    """Let a run go on after a stage that its plan wants approved. On Argo the workflow is resumed too."""
    from lmmpress.doctor.external_services import as_pods_see
    from lmmpress.tasks.approval import approve as approve_run

    profile = the_profile(cluster)
    with as_pods_see(profile.environment):
        known, given = approve_run(store, run, stage)
    resumed = _resume(given.run_key, given.stage, given.by, profile, context)
    if as_json:
        print(json.dumps({"run_key": given.run_key, "stage": given.stage, "by": given.by, "resumed": resumed}))
        return
    out.print(f"run {known.key[:12]}: stage {given.stage} is approved by {given.by}")
    for name in resumed:
        out.print(f"workflow {name} goes on")


def _resume(run_key: str, stage: str, by: str, profile: "Profile", context: str | None) -> list[str]:
    """Resume Argo's workflows of the run, if a kubeconfig leads to some."""
    from lmmpress.argo.cluster import workflows_in
    from lmmpress.argo.resume import resume
    from lmmpress.pods.cluster_reader import NoClusterError, connect

    if not is_installed("kubernetes"):
        return []
    try:
        return resume(workflows_in(connect(context), profile), run_key, stage, by)
    except NoClusterError:
        return []
    except UserError as error:
        say("warning", f"the approval is in the store; no workflow of Argo's was resumed: {error}", "yellow")
        return []
