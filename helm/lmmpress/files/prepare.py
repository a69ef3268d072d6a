"""Makes what a namespace needs once: the buckets, and MLflow's experiment. Run again, it changes nothing.

Runs in the image of lmmpress, after every installation, upgrade and rollback. Waits for servers that just start.
"""

import os
import sys
import time
from collections.abc import Callable

from minio.error import S3Error

from lmmpress.store.connection import FAILURES, connect, explain


def patiently(what: str, ask: Callable[[], str], until: float) -> str:
    """The answer, asked for again until it is too late; failures are told, and never a credential."""
    pause = 0.5
    while True:
        try:
            return ask()
        except Exception as error:
            told = explain(error, what) if isinstance(error, (S3Error, *FAILURES)) else f"{what}: {error}"
            if time.monotonic() > until:
                sys.exit(str(told))
            print(f"{told}; trying again", flush=True)
            time.sleep(pause)
            pause = min(2 * pause, 10.0)


def make_bucket(name: str) -> str:
    client = connect()
    if client.bucket_exists(bucket_name=name):
        return f"bucket {name} is there"
    try:
        client.make_bucket(bucket_name=name)
    except S3Error as error:
        # someone else made it since
        if error.code != "BucketAlreadyOwnedByYou":
            raise
        return f"bucket {name} is there"
    return f"bucket {name} made"


def make_experiment(name: str) -> str:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient()
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return f"experiment {name} made: {client.create_experiment(name)}"
        except MlflowException as error:
            # someone else made it since
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = client.get_experiment_by_name(name)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
        return f"experiment {name} was deleted, and is restored: {found.experiment_id}"
    return f"experiment {name} is there: {found.experiment_id}"


def main() -> None:
    until = time.monotonic() + float(os.environ.get("PREPARE_TIMEOUT", "600"))
    for name in os.environ.get("BUCKETS", "").split():
        print(patiently(f"bucket {name}", lambda name=name: make_bucket(name), until), flush=True)
    if experiment := os.environ.get("EXPERIMENT"):
        print(patiently("MLflow", lambda: make_experiment(experiment), until), flush=True)


main()
