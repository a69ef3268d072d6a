"""Makes what a namespace needs once: buckets, the users of MinIO, and MLflow's experiment. Run again, it changes
nothing.

Runs in the image of lmmpress, after every installation, upgrade and rollback. Waits for servers that just start.
"""

import json
import os
import sys
import time
from collections.abc import Callable

from minio.error import MinioAdminException, S3Error

from lmmpress.errors import UserError
from lmmpress.store.connection import FAILURES, administer, connect, explain, passing
from lmmpress.store.rights import place, policy

# A user of MinIO may change its own secret key and make keys that outlive it, unless a policy forbids it.
NO_ADMINISTRATION = {"Effect": "Deny", "Action": ["admin:*"]}


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


def make_bucket(address: str) -> str:
    """`address` is bucket/prefix. Keys that may list that prefix alone are enough to see that the bucket is there."""
    there = place(address)
    name, client = there.bucket, connect()
    try:
        try:
            found = client.bucket_exists(bucket_name=name)
        except S3Error as error:
            if error.code != "AccessDenied" or not there.prefix:
                raise
            next(iter(client.list_objects(bucket_name=name, prefix=f"{there.prefix}/")), None)
            found = True
        if found:
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


def make_user(name: str) -> str:
    """The user that USERS describes under that name, with the keys of NAME_ACCESS_KEY_ID and NAME_SECRET_ACCESS_KEY.

    Its policy is written anew. Users that have this policy with other keys are removed: so keys are changed by deleting
    their Secret and upgrading the release.
    """
    every = json.loads(os.environ["USERS"])
    asked = every[name]
    key, secret = os.environ[f"{name}_ACCESS_KEY_ID"], os.environ[f"{name}_SECRET_ACCESS_KEY"]
    called, who = f"lmmpress-{name.lower()}", f"keys of {name.lower()}"
    if key == os.environ["AWS_ACCESS_KEY_ID"]:
        return f"{who}: WARNING: they are MinIO's root keys, and may do everything there"
    rights = policy([place(one) for one in asked["write"]], [place(one) for one in asked["read"]])
    rights["Statement"].append(NO_ADMINISTRATION)
    admin = administer()
    try:
        admin.policy_add(called, policy=rights)
        users = json.loads(admin.user_list())
        admin.user_add(key, secret)
        # whoever has the same keys keeps the rights that were given before
        same = [one for one in sorted(every) if one <= name and os.environ[f"{one}_ACCESS_KEY_ID"] == key]
        admin.policy_set(",".join(f"lmmpress-{one.lower()}" for one in same), user=key)
        for other, told in users.items():
            if other != key and called in str(told.get("policyName") or "").split(","):
                admin.user_remove(other)
    except (MinioAdminException, *FAILURES) as error:
        told = explain(error, who)
        raise LaterError(str(told)) if passing(error) else told from None
    return f"{who}: may write to {', '.join(asked['write'])}" + (
        f" and read {', '.join(asked['read'])}" if asked["read"] else ""
    )


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
        for address in os.environ.get("BUCKETS", "").split():
            print(patiently(make_bucket, address, until), flush=True)
        for name in json.loads(os.environ.get("USERS", "{}")):
            print(patiently(make_user, name, until), flush=True)
        if experiment := os.environ.get("EXPERIMENT"):
            print(patiently(make_experiment, experiment, until), flush=True)
    except UserError as error:
        sys.exit(str(error))


main()
