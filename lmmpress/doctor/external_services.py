"""Checks the services outside Kubernetes, the bucket and MLflow, by using them as a task does: from here or from a pod.

The Job of in_cluster.py runs this module with `python3 -m`, so it imports only what our image contains; the Kubernetes
client is not in it.
"""

import json
import os
import re
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import certifi
import urllib3

from lmmpress.data import METADATA, files_with_rows
from lmmpress.doctor.finding import Finding, failed, ok, unknown, warning
from lmmpress.doctor.names import check_names
from lmmpress.errors import UserError
from lmmpress.host.extras import is_installed
from lmmpress.printing.credentials import address_without_credentials

if TYPE_CHECKING:
    from lmmpress.store.bucket import BucketObjects

MARK = "lmmpress-doctor "
ASKED = "LMMPRESS_DOCTOR"
OLDEST = (3, 0)
"""The first version of MLflow with logged models, which the lineage needs."""

_PATIENCE = 4.0  # seconds
_LANDMARKS = {"model": "config.json", "data": METADATA}
_CREDENTIALS = "there are no credentials"


@dataclass(frozen=True)
class Addresses:
    """The addresses in a plan."""

    store: str | None = None
    model: str | None = None
    data: str | None = None


def check_outside(addresses: Addresses, here: bool) -> list[Finding]:
    """Check the buckets of the plan and the MLflow server of the environment. `here`: on a user's machine, which may
    lack credentials and may not resolve the cluster's own host names."""
    return check_buckets(addresses, here) + check_mlflow(here)


def check_buckets(addresses: Addresses, here: bool) -> list[Finding]:
    found = []
    store = addresses.store
    if store and store.startswith("s3://"):
        found.append(_guarded(f"store {store}", here, partial(_try_store, store)))
        if found[-1].status in ("ok", "warning"):
            found.append(_guarded(f"keys of {store}", here, lambda _: _try_keys(addresses, here)))
    for kind, address in (("model", addresses.model), ("data", addresses.data)):
        if address and address.startswith("s3://") and not re.search(r"/checkpoints/[0-9a-f]{64}/?$", address):
            found.append(_guarded(f"{kind} {address}", here, partial(_try_folder, address, kind)))
    return found


def _try_store(address: str, name: str) -> Finding:
    """Test writing, reading, conditional writing and removing with one small object that nothing else uses.

    The object is written only if the keys allow removing it.
    """
    from lmmpress.doctor.keys import check_enough, denied, mend_rights
    from lmmpress.store.bucket import BucketObjects
    from lmmpress.store.objects import ChangedError
    from lmmpress.store.rights import place

    objects = BucketObjects(address, patience=_PATIENCE)
    if lacks := check_enough(name, address, place(address), _PATIENCE):
        return lacks
    key, begun = f"doctor/{uuid.uuid4().hex}.json", time.monotonic()
    needed = "a server with conditional writes (If-None-Match and If-Match on PutObject): see docs/store.md"
    objects.write(key, b'{"written": 1}', None)
    try:
        try:
            stored = objects.read(key)
        except UserError as error:
            if not denied(error):
                raise
            return failed(name, "the keys lack s3:GetObject", mend_rights(address))
        if stored is None or stored.data != b'{"written": 1}':
            return failed(
                name, "reading returns other data than was written", "check the server and any cache in front"
            )
        try:
            objects.write(key, b'{"written": 2}', None)
        except ChangedError:
            pass
        else:
            return failed(
                name, "the server overwrites what If-None-Match forbids: two runs could spoil each other", needed
            )
        objects.write(key, b'{"written": 3}', stored.tag)
        try:
            objects.write(key, b'{"written": 4}', stored.tag)
        except ChangedError:
            pass
        else:
            return failed(name, "the server overwrites what If-Match forbids: two runs could spoil each other", needed)
        if key not in {entry.name for entry in objects.entries("doctor/")}:
            return failed(name, "a written object is not listed", "allow s3:ListBucket, or check the server")
        ahead = objects.now() - time.time()
        if abs(ahead) > 300:
            return warning(name, f"the server's clock is {ahead:.0f} s off ours", "set the clocks (chrony, NTP)")
    finally:
        objects.delete(key)
    took = 1000 * (time.monotonic() - begun)
    return ok(name, f"written, read, listed, written on condition and removed in {took:.0f} ms")


