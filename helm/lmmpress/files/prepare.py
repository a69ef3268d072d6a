"""Creates what a namespace needs: buckets, the users of MinIO, and MLflow's experiment. Running it again changes
nothing.

Runs in the image of lmmpress, after every installation, upgrade and rollback. Waits for servers that are starting.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable

from minio.error import MinioAdminException, S3Error

from lmmpress.errors import UserError
from lmmpress.store.connection import FAILURES, administer, connect, explain, passing
from lmmpress.store.rights import place, policy

# Without this statement a MinIO user may change its own secret key, and create keys that stay valid when it is removed.
NO_ADMINISTRATION = {"Effect": "Deny", "Action": ["admin:*"]}


STORE = os.environ.get("AWS_ENDPOINT_URL") or "https://s3.amazonaws.com"
MLFLOW = os.environ.get("MLFLOW_TRACKING_URI", "")
"""The addresses that answer, for messages: a proxy or a wrong name may be in the place of the server."""


class TemporaryError(Exception):
    """An error that may pass, so that the request is retried."""


def with_retries(request: Callable[[str], str], name: str, until: float) -> str:
    """The answer of a request, which is retried after temporary errors until the time `until`."""
    pause = 0.5
    while True:
        try:
            return request(name)
        except TemporaryError as error:
            if time.monotonic() > until:
                raise UserError(str(error)) from None
            print(f"{error}; trying again", flush=True)
            time.sleep(pause)
            pause = min(2 * pause, 10.0)


def make_bucket(address: str) -> str:
    """Create the bucket of `address`, which is bucket/prefix, if it does not exist.

    Keys that may only list this prefix are enough to see that the bucket exists.
    """
    target = place(address)
    name, client = target.bucket, connect()
    try:
        try:
            exists = client.bucket_exists(bucket_name=name)
        except S3Error as error:
            if error.code != "AccessDenied" or not target.prefix:
                raise
            next(iter(client.list_objects(bucket_name=name, prefix=f"{target.prefix}/")), None)
            exists = True
        if exists:
            return f"bucket {name} is there"
        client.make_bucket(bucket_name=name)
    except (S3Error, *FAILURES) as error:
        # somebody else has created it in the meantime
        if isinstance(error, S3Error) and error.code == "BucketAlreadyOwnedByYou":
            return f"bucket {name} is there"
        # the server's own message is not printed: it may contain names of accounts
        explained = explain(error, f"bucket {name} at {STORE}")
        raise TemporaryError(str(explained)) if passing(error) else explained from None
    return f"bucket {name} made"


def make_user(name: str) -> str:
    """Create the user that USERS has under this name, with the keys in NAME_ACCESS_KEY_ID and NAME_SECRET_ACCESS_KEY.

    Its policy is written again. Users that have this policy with other keys are removed: to change keys, delete their
    Secret and upgrade the release.
    """
    users = json.loads(os.environ["USERS"])
    places = users[name]
    key, secret = os.environ[f"{name}_ACCESS_KEY_ID"], os.environ[f"{name}_SECRET_ACCESS_KEY"]
    policy_name, who = f"lmmpress-{name.lower()}", f"keys of {name.lower()}"
    if key == os.environ["AWS_ACCESS_KEY_ID"]:
        return f"{who}: WARNING: they are MinIO's root keys, and may do everything there"
    rights = policy([place(one) for one in places["write"]], [place(one) for one in places["read"]])
    rights["Statement"].append(NO_ADMINISTRATION)
    admin = administer()
    try:
        admin.policy_add(policy_name, policy=rights)
        existing = json.loads(admin.user_list())
        admin.user_add(key, secret)
        # users with the same keys are one user in MinIO, which gets the policies of all of them
        same = [one for one in sorted(users) if one <= name and os.environ[f"{one}_ACCESS_KEY_ID"] == key]
        admin.policy_set(",".join(f"lmmpress-{one.lower()}" for one in same), user=key)
        for other, details in existing.items():
            if other != key and policy_name in str(details.get("policyName") or "").split(","):
                admin.user_remove(other)
    except (MinioAdminException, *FAILURES) as error:
        explained = explain(error, f"{who} at {STORE}")
        raise TemporaryError(str(explained)) if passing(error) else explained from None
    return f"{who}: may write to {', '.join(places['write'])}" + (
        f" and read {', '.join(places['read'])}" if places["read"] else ""
    )


def make_experiment(name: str) -> str:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient()
    try:
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            return f"experiment {name} made: {client.create_experiment(name)}"
        if experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)
            return f"experiment {name} was deleted, and is restored: {experiment.experiment_id}"
    except MlflowException as error:
        # if somebody else has created it in the meantime, the retry finds it
        if refused := re.search("error code (401|403)", str(error)):
            mend = "mlflow.external.existingSecret" if refused[1] == "401" else "mlflow.external, mlflow.allowedHosts"
            raise UserError(f"MLflow at {MLFLOW}: {str(error).splitlines()[0]}; check {mend}") from None
        raise TemporaryError(f"MLflow at {MLFLOW}: {str(error).splitlines()[0]}") from None
    return f"experiment {name} is there: {experiment.experiment_id}"


def main() -> None:
    until = time.monotonic() + float(os.environ.get("PREPARE_TIMEOUT", "600"))
    # otherwise the client itself retries for minutes without a message
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    try:
        for address in os.environ.get("BUCKETS", "").split():
            print(with_retries(make_bucket, address, until), flush=True)
        for name in json.loads(os.environ.get("USERS", "{}")):
            print(with_retries(make_user, name, until), flush=True)
        if experiment := os.environ.get("EXPERIMENT"):
            print(with_retries(make_experiment, experiment, until), flush=True)
    except UserError as error:
        sys.exit(str(error))


main()
