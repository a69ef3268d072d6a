"""Submitting a pipeline to Kubeflow, and following it."""

import io
import os
import socket
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import urllib3

from lmmpress.errors import UserError
from lmmpress.kubeflow.compile import compile_plan, reachable_arguments
from lmmpress.plan import Plan
from lmmpress.tasks.cluster_profile import Kubeflow, Profile
from lmmpress.tasks.granularity import Granularity

if TYPE_CHECKING:
    from kfp import Client

TOKEN = "KFP_TOKEN"
ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
PAUSE = 10.0  # seconds between two looks at a run
_PATIENCE = 30.0  # seconds that one answer may take
_SILENCE = 600.0  # seconds without any answer, after which following a run is given up


@dataclass(frozen=True)
class Submitted:
    """A run of a pipeline, and where people see it."""

    run_id: str
    link: str


@dataclass(frozen=True)
class Seen:
    """Where a run stands: its state, and the state of each task by its name and number."""

    state: str
    tasks: dict[str, str]


def submit(plan: Plan, name: str, profile: Profile, granularity: Granularity) -> tuple["Client", Submitted]:
    """Compile a plan and run it on the profile's Kubeflow.

    Raises UserError where the plan names what pods cannot reach, or Kubeflow cannot be reached or refuses.
    """
    arguments = reachable_arguments(plan, name, profile)
    client = connect(profile.kubeflow)
    # the client prints links of its own
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()), _explained(profile.kubeflow):
        package = Path(folder) / "pipeline.yaml"
        compile_plan(plan, name, profile, granularity, package)
        experiment = client.create_experiment(profile.kubeflow.experiment, namespace=profile.kubeflow.namespace)
        run = client.run_pipeline(
            experiment_id=experiment.experiment_id,
            job_name=f"{name} by {granularity} {time.strftime('%Y-%m-%d %H:%M')}",
            pipeline_package_path=str(package),
            params=arguments,
            enable_caching=False,
            service_account=profile.service_account,
        )
    pages = (profile.kubeflow.ui or str(profile.kubeflow.host)).rstrip("/")
    return client, Submitted(run.run_id, f"{pages}/#/runs/details/{run.run_id}")


def connect(kubeflow: Kubeflow) -> "Client":
    """A client of Kubeflow Pipelines; UserError where it cannot be reached, or does not take our token."""
    if not kubeflow.host:
        raise UserError("the cluster profile says nothing of kubeflow.host: where are pipelines submitted to?")
    probe(kubeflow)
    from kfp import Client

    socket.setdefaulttimeout(_PATIENCE)  # the client itself would wait for an answer forever
    with warnings.catch_warnings(), _explained(kubeflow):
        warnings.simplefilter("ignore")
        return Client(
            host=kubeflow.host,
            existing_token=os.environ.get(TOKEN),
            namespace=kubeflow.namespace or "kubeflow",
            ssl_ca_cert=kubeflow.ca,
        )


def follow(client: "Client", kubeflow: Kubeflow, run_id: str, tell: Callable[[Seen], None]) -> str:
    """Tell where a run stands until it has ended; its last state. Answers that fail are asked for again, for ten
    minutes."""
    heard = time.monotonic()
    while True:
        try:
            with _explained(kubeflow):
                seen = _seen(client.get_run(run_id))
        except _UnauthorizedError:
            raise
        except UserError:
            if time.monotonic() - heard > _SILENCE:
                raise
        else:
            heard = time.monotonic()
            tell(seen)
            if seen.state in ENDED:
                return seen.state
        time.sleep(PAUSE)


class _UnauthorizedError(UserError):
    """Asking again would not help."""


class _explained:  # noqa: N801 (used as a function)
    """Turn what Kubeflow's client raises into one line for a person."""

    def __init__(self, kubeflow: Kubeflow) -> None:
        self._host = kubeflow.host

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: Any) -> None:
        if error is None or isinstance(error, UserError) or not isinstance(error, Exception):
            return
        status = getattr(error, "status", None)
        if status in (401, 403):
            raise _unauthorized(self._host, status) from None
        if isinstance(error, urllib3.exceptions.HTTPError | OSError) or status is not None:
            said = getattr(error, "reason", None) or str(error) or type(error).__name__
            raise UserError(f"Kubeflow at {self._host}: {str(said).splitlines()[0][:300]}") from None


def _unauthorized(host: str | None, status: int) -> _UnauthorizedError:
    token = "the token in KFP_TOKEN may have expired" if os.environ.get(TOKEN) else "set a token in KFP_TOKEN"
    return _UnauthorizedError(f"Kubeflow at {host} lets nobody in like this (HTTP {status}): {token}")


def probe(kubeflow: Kubeflow) -> None:
    """Ask for a sign of life first: the client would try for half a minute, and then tell of a time-out."""
    url = f"{str(kubeflow.host).rstrip('/')}/apis/v2beta1/healthz"
    token = os.environ.get(TOKEN)
    timeout = urllib3.Timeout(connect=5, read=_PATIENCE)
    pool = urllib3.PoolManager(retries=False, timeout=timeout, ca_certs=kubeflow.ca)
    try:
        found = pool.request("GET", url, headers={"Authorization": f"Bearer {token}"} if token else {})
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        reason = str(error).rpartition(": ")[2] or type(error).__name__
        raise UserError(f"Kubeflow at {kubeflow.host} cannot be reached: {reason[:200]}") from None
    if found.status in (401, 403):
        raise _unauthorized(kubeflow.host, found.status)
    kind = found.headers.get("Content-Type", "")
    if found.status in (301, 302, 303, 307, 308) or "html" in kind:
        raise _UnauthorizedError(
            f"Kubeflow at {kubeflow.host} asks people to log in: set a token in KFP_TOKEN or give its API's address"
        )
    if found.status != 200:
        raise UserError(f"Kubeflow at {kubeflow.host}: HTTP {found.status} where its health is told")


def _seen(run: Any) -> Seen:
    """What is worth telling of the answer: the tasks that people know, without those that only prepare them."""
    tasks: dict[str, str] = {}
    counts: dict[str, int] = {}
    details = run.run_details.task_details if run.run_details and run.run_details.task_details else []
    for task in sorted(details, key=lambda one: str(one.create_time)):
        name = str(task.display_name or "")
        if (
            not name
            or name.endswith("-driver")
            or name == "executor"
            or task.state in (None, "RUNTIME_STATE_UNSPECIFIED")
        ):
            continue
        counts[name] = counts.get(name, 0) + 1
        tasks[name if counts[name] == 1 else f"{name} ({counts[name]})"] = task.state
    return Seen(run.state or "PENDING", tasks)
