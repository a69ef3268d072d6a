"""The doctor's checks of buckets, from here and from a pod."""

import os
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from minio.credentials import EnvAWSProvider
from support.findings import only
from support.s3 import Proxy, answer

from lmmpress.doctor.external_services import Addresses, check_buckets, check_mlflow
from lmmpress.store.bucket import BucketObjects

pytestmark = pytest.mark.usefixtures("bare_environment")


def test_the_check_of_a_store_writes_reads_and_leaves_it_as_it_was(new_bucket: Callable[[], str]) -> None:
    address = new_bucket()
    one, keys = check_buckets(Addresses(store=address), here=True)
    assert (one.status, one.check) == ("ok", f"store {address}")
    assert "written on condition" in one.said
    assert keys.check == f"keys of {address}"
    assert list(BucketObjects(address.rpartition("/")[0]).entries("")) == []


def test_keys_that_may_do_everything_cause_a_warning(new_bucket: Callable[[], str]) -> None:
    """The S3 server of the tests allows everything."""
    address, other = new_bucket(), new_bucket().removeprefix("s3://").partition("/")[0]
    bucket = address.removeprefix("s3://").partition("/")[0]
    BucketObjects(f"s3://{bucket}").write("elsewhere/secret", b"{}", None)
    for here, whose in ((True, "the keys here"), (False, "they")):
        _, keys = check_buckets(Addresses(store=address), here)
        assert keys.status == "warning"
        assert keys.said.startswith(f"{whose} may also see the names of other buckets (")
        assert f"list all of bucket {bucket}, read outside of its prefix, write outside of its prefix" in keys.said
        assert f"lmmpress store policy {address}" in keys.mend
        assert ("--inside shows" in keys.mend) == here
    # a bucket that the plan names is no other, and where a whole bucket is the store nothing in it is outside
    whole = check_buckets(Addresses(store=f"s3://{bucket}", model=f"s3://{other}/model"), here=False)[1]
    assert other not in whole.said
    assert "outside" not in whole.said
    assert [entry.name for entry in BucketObjects(f"s3://{bucket}").entries("")] == ["elsewhere/secret"]
    # what lies on the way to a prefix is not outside of it
    deep = check_buckets(Addresses(store=f"s3://{bucket}/elsewhere/secret/store"), here=False)[1]
    assert "list all of bucket" in deep.said
    assert "read outside" not in deep.said


RIGHTS = {
    "s3:ListBucket": ("list-type=2", "GET"),
    "s3:PutObject": ("doctor/", "PUT"),
    "s3:DeleteObject": (".json HTTP", "DELETE"),
    "s3:AbortMultipartUpload": ("uploadId=", "DELETE"),
    "s3:ListMultipartUploadParts": ("uploadId=", "GET"),
    "s3:ListBucketMultipartUploads": ("uploads=", "GET"),
    "s3:GetObject": (".json HTTP", "GET"),
}


