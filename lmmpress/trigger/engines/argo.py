"""Runs as workflows of Argo's. A namespace has one workflow of a name, so a second one cannot be made."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lmmpress.argo import needs_hera
from lmmpress.errors import UserError
from lmmpress.tasks.addresses import reachable_arguments
from lmmpress.trigger.claims import Sent
from lmmpress.trigger.engines.interface import Order, Phase, RefusedError, Seen

if TYPE_CHECKING:
    from lmmpress.argo.cluster import Workflows

_PHASES: dict[str, Phase] = {
    "": "waiting",
    "Pending": "waiting",
    "Succeeded": "succeeded",
    "Failed": "failed",
    "Error": "failed",
}


class ArgoEngine:
    """The Argo of the kubeconfig's cluster; `context` is one of its contexts."""

    settles = 0.0

    def __init__(self, context: str | None = None) -> None:
        self._context = context

    def find(self, order: Order) -> list[Sent]:
        with self._workflows(order) as workflows:
            return [] if workflows.get(order.run) is None else [self._sent(workflows, order)]

    def create(self, order: Order) -> Sent:
        needs_hera("a run on Argo")
        from lmmpress.argo import cluster
        from lmmpress.argo.fitting import fit
        from lmmpress.argo.submit import submit

        try:  # what is wrong with the order itself is found before anything is sent
            granularity = fit(order.plan, order.granularity).granularity
            reachable_arguments(order.plan, order.compressed, order.profile)
        except UserError as error:
            raise RefusedError(*error.lines) from None
        with self._workflows(order) as workflows:
            try:
                made = submit(order.plan, order.compressed, order.profile, granularity, workflows, run_name=order.run)
            except cluster.RefusedError as error:
                raise RefusedError(*error.lines) from None
            return Sent(made.name, made.link)

    def look(self, order: Order, sent: Sent) -> Seen:
        from lmmpress.argo.cluster import is_shut_down
        from lmmpress.pods.cluster_reader import at, text
        from lmmpress.pods.waiting import phase_of

        with self._workflows(order) as workflows:
            found = workflows.get(sent.id)
        if found is None:
            return Seen("gone", f"there is no workflow {sent.id} any more")
        phase = _PHASES.get(phase_of(found), "running")
        if phase == "failed" and is_shut_down(found):
            phase = "cancelled"
        return Seen(phase, text(at(found, "status", "message")) if phase in ("failed", "cancelled") else "")

    def cancel(self, order: Order, sent: Sent) -> None:
        with self._workflows(order) as workflows:
            workflows.end(sent.id)

    def reach(self, order: Order) -> str:
        from lmmpress.argo.cluster import check_account, controller_version
        from lmmpress.argo.fitting import fit

        reachable_arguments(order.plan, order.compressed, order.profile)
        said = fit(order.plan, order.granularity).said
        with self._workflows(order) as workflows:
            workflows.get(order.run)
            version = controller_version(workflows, order.profile)
            check_account(workflows, order.profile)
            shown = f"Argo {version[0]}.{version[1]}" if version else "Argo, whose controller is not seen,"
            return f"{shown} in namespace {workflows.namespace} of {workflows.cluster.host} answers; {said}"

    def _sent(self, workflows: "Workflows", order: Order) -> Sent:
        from lmmpress.argo.submit import link_of

        return Sent(order.run, link_of(workflows, order.profile, order.run))

    @contextmanager
    def _workflows(self, order: Order) -> "Iterator[Workflows]":
        """The workflows of the profile's namespace. What the API does not answer, or refuses, is a UserError."""
        needs_hera("a run on Argo")
        from lmmpress.argo.cluster import connect
        from lmmpress.pods.cluster_reader import UnseenError

        workflows = connect(order.profile, self._context)
        try:
            yield workflows
        except UnseenError as error:
            raise UserError(f"{workflows.cluster.host}: {error}") from None
