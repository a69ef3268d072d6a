"""Runs on Kubeflow Pipelines. Kubeflow gives one name to any number of runs, so its list is what tells."""

from typing import TYPE_CHECKING

from lmmpress.errors import UserError
from lmmpress.kubeflow import needs_sdk
from lmmpress.tasks.addresses import reachable_arguments
from lmmpress.trigger.claims import Sent
from lmmpress.trigger.engines.interface import Order, Phase, RefusedError, Seen

if TYPE_CHECKING:
    from kfp import Client

_INVALID = (400, 413, 422)
_PHASES: dict[str, Phase] = {
    "PENDING": "waiting",
    "SUCCEEDED": "succeeded",
    "SKIPPED": "succeeded",
    "FAILED": "failed",
    "CANCELED": "cancelled",
}


class KubeflowEngine:
    """The Kubeflow of each order's profile."""

    settles = 60.0

    def find(self, order: Order) -> list[Sent]:
        from lmmpress.kubeflow.runs import runs_named

        client = self._client(order)
        return [Sent(run.run_id, run.link) for run in runs_named(client, order.profile.kubeflow, order.run)]

    def create(self, order: Order) -> Sent:
        needs_sdk("a run on Kubeflow")
        from lmmpress.kubeflow.fitting import fit
        from lmmpress.kubeflow.submit import AnsweredError, submit

        try:  # what is wrong with the order itself is found before anything is sent
            granularity = fit(order.plan, order.profile, order.granularity).granularity
            reachable_arguments(order.plan, order.compressed, order.profile)
        except UserError as error:
            raise RefusedError(*error.lines) from None
        try:
            _, made = submit(order.plan, order.compressed, order.profile, granularity, order.run)
        except AnsweredError as error:
            if error.status in _INVALID:
                raise RefusedError(*error.lines) from None
            raise
        return Sent(made.run_id, made.link)

    def look(self, order: Order, sent: Sent) -> Seen:
        from lmmpress.kubeflow.runs import state_of

        found = state_of(self._client(order), order.profile.kubeflow, sent.id)
        if found is None:
            return Seen("gone", f"Kubeflow at {order.profile.kubeflow.host} no longer knows run {sent.id}")
        state, said = found
        return Seen(_PHASES.get(state, "running"), said or (f"see {sent.link}" if state == "FAILED" else ""))

    def cancel(self, order: Order, sent: Sent) -> None:
        from lmmpress.kubeflow.runs import terminate

        terminate(self._client(order), order.profile.kubeflow, sent.id)

    def reach(self, order: Order) -> str:
        """See `Engine`. It lists experiments and runs as the trigger does, with its token. Whether it may also make a
        run, only a run shows."""
        from lmmpress.kubeflow.fitting import fit
        from lmmpress.kubeflow.submit import explained

        client, kubeflow = self._client(order), order.profile.kubeflow
        reachable_arguments(order.plan, order.compressed, order.profile)
        said = fit(order.plan, order.profile, order.granularity).said
        with explained(kubeflow):
            client.list_experiments(page_size=1, namespace=kubeflow.namespace)
            client.list_runs(page_size=1, namespace=kubeflow.namespace)
        return f"Kubeflow at {kubeflow.host} lists experiments and runs for this identity; {said}"

    def _client(self, order: Order) -> "Client":
        needs_sdk("a run on Kubeflow")
        from lmmpress.kubeflow.submit import connect

        return connect(order.profile.kubeflow)