@pytest.mark.parametrize("right", RIGHTS)
def test_a_right_that_is_missing_is_named_and_nothing_is_left_behind(
    right: str, new_bucket: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = new_bucket()
    direct = os.environ["AWS_ENDPOINT_URL"]
    proxy = Proxy(direct)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    proxy.instead[RIGHTS[right]] = [answer("403 Forbidden", "AccessDenied") for _ in range(20)]
    one = only(check_buckets(Addresses(store=address), here=False))
    proxy.close()
    assert (one.status, one.said) == ("failed", f"the keys lack {right}")
    assert one.mend == f"lmmpress store policy {address} prints what they need: give it to their user"
    monkeypatch.setenv("AWS_ENDPOINT_URL", direct)
    assert [*BucketObjects(address).entries(""), *BucketObjects(address).leftovers()] == []


def test_model_and_data_are_read_where_a_plan_says(new_bucket: Callable[[], str]) -> None:
    address = new_bucket()
    asked = Addresses(model=f"{address}/antgmm", data=f"{address}/maad")
    found = check_buckets(asked, here=True)
    assert [(one.status, one.said) for one in found] == [
        ("failed", "there is no config.json"),
        ("failed", "there is no metadata.jsonl"),
    ]
    assert f"put it there: {address}/antgmm/config.json" in found[0].mend
    for name in ("antgmm/config.json", "maad/metadata.jsonl"):
        BucketObjects(address).write(name, b"{}", None)
    assert [one.status for one in check_buckets(asked, here=True)] == ["ok", "ok"]


@pytest.mark.parametrize(("right", "word"), [("s3:ListBucket", "list-type=2"), ("s3:GetObject", "/config.json HTTP")])
def test_a_right_that_is_missing_to_read_is_named(
    right: str, word: str, new_bucket: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = new_bucket()
    BucketObjects(address).write("config.json", b"{}", None)
    proxy = Proxy(os.environ["AWS_ENDPOINT_URL"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    proxy.instead[word, "GET"] = [answer("403 Forbidden", "AccessDenied") for _ in range(20)]
    one = only(check_buckets(Addresses(model=address), here=False))
    proxy.close()
    assert (one.status, one.said) == ("failed", f"the keys lack {right}")
    assert f"lmmpress store policy STORE --read {address}" in one.mend


S3_FAULTS = [
    (("403 Forbidden", "AccessDenied"), "lack s3:ListBucket, s3:PutObject, s3:DeleteObject", "lmmpress store policy"),
    (("403 Forbidden", "SignatureDoesNotMatch"), "the credentials are not accepted", "keys of secrets.store"),
    (("404 Not Found", "NoSuchBucket"), "there is no such bucket", "make it, or name another"),
    (("507 Insufficient Storage", "XMinioStorageFull"), "no space left", "secrets.store"),
    (("503 Service Unavailable", "SlowDown"), "the server answers SlowDown", "tried for"),
    (("501 Not Implemented", "NotImplemented"), "the server answers NotImplemented", "secrets.store"),
]


@pytest.mark.parametrize(("told", "said", "mend"), S3_FAULTS, ids=[told[1] for told, _, _ in S3_FAULTS])
def test_an_error_of_a_bucket_is_reported_with_the_remedy(
    told: tuple[str, str], said: str, mend: str, new_bucket: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = new_bucket()
    proxy = Proxy(os.environ["AWS_ENDPOINT_URL"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    proxy.answers = [answer(*told) for _ in range(200)]
    one = only(check_buckets(Addresses(store=address), here=True))
    proxy.close()
    assert one.status == "failed"
    assert said in one.said
    assert mend in one.mend


def test_a_server_that_ignores_conditional_writes_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    held: dict[str, bytes] = {}
    heeds: set[str] = set()

    class Careless(BaseHTTPRequestHandler):
        wbufsize = -1

        def do_PUT(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            if "If-None-Match" in heeds and self.headers.get("If-None-Match") and self.path in held:
                return self._send(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            held[self.path] = data
            self._send(200, b"")

        def do_GET(self) -> None:
            missing = b"<Error><Code>NoSuchKey</Code></Error>"
            self._send(200 if self.path in held else 404, held.get(self.path, missing))

        def do_DELETE(self) -> None:
            held.pop(self.path, None)
            self._send(204, b"")

        def _send(self, status: int, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("ETag", f'"{hash(data)}"')
            self.send_header("Last-Modified", self.date_time_string())
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Careless)
    threading.Thread(target=lambda: server.serve_forever(0.05), daemon=True).start()
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}"),
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
    ):
        monkeypatch.setenv(name, value)
    for overlooked in ("If-None-Match", "If-Match"):
        one = only(check_buckets(Addresses(store="s3://bucket/store"), here=True))
        assert one.status == "failed"
        assert f"overwrites what {overlooked} forbids" in one.said
        assert "a server with conditional writes" in one.mend
        assert not held  # removed again
        heeds.add(overlooked)
    server.shutdown()
    server.server_close()


def test_a_server_out_of_reach_is_unknown_from_here_and_a_failure_from_a_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Addresses(store="s3://models/store")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://s3.storage.svc.cluster.local:9000")
    # what asks the network for a role is not asked
    monkeypatch.setattr("lmmpress.store.connection.IamAwsProvider", lambda http_client: EnvAWSProvider())
    one = only(check_buckets(asked, here=True))
    assert (one.status, one.said) == ("unknown", "no credentials here to try it with")
    assert "there are no credentials" in only(check_buckets(asked, here=False)).said
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    one = only(check_buckets(asked, here=True))
    assert (one.status, one.mend) == ("unknown", "--inside tries it from a pod")
    assert only(check_buckets(asked, here=False)).status == "failed"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.lmmpress.svc.cluster.local:5000")
    assert only(check_mlflow(here=True)).status == "unknown"
    one = only(check_mlflow(here=False))
    assert (one.status, one.mend) == ("failed", "check MLFLOW_TRACKING_URI; is the server up?")
