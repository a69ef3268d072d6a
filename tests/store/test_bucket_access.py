"""Buckets that are not there or not allowed: credentials, certificates, clocks and endpoints."""

import http.server
import json
import ssl
import threading
from pathlib import Path

import pytest
import trustme
from support.buckets import MIB, SIZES, forget_cache
from support.files import contents
from support.s3 import Proxy, Server, TlsFront, answer, free_port
from support.store_worker import PART, opened, random_checkpoint

from lmmpress.errors import UserError
from lmmpress.files.digest import sha256_of
from lmmpress.store import open_store
from lmmpress.store.bucket import BucketObjects
from lmmpress.store.objects import Blob, MissingError


def test_a_missing_bucket_is_a_one_line_error(bucket_address: str, tmp_path: Path) -> None:
    store = opened("s3://no-such-bucket-here/x")
    with pytest.raises(UserError, match="there is no such bucket; make it, or name another") as caught:
        store.add_checkpoint(random_checkpoint(tmp_path / "made", 0))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["s3://ab", "s3://Name/p", "s3://"])
def test_addresses_that_are_not_buckets_are_refused(wrong: str, bucket_address: str) -> None:
    with pytest.raises(UserError, match="is written s3://bucket/prefix"):
        open_store(wrong)


def test_a_password_in_an_address_is_refused_and_not_repeated(bucket_address: str) -> None:
    with pytest.raises(UserError, match="credentials are no part of an address") as caught:
        open_store("s3://name:pass/word@bucket/p")
    assert "pass" not in str(caught.value)


def test_an_invalid_credentials_file_is_not_quoted(
    bucket_address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text("this is no ini file: sesame\n", "utf-8")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    with pytest.raises(UserError, match="the AWS credentials file cannot be read") as caught:
        opened(bucket_address).read_record("nothing")
    assert "sesame" not in str(caught.value)


def test_an_upload_that_the_server_did_not_complete_is_an_error(
    proxy: Proxy, bucket_address: str, tmp_path: Path
) -> None:
    """S3 may answer with status 200 and an error in the body."""
    path = random_checkpoint(tmp_path / "made", 0, {"model.safetensors": 12 * MIB}) / "model.safetensors"
    blob = Blob(sha256_of(path), 12 * MIB)
    objects = BucketObjects(bucket_address, part=PART, patience=20)
    proxy.instead["uploadId", "POST"] = [answer("200 OK", "InternalError")] * 2
    objects.send(path, blob, lambda _: None)
    assert proxy.instead["uploadId", "POST"] == []
    assert objects.holds(blob)
    objects.check(blob)


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        ("403 Forbidden", "AccessDenied", "access is denied"),
        ("403 Forbidden", "SignatureDoesNotMatch", "the credentials are not accepted"),
        ("403 Forbidden", "RequestTimeTooSkewed", "this machine's clock differs"),
        ("507 Insufficient Storage", "InsufficientStorage", "no space left"),
    ],
)
def test_a_denied_request_is_a_one_line_error(
    proxy: Proxy, bucket_address: str, status: str, code: str, message: str
) -> None:
    store = opened(bucket_address)
    proxy.answers = [answer(status, code, "the account 1234 of Mr. Smith")] * 2
    with pytest.raises(UserError, match=message) as caught:
        store.read_record("nothing")
    assert "Smith" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_denied_for_a_name_that_no_list_has_means_missing(proxy: Proxy, bucket_address: str, tmp_path: Path) -> None:
    """Ceph before version 21 answers like this to keys that may list only under their prefix."""
    objects = BucketObjects(bucket_address)
    objects.write("records/there.json", b"{}", None)
    denied = answer("403 Forbidden", "AccessDenied")
    missing, blob = "a" * 64, "/blobs/aa/"
    for name in ("/records/not.json HTTP", "/records/there.json HTTP", blob):
        for method in ("GET", "HEAD"):
            proxy.instead[name, method] = [denied] * 4
    assert objects.read("records/not.json") is None
    with pytest.raises(UserError, match="access is denied"):
        objects.read("records/there.json")
    assert not objects.holds(Blob(missing, 3))
    with pytest.raises(MissingError):
        objects.fetch(Blob(missing, 3), tmp_path / "fetched", lambda _: None)


@pytest.mark.enforcing
def test_a_wrong_secret_is_refused(bucket_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a wrong secret")
    with pytest.raises(UserError, match="the credentials are not accepted") as caught:
        opened(bucket_address).read_record("nothing")
    assert "wrong secret" not in str(caught.value)


@pytest.mark.enforcing
def test_a_clock_that_is_wrong_is_refused(bucket_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import minio.time

    true = minio.time.utcnow
    monkeypatch.setattr("minio.time.utcnow", lambda: true().replace(year=2020))
    with pytest.raises(UserError, match="this machine's clock differs"):
        opened(bucket_address).read_record("nothing")


def test_an_address_without_a_server_is_a_one_line_error(monkeypatch: pytest.MonkeyPatch, bucket_address: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(UserError, match=r"no answer from the server.*is AWS_ENDPOINT_URL right"):
        opened(bucket_address, patience=0.5).read_record("nothing")


def test_invalid_endpoints_are_refused(monkeypatch: pytest.MonkeyPatch, bucket_address: str) -> None:
    for wrong in ("host:9000", "http://host:99999", "ftp://host", "https://name:secret@host", "https://host/path"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", wrong)
        with pytest.raises(UserError, match="AWS_ENDPOINT_URL is no endpoint") as caught:
            open_store(bucket_address)
        assert "secret" not in str(caught.value)


def test_missing_credentials_are_a_one_line_error_that_says_what_to_set(
    bucket_address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    # the address of the instance metadata: no server there
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{free_port()}/role")
    with pytest.raises(UserError, match="there are no credentials for the bucket; set AWS_ACCESS_KEY_ID"):
        opened(bucket_address).read_record("nothing")


def test_credentials_come_from_the_instances_profile(
    bucket_address: str, s3_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    class Profile(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = json.dumps(
                {
                    "Code": "Success",
                    "AccessKeyId": s3_server.access_key,
                    "SecretAccessKey": s3_server.secret_key,
                    "Token": "",
                    "Expiration": "2100-01-01T00:00:00Z",
                }
            ).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Profile) as profile:
        threading.Thread(target=profile.serve_forever, daemon=True).start()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{profile.server_port}/role")
        store = opened(bucket_address)
        store.write_record("a", {"x": 1})
        assert store.read_record("a") == {"x": 1}
        profile.shutdown()
    assert asked == ["/role"]


def test_tls_works_with_a_private_certificate_authority(
    bucket_address: str, s3_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    front = TlsFront(s3_server.endpoint, context)
    monkeypatch.setenv("AWS_ENDPOINT_URL", front.endpoint)
    with pytest.raises(UserError, match="certificate is not trusted; name its authority's file in AWS_CA_BUNDLE"):
        opened(bucket_address).read_record("nothing")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "nothing.pem"))
    with pytest.raises(UserError, match="AWS_CA_BUNDLE: there is no file"):
        opened(bucket_address)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "authority.pem"))
    made = random_checkpoint(tmp_path / "made", 0, SIZES)
    digest = opened(bucket_address).add_checkpoint(made)
    forget_cache()
    assert contents(opened(bucket_address).checkpoint(digest)) == contents(made)
    front.close()
