"""Submitting a pipeline to Kubeflow."""

import getpass
import io
import os
import socket
import tempfile
import time
import warnings
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import urllib3
import yaml

from lmmpress.errors import UserError
from lmmpress.kubeflow.compile import compile_plan
from lmmpress.kubeflow.tasks_seen import names_of
from lmmpress.plan import Plan
from lmmpress.tasks.addresses import reachable_arguments
from lmmpress.tasks.cluster_profile import Kubeflow, Profile
from lmmpress.tasks.granularity import Granularity

if TYPE_CHECKING:
    from kfp import Client

TOKEN = "KFP_TOKEN"
TOKEN_FILE = "KFP_TOKEN_FILE"
_PATIENCE = 30.0  # seconds to wait for one answer


@dataclass(frozen=True)
class Submitted:
    """A run of a pipeline, the link to its page, and the names of its tasks."""

    run_id: str
    link: str
    tasks: frozenset[str] = frozenset()


def submit(
    plan: Plan, name: str, profile: Profile, granularity: Granularity, run_name: str | None = None
) -> tuple["Client", Submitted]:
    """Compile a plan and run it on the profile's Kubeflow, under the name `run_name` if one is given.

    Raises UserError if the plan has an address that pods cannot reach, or Kubeflow cannot be reached or refuses.
    """
    arguments = reachable_arguments(plan, name, profile)
    client = connect(profile.kubeflow)
    # the client prints links of its own
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()), explained(profile.kubeflow):
        package = Path(folder) / "pipeline.yaml"
        compile_plan(plan, name, profile, granularity, package, _somebody())
        tasks = names_of(next(yaml.safe_load_all(package.read_text("utf-8"))))
        experiment = client.create_experiment(profile.kubeflow.experiment, namespace=profile.kubeflow.namespace)
        run = client.run_pipeline(
            experiment_id=experiment.experiment_id,
            job_name=run_name or f"{name} by {granularity} {time.strftime('%Y-%m-%d %H:%M')}",
            pipeline_package_path=str(package),
            params=arguments,
            enable_caching=False,
            service_account=profile.service_account,
        )
    return client, Submitted(run.run_id, link_of(profile.kubeflow, run.run_id), tasks)


def link_of(kubeflow: Kubeflow, run_id: str) -> str:
    """Where people see a run."""
    return f"{(kubeflow.ui or str(kubeflow.host)).rstrip('/')}/#/runs/details/{run_id}"


def _somebody() -> str | None:
    """Who runs this process; None for a user id without a name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return None


def connect(kubeflow: Kubeflow) -> "Client":
    """A client of Kubeflow Pipelines; UserError if Kubeflow cannot be reached, or refuses our token."""
    if not kubeflow.host:
        raise UserError("the cluster profile says nothing of kubeflow.host: where are pipelines submitted to?")
    probe(kubeflow)
    from kfp import Client

    socket.setdefaulttimeout(_PATIENCE)  # the client itself would wait for an answer forever
    with warnings.catch_warnings(), explained(kubeflow):
        warnings.simplefilter("ignore")
        return Client(
            host=kubeflow.host,
            existing_token=token(),
            namespace=kubeflow.namespace or "kubeflow",
            ssl_ca_cert=kubeflow.ca,
        )


def token() -> str | None:
    """The token for Kubeflow's API: that of KFP_TOKEN, else what the file that KFP_TOKEN_FILE names holds now, since
    Kubernetes writes a pod's token anew every hour; None without both. UserError if the file cannot be read."""
    given, file = os.environ.get(TOKEN), os.environ.get(TOKEN_FILE)
    if given or not file:
        return given
    try:
        return Path(file).read_text("utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "it is no text"
        raise UserError(f"{TOKEN_FILE}: {file} cannot be read: {said}") from None


class UnauthorizedError(UserError):
    """Kubeflow refuses the token: a retry would not help."""


class AnsweredError(UserError):
    """Kubeflow does not answer, or with an error; `status` is the HTTP status, None without an answer."""

    def __init__(self, line: str, status: int | None) -> None:
        super().__init__(line)
        self.status = status


class explained:  # noqa: N801 (used as a function)
    """Turn an exception of Kubeflow's client into one line for a person."""

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
            raise AnsweredError(f"Kubeflow at {self._host}: {str(said).splitlines()[0][:300]}", status) from None


def _unauthorized(host: str | None, status: int) -> UnauthorizedError:
    if os.environ.get(TOKEN):
        mend = f"the token in {TOKEN} may have expired"
    elif os.environ.get(TOKEN_FILE):
        mend = f"the token in {TOKEN_FILE} is not taken, or whom it names may not do this"
    else:
        mend = f"set a token in {TOKEN}"
    return UnauthorizedError(f"Kubeflow at {host} refuses access (HTTP {status}): {mend}")


def probe(kubeflow: Kubeflow) -> None:
    """Check Kubeflow's health first: the client would try for half a minute, and then report only a time-out."""
    url = f"{str(kubeflow.host).rstrip('/')}/apis/v2beta1/healthz"
    bearer = token()
    timeout = urllib3.Timeout(connect=5, read=_PATIENCE)
    pool = urllib3.PoolManager(retries=False, timeout=timeout, ca_certs=kubeflow.ca)
    try:
        found = pool.request("GET", url, headers={"Authorization": f"Bearer {bearer}"} if bearer else {})
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        reason = str(error).rpartition(": ")[2] or type(error).__name__
        raise UserError(f"Kubeflow at {kubeflow.host} cannot be reached: {reason[:200]}") from None
    if found.status in (401, 403):
        raise _unauthorized(kubeflow.host, found.status)
    kind = found.headers.get("Content-Type", "")
    if found.status in (301, 302, 303, 307, 308) or "html" in kind:
        raise UnauthorizedError(
            f"Kubeflow at {kubeflow.host} asks people to log in: set a token in KFP_TOKEN or give its API's address"
        )
    if found.status != 200:
        raise UserError(f"Kubeflow at {kubeflow.host} is not healthy: its health check answers HTTP {found.status}")
