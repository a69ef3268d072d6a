"""What the store relies on in the client of the package `minio`: one test for each call of `lmmpress.store.s3_calls`.

The suite runs them with the release that is installed. The long tests at the end run this file again, with the oldest
and the newest release that pyproject.toml allows, against the same server.
"""

import hashlib
import os
import re
import subprocess
import sys
import time
import tomllib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import minio
import pytest
from minio.error import MinioAdminException
from packaging.requirements import Requirement
from support.paths import ROOT
from support.s3 import Proxy, answer

from lmmpress.store.connection import connect
from lmmpress.store.s3_calls import Listed, RequestError, S3Bucket, SentPart, explain, passing

BUCKET, RELEASE = "CONTRACT_BUCKET", "CONTRACT_RELEASE"
"""Set where this file is run with another release: a bucket on a server that is there already, and that release."""
JSON, BYTES = "application/json", "application/octet-stream"
MIB = 1 << 20
NOBODY = '"00000000000000000000000000000000"'


def bucket_of(address: str) -> str:
    return address.removeprefix("s3://").partition("/")[0]


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> S3Bucket:
    if RELEASE in os.environ:
        assert minio.__version__ == os.environ[RELEASE]
    name = os.environ.get(BUCKET) or bucket_of(request.getfixturevalue("new_bucket")())
    return S3Bucket(connect(), name)


@pytest.fixture
def key() -> str:
    """A name that no other test uses, with what has to be escaped."""
    return f"store {uuid.uuid4().hex}/ü+&=?#"