def _try_keys(addresses: Addresses, here: bool) -> Finding:
    """Check what else the keys allow, beyond the store, the model and the data of the plan."""
    from lmmpress.doctor.keys import check_excess
    from lmmpress.store.rights import place

    named = (addresses.store, addresses.model, addresses.data)
    known = [place(one) for one in named if one and one.startswith("s3://")]
    return check_excess(str(addresses.store), known[0], known, _PATIENCE, here)


def _try_folder(address: str, kind: str, name: str) -> Finding:
    from lmmpress.doctor.keys import check_readable, denied
    from lmmpress.store.bucket import BucketObjects

    objects = BucketObjects(address, patience=_PATIENCE)
    landmark = _LANDMARKS[kind]
    if kind == "data":
        try:
            landmark = _file_with_rows(objects) or landmark
        except UserError as error:
            if not denied(error):
                raise
    if lacks := check_readable(name, objects, landmark):
        return lacks
    if objects.read(landmark) is None:
        mend = f"lmmpress store ls {address.rpartition('/')[0]}, or put it there: {address}/{landmark}"
        return failed(name, f"there is no {landmark}", mend)
    return ok(name, f"{landmark} exists and can be read")


def _file_with_rows(objects: "BucketObjects") -> str | None:
    """The first file with rows of the data set in a bucket; all objects are listed only if the first list has none."""
    for prefix in ("metadata.", ""):
        if files := files_with_rows([one.name for one in objects.tagged(prefix)]):
            return files[0]
    return None


def _guarded(name: str, here: bool, attempt: Callable[[str], Finding]) -> Finding:
    """The finding of an attempt; if the attempt raises an error, a finding that explains it."""
    if not is_installed("minio"):
        return unknown(name, "minio is not installed here", "pip install 'lmmpress[s3]'; --inside tries it from a pod")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    try:
        return attempt(name)
    except UserError as error:
        said = str(error)
    except (OSError, ValueError) as error:
        said = f"{type(error).__name__}: {error}"
    if here and _CREDENTIALS in said:
        return unknown(name, "no credentials here to try it with", "--inside tries it from a pod, with the Secret")
    if here and _of_the_cluster(endpoint) and "no answer" in said:
        return unknown(
            name, f"{endpoint} is a host name of the cluster, not known here", "--inside tries it from a pod"
        )
    mend = said.rpartition("; ")[2] if "; " in said else "check AWS_ENDPOINT_URL and the keys of secrets.store"
    return failed(name, said, mend)


def check_mlflow(here: bool) -> list[Finding]:
    """Check MLflow's health and version, and that the registry can be read."""
    uri = (os.environ.get("MLFLOW_TRACKING_URI") or "").rstrip("/")
    if not uri:
        mend = "environment: {MLFLOW_TRACKING_URI: http://...} in the profile"
        return [warning("MLflow", "MLFLOW_TRACKING_URI is not set: no lineage is recorded", mend)]
    name = f"MLflow {address_without_credentials(uri)}"
    if urlsplit(uri).scheme not in ("http", "https"):
        if uri.startswith(("databricks", "arn:")):
            return [unknown(name, "this check does not know its API", "lmmpress run shows whether it accepts runs")]
        return [
            failed(
                name, "this is not the address of a server, and pods share no files", "MLFLOW_TRACKING_URI: http://..."
            )
        ]
    try:
        return [_try_mlflow(name, uri, here)]
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        reason = str(error).rpartition(": ")[2] or type(error).__name__
        if here and _of_the_cluster(uri):
            said = "this is a host name of the cluster, not reachable from here"
            return [unknown(name, said, "--inside tries it from a pod")]
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            mend = "set MLFLOW_TRACKING_SERVER_CERT_PATH to the file of its certificate authority"
            return [failed(name, "the server's certificate is not trusted", mend)]
        return [failed(name, f"no answer: {reason[:200]}", "check MLFLOW_TRACKING_URI; is the server up?")]


