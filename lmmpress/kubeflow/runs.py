"""Finds runs on Kubeflow by their names, looks at them and ends them. Kubeflow lets many runs have one name."""

import json
from typing import TYPE_CHECKING, Any

from lmmpress.errors import UserError
from lmmpress.kubeflow.submit import AnsweredError, Submitted, explained, link_of
from lmmpress.printing.one_line import printable
from lmmpress.tasks.cluster_profile import Kubeflow

if TYPE_CHECKING:
    from kfp import Client

_EQUALS = 1  # of the operations that Kubeflow's filters know
_PAGE = 100


def runs_named(client: "Client", kubeflow: Kubeflow, name: str) -> list[Submitted]:
    """The runs of that name in the profile's experiment, oldest first. UserError if Kubeflow does not answer."""
    predicate = {"operation": _EQUALS, "key": "display_name", "stringValue": name}
    found: list[Any] = []
    token = ""
    with explained(kubeflow):
        experiment = client.create_experiment(kubeflow.experiment, namespace=kubeflow.namespace)  # or the one there is
        while True:
            page = client.list_runs(
                page_token=token,
                page_size=_PAGE,
                sort_by="created_at asc",
                experiment_id=experiment.experiment_id,
                filter=json.dumps({"predicates": [predicate]}),
            )
            found += [run for run in page.runs or [] if run.display_name == name]
            token = page.next_page_token or ""
            if not token:
                break
    return [Submitted(run.run_id, link_of(kubeflow, run.run_id)) for run in found]


def state_of(client: "Client", kubeflow: Kubeflow, run_id: str) -> tuple[str, str] | None:
    """A run's state, as Kubeflow names it, and what Kubeflow says of its failure; None if Kubeflow does not know the
    run. UserError if it does not answer."""
    try:
        with explained(kubeflow):
            run = client.get_run(run_id)
    except UserError as error:
        if isinstance(error, AnsweredError) and error.status == 404:
            return None
        raise
    said = getattr(getattr(run, "error", None), "message", None) or ""
    return str(run.state or "PENDING"), printable(str(said))


def terminate(client: "Client", kubeflow: Kubeflow, run_id: str) -> None:
    """Ask for the end of a run; nothing happens if it has ended, or Kubeflow does not know it."""
    state = state_of(client, kubeflow, run_id)
    if state is None or state[0] not in ("PENDING", "RUNNING", "PAUSED"):
        return
    with explained(kubeflow):
        client.terminate_run(run_id)