@pytest.fixture
def proxy(bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy between the server and later connections."""
    made = Proxy(os.environ["AWS_ENDPOINT_URL"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.endpoint)
    yield made
    made.close()


def whole(bucket: S3Bucket, key: str) -> bytes:
    download = bucket.get(key)
    try:
        return download.read()
    finally:
        download.release()


def code_of(request: Callable[[], object]) -> str:
    with pytest.raises(RequestError) as caught:
        request()
    return caught.value.code


# Small objects and conditions


@pytest.mark.parametrize("data", [b"", b"{}", bytes(6 * MIB)])
def test_an_object_is_read_as_it_was_written(bucket: S3Bucket, key: str, data: bytes) -> None:
    bucket.put(key, data, BYTES)
    assert bucket.uploads(key) == [], "however large, it goes up as one part"
    download = bucket.get(key)
    assert (download.size, download.read()) == (len(data), data)
    assert download.tag == hashlib.md5(data).hexdigest()
    assert download.date is not None
    assert abs(download.modified - time.time()) < 60
    download.release()
    assert bucket.size_of(key) == len(data)


def test_a_write_where_nothing_may_be_succeeds_once(bucket: S3Bucket, key: str) -> None:
    bucket.put_if(key, b"first", JSON, None)
    assert code_of(lambda: bucket.put_if(key, b"second", JSON, None)) == "PreconditionFailed"
    assert whole(bucket, key) == b"first"


def test_a_write_succeeds_only_on_the_tag_that_it_names(bucket: S3Bucket, key: str) -> None:
    bucket.put_if(key, b"first", JSON, None)
    tag = bucket.get(key).tag
    assert code_of(lambda: bucket.put_if(key, b"never", JSON, NOBODY)) == "PreconditionFailed"
    bucket.put_if(key, b"second", JSON, f'"{tag}"')
    assert code_of(lambda: bucket.put_if(key, b"never", JSON, f'"{tag}"')) == "PreconditionFailed"
    assert whole(bucket, key) == b"second"


def test_the_type_of_the_content_is_sent(bucket: S3Bucket, key: str) -> None:
    for put in (lambda: bucket.put(key, b"{}", JSON), lambda: bucket.put_if(f"{key}2", b"{}", JSON, None)):
        put()
    for name in (key, f"{key}2"):
        assert bucket._client.stat_object(bucket_name=bucket._name, object_name=name).content_type == JSON


def test_what_is_removed_is_gone_and_removing_it_again_is_no_fault(bucket: S3Bucket, key: str) -> None:
    bucket.put(key, b"x", BYTES)
    bucket.remove(key)
    assert code_of(lambda: bucket.get(key)) == "NoSuchKey"
    assert code_of(lambda: bucket.size_of(key)) == "NoSuchKey"
    bucket.remove(key)


def test_a_bucket_that_is_not_there_has_a_code_of_its_own(bucket: S3Bucket, key: str) -> None:
    nowhere = S3Bucket(connect(), f"none-{uuid.uuid4().hex[:12]}")
    for request in (lambda: nowhere.get(key), lambda: nowhere.put(key, b"", BYTES), lambda: [*nowhere.listed("")]):
        assert code_of(request) == "NoSuchBucket"


def test_errors_say_what_may_pass_and_what_the_time_is(bucket: S3Bucket, key: str) -> None:
    with pytest.raises(RequestError) as caught:
        bucket.get(key)
    error = caught.value
    assert (error.may_pass, error.by_setup, error.denied) == (False, False, False)
    assert error.date is not None


def test_a_server_that_does_not_answer_may_do_so_later(bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # the port of the service that discards everything
    with pytest.raises(RequestError) as caught:
        S3Bucket(connect(silence=1), "models").get("x")
    assert (caught.value.code, caught.value.may_pass) == ("", True)


# Ranges


def test_a_range_is_read_and_tells_of_the_whole(bucket: S3Bucket, key: str) -> None:
    data = os.urandom(3000)
    bucket.put(key, data, BYTES)
    tag = hashlib.md5(data).hexdigest()
    for start, length in ((0, 1000), (1000, 1000), (2500, 500), (2500, 0)):
        download = bucket.get(key, start, length, tag)
        assert download.size == len(data)
        assert download.read(10) == data[start : start + 10]
        assert download.read() == data[start : start + (length or 3000)][10:]
        assert download.read(1) == b""
        download.release()


def test_a_range_of_what_was_replaced_or_is_too_short_is_refused(bucket: S3Bucket, key: str) -> None:
    bucket.put(key, b"short", BYTES)
    assert code_of(lambda: bucket.get(key, 0, 3, NOBODY.strip('"'))) == "PreconditionFailed"
    assert code_of(lambda: bucket.get(key, 1000, 10)) == "InvalidRange"


# Lists


def test_a_list_has_every_object_with_size_time_and_tag_in_order(bucket: S3Bucket, key: str) -> None:
    names = [f"{key}/{number:04}" for number in range(12)]
    for number, name in enumerate(reversed(names)):
        bucket.put(name, b"x" * number, BYTES)
    listed = list(bucket.listed(f"{key}/"))
    assert [one.name for one in listed] == names
    assert [one.size for one in listed] == list(range(11, -1, -1))
    for one in listed:
        assert one.tag.strip('"') == hashlib.md5(b"x" * one.size).hexdigest()
        assert abs(one.modified - time.time()) < 60
        assert not one.is_folder
    assert all(one.tag == '"' + one.tag.strip('"') + '"' or '"' not in one.tag for one in listed)


def test_a_list_goes_on_after_a_thousand_names(bucket: S3Bucket, key: str) -> None:
    names = [f"{key}/{number:04}" for number in range(1010)]
    for name in names:
        bucket.put(name, b"", BYTES)
    assert [one.name for one in bucket.listed(f"{key}/")] == names


def test_a_list_that_is_not_recursive_names_folders(bucket: S3Bucket, key: str) -> None:
    for name in ("a/1", "a/2", "b"):
        bucket.put(f"{key}/{name}", b"x", BYTES)
    listed = list(bucket.listed(f"{key}/", recursive=False))
    assert sorted((one.name, one.is_folder) for one in listed) == [(f"{key}/a/", True), (f"{key}/b", False)]
    assert Listed(f"{key}/a/", 0, 0.0, "", True) in listed


def test_the_buckets_are_listed_and_a_bucket_without_policy_says_so(bucket: S3Bucket) -> None:
    assert bucket._name in bucket.names_of_buckets()
    assert code_of(bucket.policy) == "NoSuchBucketPolicy"


# Uploads in parts


def test_parts_become_an_object_in_the_order_of_their_numbers(bucket: S3Bucket, key: str) -> None:
    first, last = os.urandom(5 * MIB), os.urandom(1000)
    upload = bucket.begin_upload(key, BYTES)
    (begun,) = bucket.uploads(key)
    assert (begun.name, begun.identifier) == (key, upload)
    assert abs(begun.begun - time.time()) < 60
    tags = {2: bucket.put_part(key, upload, 2, last), 1: bucket.put_part(key, upload, 1, first)}
    assert tags == {1: hashlib.md5(first).hexdigest(), 2: hashlib.md5(last).hexdigest()}
    assert bucket.parts(key, upload) == [SentPart(1, len(first), tags[1]), SentPart(2, len(last), tags[2])]
    assert code_of(lambda: bucket.get(key)) == "NoSuchKey", "it is there as a whole or not at all"
    assert bucket.complete_upload(key, upload, tags)
    assert whole(bucket, key) == first + last
    assert bucket.uploads(key) == []


def test_an_upload_that_is_aborted_is_gone(bucket: S3Bucket, key: str) -> None:
    upload = bucket.begin_upload(key, BYTES)
    bucket.put_part(key, upload, 1, b"x")
    bucket.abort_upload(key, upload)
    assert bucket.uploads(key) == []
    for request in (
        lambda: bucket.put_part(key, upload, 1, b"x"),
        lambda: bucket.parts(key, upload),
        lambda: bucket.complete_upload(key, upload, {1: "0" * 32}),
        lambda: bucket.abort_upload(key, upload),
    ):
        assert code_of(request) == "NoSuchUpload"


def test_parts_that_are_not_what_their_tags_say_make_no_object(bucket: S3Bucket, key: str) -> None:
    upload = bucket.begin_upload(key, BYTES)
    bucket.put_part(key, upload, 1, b"x")
    assert code_of(lambda: bucket.complete_upload(key, upload, {1: "0" * 32})) == "InvalidPart"
    bucket.abort_upload(key, upload)


def test_an_answer_that_begins_with_200_and_ends_with_an_error_makes_no_object(
    bucket: S3Bucket, key: str, proxy: Proxy
) -> None:
    upload = bucket.begin_upload(key, BYTES)
    tags = {1: bucket.put_part(key, upload, 1, b"x")}
    proxy.answers = [answer("200 OK", "InternalError")]
    assert not S3Bucket(connect(), bucket._name).complete_upload(key, upload, tags)
    assert bucket.complete_upload(key, upload, tags)


# Errors that are not in the words of S3


@pytest.mark.parametrize(("status", "may_pass"), [(502, True), (503, True), (400, False)])
def test_an_answer_that_is_not_of_s3_has_its_status(
    bucket: S3Bucket, key: str, proxy: Proxy, status: int, may_pass: bool
) -> None:
    page = f"HTTP/1.1 {status} No\r\nContent-Type: text/html\r\nContent-Length: 5\r\nConnection: close\r\n\r\noops!"
    proxy.answers = [page.encode()]
    with pytest.raises(RequestError, match=f"the server answers {status}") as caught:
        S3Bucket(connect(), bucket._name).get(key)
    assert (caught.value.code, caught.value.may_pass) == ("", may_pass)


def test_an_error_of_the_administration_has_its_status() -> None:
    assert passing(MinioAdminException("503", ""))
    assert not passing(MinioAdminException("403", ""))
    assert str(explain(MinioAdminException("403", "secret"), "users")) == "users: the server answers 403"


# Other releases


def allowed() -> Requirement:
    """The requirement of the package in pyproject.toml."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    (minio,) = (one for one in map(Requirement, extras["s3"]) if one.name == "minio")
    return minio


def run_with(requirement: str, bucket: str, folder: Path) -> tuple[str, "subprocess.CompletedProcess[str]"]:
    """Run this file's tests with another release, installed into a new folder; return its version."""
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run(
        [*install, "--target", str(folder), requirement], capture_output=True, text=True, check=False, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    (version,) = (path.stem.removeprefix("minio-") for path in folder.glob("minio-*.dist-info"))
    # without conftest.py, which imports torch and more: the server and the bucket are there already
    command = [sys.executable, "-m", "pytest", "--noconftest", "-n", "0", "-p", "no:cacheprovider", "-m", "not long"]
    path = os.pathsep.join([str(folder), str(ROOT), str(ROOT / "tests")])
    return version, subprocess.run(
        [*command, __file__],
        env=os.environ | {"PYTHONPATH": path, BUCKET: bucket, RELEASE: version},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )


@pytest.mark.long
@pytest.mark.parametrize("release", ["oldest", "7.2.17", "newest"])
def test_the_contract_holds_over_the_range(new_bucket: Callable[[], str], tmp_path: Path, release: str) -> None:
    """7.2.17 reads one answer wrongly but is allowed."""
    asked = allowed()
    lowest = next(one.version for one in asked.specifier if one.operator == ">=")
    wanted = {"oldest": f"minio=={lowest}", "newest": str(asked)}.get(release, f"minio=={release}")
    version, done = run_with(wanted, bucket_of(new_bucket()), tmp_path / "minio")
    assert asked.specifier.contains(version)
    assert done.returncode == 0, f"minio {version}: {done.stdout[-5000:]}{done.stderr[-1000:]}"


@pytest.mark.long
def test_a_release_that_breaks_the_contract_fails_it(new_bucket: Callable[[], str], tmp_path: Path) -> None:
    """7.2.19 renamed arguments, and 7.2.20 took that back: it is left out of the range."""
    version, done = run_with("minio==7.2.19", bucket_of(new_bucket()), tmp_path / "minio")
    assert not allowed().specifier.contains(version)
    assert done.returncode == 1, done.stdout[-5000:]
    assert re.search(r"TypeError: .*unexpected keyword argument", done.stdout)