def _try_mlflow(name: str, uri: str, here: bool) -> Finding:
    insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")
    pool = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=5, read=15),
        retries=False,
        ca_certs=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or certifi.where(),
        cert_reqs="CERT_NONE" if insecure else "CERT_REQUIRED",
    )
    headers = _authorization()
    health = pool.request("GET", f"{uri}/health", headers=headers)
    about = pool.request("GET", f"{uri}/version", headers=headers)
    search = "/api/2.0/mlflow/registered-models/search?max_results=1"
    registry = pool.request("GET", uri + search, headers=headers)
    body = registry.data[:500].decode("utf-8", "replace")
    host = urlsplit(uri).netloc.rpartition("@")[2]
    for answer in (health, about, registry):
        words = answer.data[:500].decode("utf-8", "replace").lower()
        if answer.status in (400, 403) and "host" in words and ("invalid" in words or "rebinding" in words):
            mend = f"MLFLOW_SERVER_ALLOWED_HOSTS={host},localhost:* in the environment of the server"
            return failed(name, f"refuses requests to the host name {host}: HTTP {answer.status}", mend)
    if registry.status in (401, 403):
        reason = "the user or token is not accepted" if headers else "it requires a user"
        mend = "secrets.mlflow in the profile: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        if here and not headers:
            return unknown(name, f"{reason}, but none is set here", f"--inside tries it from a pod; {mend}")
        return failed(name, f"HTTP {registry.status}: {reason}", mend)
    if health.status != 200:
        mend = "kubectl logs of the server; is MLFLOW_TRACKING_URI its root?"
        return failed(name, f"its health check answers with HTTP {health.status}", mend)
    version = about.data[:50].decode("utf-8", "replace").strip().strip('"')
    number = re.match(r"(\d+)\.(\d+)", version)
    if about.status != 200 or number is None:
        mend = "is MLFLOW_TRACKING_URI the root of an MLflow server, and not one of its pages?"
        return failed(name, "answers, but reports no version of MLflow", mend)
    if (int(number[1]), int(number[2])) < OLDEST:
        return failed(
            name, f"MLflow {version}: logged models came with 3.0", "upgrade the server to MLflow 3.10 or newer"
        )
    if registry.status != 200:
        mend = "mlflow server --backend-store-uri postgresql://... : a registry needs a database"
        return failed(name, f"MLflow {version}, but its registry answers with HTTP {registry.status}", mend)
    try:
        listed = isinstance(json.loads(registry.data), dict)
    except (ValueError, RecursionError):
        listed = False
    if not listed:
        said = f"MLflow {version}, but its registry does not answer with JSON: {body[:60]}"
        return failed(name, said, "is there a login page in front of it? Give the server's own address")
    return ok(name, f"MLflow {version}, its registry answers")


def _authorization() -> dict[str, str]:
    """The authorization header that MLflow's own client would send."""
    user, password, token = (
        os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("USERNAME", "PASSWORD", "TOKEN")
    )
    if user and password:
        return dict(urllib3.make_headers(basic_auth=f"{user}:{password}"))
    return {"Authorization": f"Bearer {token}"} if token else {}


def _of_the_cluster(address: str) -> bool:
    """Whether only the cluster's own DNS can resolve the host of an address."""
    host = urlsplit(address).hostname or ""
    if host.endswith((".svc", ".cluster.local")):
        return True
    if host.count(".") > 1:
        return False
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return True
    return False


@contextmanager
def as_pods_see(environment: dict[str, str]) -> Iterator[None]:
    """In this context, the profile's variables are set where this process does not set them itself."""
    added = {key: value for key, value in environment.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)


def main() -> None:
    """Run the checks in the pod and print each finding as a line of JSON."""
    addresses = Addresses(**json.loads(os.environ.get(ASKED, "{}")))
    try:
        found = [check_names()]
        if found[0].status == "failed":
            found.append(unknown("bucket and MLflow", "not tried: names get no answer"))
        else:
            found += check_outside(addresses, here=False)
    except Exception as error:
        found = [unknown("inside", f"{type(error).__name__}: {error}")]
    for one in found:
        print(MARK + json.dumps(asdict(one)), flush=True)
    sys.exit(0)


if __name__ == "__main__":
    main()
