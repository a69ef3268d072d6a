"""Makes what a namespace needs once: the buckets, and MLflow's experiment. Run again, it changes nothing.

Runs in the image of lmmpress, after every installation, upgrade and rollback. Waits for servers that just start.
"""

import os
import sys
import time
from collections.abc import Callable

from minio.error import S3Error

from lmmpress.errors import UserError
from lmmpress.store.connection import FAILURES, connect, explain, passing


class LaterError(Exception):
    """What may pass."""


def patiently(ask: Callable[[str], str], name: str, until: float) -> str:
    """The answer, asked for again until it is too late."""
    pause = 0.5
    while True:
        try:
            return ask(name)
        except LaterError as error:
            if time.monotonic() > until:
                raise UserError(str(error)) from None
            print(f"{error}; trying again", flush=True)
            time.sleep(pause)
            pause = min(2 * pause, 10.0)


def make_bucket(name: str) -> str:
    client = connect()
    try:
        if client.bucket_exists(bucket_name=name):
            return f"bucket {name} is there"
        client.make_bucket(bucket_name=name)
    except (S3Error, *FAILURES) as error:
        # someone else made it since
        if isinstance(error, S3Error) and error.code == "BucketAlreadyOwnedByYou":
            return f"bucket {name} is there"
        # never what the server said: it may hold names of accounts
        told = explain(error, f"bucket {name}")
        raise LaterError(str(told)) if passing(error) else told from None
    return f"bucket {name} made"


def make_experiment(name: str) -> str:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient()
    try:
        found = client.get_experiment_by_name(name)
        if found is None:
            return f"experiment {name} made: {client.create_experiment(name)}"
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
            return f"experiment {name} was deleted, and is restored: {found.experiment_id}"
    except MlflowException as error:
        # if someone else has made it since, it is found the next time
        raise LaterError(f"MLflow: {str(error).splitlines()[0]}") from None
    return f"experiment {name} is there: {found.experiment_id}"


def main() -> None:
    until = time.monotonic() + float(os.environ.get("PREPARE_TIMEOUT", "600"))
    # the client would try again by itself for minutes, and say nothing
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    try:
        for name in os.environ.get("BUCKETS", "").split():
            print(patiently(make_bucket, name, until), flush=True)
        if experiment := os.environ.get("EXPERIMENT"):
            print(patiently(make_experiment, experiment, until), flush=True)
    except UserError as error:
        sys.exit(str(error))


main()
