"""Submits a plan as a workflow of Argo's."""

import getpass
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from lmmpress.argo.cluster import Workflows, check_account, controller_version
from lmmpress.argo.compile import make_workflow
from lmmpress.host.pod import SUBMISSION_LABEL
from lmmpress.plan import Plan
from lmmpress.pods.argo_controller import NEWEST
from lmmpress.pods.waiting import Place
from lmmpress.tasks.cluster_profile import Profile
from lmmpress.tasks.granularity import Granularity


@dataclass(frozen=True)
class Submitted:
    """A workflow that was made, where its pods are, and where people see it: Argo's page, else the command that shows
    it."""

    name: str
    place: Place
    link: str


def submit(
    plan: Plan,
    name: str,
    profile: Profile,
    granularity: Granularity,
    workflows: Workflows,
    warn: Callable[[str], None] = lambda line: None,
    run_name: str | None = None,
) -> Submitted:
    """Make a workflow for a plan. If it is given, `run_name` is its name; a workflow of that name that is there already
    is then the one that was made.

    Raises UserError if the plan has an address that pods cannot reach, if the controller or the service account would
    not do, and if the cluster refuses.
    """
    version = controller_version(workflows, profile)
    if version and version > NEWEST:
        warn(f"Argo {version[0]}.{version[1]} is newer than {NEWEST[0]}.{NEWEST[1]}, the newest that was tried")
    check_account(workflows, profile)
    labels = {SUBMISSION_LABEL: uuid.uuid4().hex[:12]}
    workflow = make_workflow(plan, name, profile, granularity, _somebody(), version, labels)
    namespace = workflows.namespace
    workflow["metadata"]["namespace"] = namespace
    if run_name:
        del workflow["metadata"]["generateName"]
        workflow["metadata"]["name"] = run_name
    made = workflows.create(workflow)
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    return Submitted(made, Place(namespace, selector, profile.argo.system, "Argo"), link_of(workflows, profile, made))


def link_of(workflows: Workflows, profile: Profile, name: str) -> str:
    """Where people see a workflow: Argo's page, else the command that shows it."""
    pages, namespace = (profile.argo.ui or "").rstrip("/"), workflows.namespace
    return f"{pages}/workflows/{namespace}/{name}" if pages else f"kubectl get workflow {name} -n {namespace}"


def _somebody() -> str | None:
    """Who runs this process; None for a user id without a name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return None
