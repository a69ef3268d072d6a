"""A store in a bucket, when the network, the server or the disk fails: real processes, real sockets, real faults."""

import http.server
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shlex import quote

import pytest
import trustme
from filelock import FileLock
from support.files import contents
from support.paths import TESTS
from support.s3 import MiniStack, Proxy, Server, TlsFront, answer, free_port
from support.store_worker import PART, make_checkpoint, opened

from lmmpress.data import open_data
from lmmpress.errors import UserError
from lmmpress.files.digest import sha256_of
from lmmpress.store import open_checkpoint, open_store
from lmmpress.store.bucket import BucketObjects
from lmmpress.store.cache import cache_folder
from lmmpress.store.connection import connect
from lmmpress.store.housekeeping import collect_garbage, verify_store
from lmmpress.store.objects import Blob, ChangedError, MissingError
from lmmpress.store.state import hold, read_state

MIB = 1 << 20
SIZES = {"model-vision.safetensors": 17 * MIB + 3, "model-language.safetensors": 11 * MIB}
TOTAL = sum(SIZES.values())


@pytest.fixture
def address(new_bucket: Callable[[], str]) -> str:
    return new_bucket()


@pytest.fixture
def proxy(address: str, s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Between this test and the server."""
    proxy = Proxy(s3_server.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    yield proxy
    proxy.close()


@pytest.fixture
def own_server(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Server, Proxy, str]]:
    """A server that may be killed, a proxy before it, and a bucket."""
    (tmp_path / "server").mkdir()
    if request.config.getoption("--s3-server") == "radosgw":
        from support.radosgw import RadosGateway

        server: Server = RadosGateway(tmp_path / "server", free_port())
    else:
        server = MiniStack(tmp_path / "server", free_port())
    server.start()
    proxy = Proxy(server.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
    monkeypatch.setenv("LMMPRESS_CACHE", str(tmp_path / "cache"))
    connect().make_bucket("models")
    yield server, proxy, "s3://models/store"
    proxy.close()
    server.stop()


def forget_cache() -> None:
    shutil.rmtree(cache_folder(), ignore_errors=True)


def await_that(happened: Callable[[], bool]) -> None:
    for _ in range(6000):
        if happened():
            return
        time.sleep(0.005)
    raise AssertionError("it never happened")


def blob_requests(proxy: Proxy, method: str) -> list[str]:
    return [line for line in proxy.requests if line.startswith(method) and "/blobs/" in line]


# What the client's names with an underscore are relied on for


def test_files_of_many_parts_come_back_as_they_went_in(address: str, tmp_path: Path) -> None:
    made = make_checkpoint(tmp_path / "made", 0, SIZES)
    digest = opened(address).add_checkpoint(made)
    forget_cache()
    assert contents(opened(address).checkpoint(digest)) == contents(made)


def test_a_file_is_stored_under_its_sha256_and_readable_by_any_client(address: str, tmp_path: Path) -> None:
    made = make_checkpoint(tmp_path / "made", 0, SIZES)
    store = opened(address)
    digest = store.add_checkpoint(made)
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    for name, file in store.manifest(digest).files.items():
        found = connect().get_object(bucket, f"{prefix}/{file.blob.name}")
        assert found.read() == (made / name).read_bytes()


def test_what_is_there_already_is_not_sent_again(proxy: Proxy, address: str, tmp_path: Path) -> None:
    first = make_checkpoint(tmp_path / "first", 0, SIZES)
    opened(address).add_checkpoint(first)
    second = make_checkpoint(tmp_path / "second", 1, SIZES)
    shutil.copy(first / "model-vision.safetensors", second)
    before = proxy.sent
    opened(address).add_checkpoint(second)
    assert SIZES["model-language.safetensors"] < proxy.sent - before < SIZES["model-language.safetensors"] + MIB


# Servers that die and connections that break


def test_a_server_that_dies_in_the_middle_of_an_upload_and_comes_back(
    own_server: tuple[Server, Proxy, str], tmp_path: Path
) -> None:
    server, proxy, address = own_server
    made = make_checkpoint(tmp_path / "made", 0, SIZES)
    digests: list[str] = []
    sender = threading.Thread(target=lambda: digests.append(opened(address).add_checkpoint(made)))
    sender.start()
    await_that(lambda: proxy.sent > TOTAL // 3)
    server.kill()
    time.sleep(0.5)
    assert sender.is_alive()
    server.start()
    sender.join()
    forget_cache()
    assert contents(opened(address).checkpoint(digests[0])) == contents(made)


def test_a_server_that_dies_in_the_middle_of_a_download_and_comes_back(
    own_server: tuple[Server, Proxy, str], tmp_path: Path
) -> None:
    server, proxy, address = own_server
    made = make_checkpoint(tmp_path / "made", 0, SIZES)
    digest = opened(address).add_checkpoint(made)
    forget_cache()
    proxy.reset_after = 2 * MIB  # slow enough to be caught in the middle
    found: list[Path] = []
    fetcher = threading.Thread(target=lambda: found.append(opened(address).checkpoint(digest)))
    fetcher.start()
    await_that(lambda: proxy.resets >= 3)
    server.kill()
    time.sleep(0.5)
    assert fetcher.is_alive()
    server.start()
    fetcher.join()
    assert contents(found[0]) == contents(made)


SENDER = (
    "import sys\n"
    "from pathlib import Path\n"
    "from support.store_worker import opened\n"
    "opened(sys.argv[1]).add_checkpoint(Path(sys.argv[2]))\n"
)


def test_a_writer_that_was_killed_leaves_parts_that_the_next_one_does_not_send_again(
    proxy: Proxy, address: str, tmp_path: Path
) -> None:
    made = make_checkpoint(tmp_path / "made", 0, {"model.safetensors": 40 * MIB})
    proxy.requests.clear()
    proxy.silent_after = 12  # of 15, the last ones make an object of the parts and tell of it
    writer = subprocess.Popen([sys.executable, "-c", SENDER, address, made], cwd=TESTS)
    await_that(lambda: proxy.sent > 30 * MIB)
    writer.kill()
    writer.wait()
    proxy.silent_after = None
    assert list(opened(address).objects.entries("checkpoints/")) == [], "a reader sees nothing of it"
    before = proxy.sent
    digest = opened(address).add_checkpoint(made)
    assert proxy.sent - before <= 25 * MIB
    forget_cache()
    assert contents(opened(address).checkpoint(digest)) == contents(made)


FETCHER = "import sys\nfrom support.store_worker import opened\nopened(sys.argv[1]).checkpoint(sys.argv[2])\n"


def test_a_reader_that_was_killed_leaves_ranges_that_the_next_one_does_not_fetch_again(
    proxy: Proxy, address: str, tmp_path: Path
) -> None:
    made = make_checkpoint(tmp_path / "made", 0, {"model.safetensors": 60 * MIB})
    digest = opened(address).add_checkpoint(made)
    forget_cache()
    proxy.requests.clear()
    proxy.silent_after = 10  # of 12 ranges and a few more, so that it is killed in the middle however fast it is
    reader = subprocess.Popen([sys.executable, "-c", FETCHER, address, digest], cwd=TESTS)
    journals = Path(cache_folder()) / "partial"
    await_that(lambda: any(len(path.read_text("utf-8").split()) > 4 for path in journals.glob("*.parts")))
    reader.kill()
    reader.wait()
    proxy.silent_after = None
    proxy.requests.clear()
    assert contents(opened(address).checkpoint(digest)) == contents(made)
    assert len(blob_requests(proxy, "GET")) <= 12 - 4 + 1  # of 12 ranges, and the config


def test_ranges_that_a_crash_left_wrong_are_noticed(address: str, tmp_path: Path) -> None:
    """A journal that tells of ranges which never reached the disk."""
    made = make_checkpoint(tmp_path / "made", 0, {"model.safetensors": 12 * MIB})
    store = opened(address)
    digest = store.add_checkpoint(made)
    blob = store.manifest(digest).files["model.safetensors"].blob
    forget_cache()
    store = opened(address)
    partial = cache_folder() / "partial" / blob.sha256
    partial.write_bytes(bytes(12 * MIB))
    partial.with_name(f"{partial.name}.parts").write_text(f"part={PART}\n0\n1\n2\n", "utf-8")
    assert contents(store.checkpoint(digest)) == contents(made)


def test_connections_that_are_reset_every_few_bytes(proxy: Proxy, address: str, tmp_path: Path) -> None:
    made = make_checkpoint(tmp_path / "made", 0, SIZES)
    proxy.reset_after = 7 * MIB
    digest = opened(address).add_checkpoint(made)
    forget_cache()
    proxy.reset_after = MIB
    assert contents(opened(address).checkpoint(digest)) == contents(made)
    assert proxy.resets > TOTAL // MIB


@pytest.mark.parametrize("fault", [("500 Internal Server Error", "InternalError"), ("503 Slow Down", "SlowDown")])
def test_a_server_that_is_busy_is_asked_again(
    proxy: Proxy, address: str, tmp_path: Path, fault: tuple[str, str]
) -> None:
    made = make_checkpoint(tmp_path / "made", 0, SIZES)
    store = opened(address)
    proxy.answers = [answer(*fault)] * 5
    digest = store.add_checkpoint(made)
    assert proxy.answers == []
    proxy.answers = [answer(*fault)] * 5
    forget_cache()
    assert contents(opened(address).checkpoint(digest)) == contents(made)
    assert proxy.answers == []


def test_a_gateway_that_answers_in_html_is_asked_again(proxy: Proxy, address: str) -> None:
    page = b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 5\r\nConnection: close\r\n\r\noops!"
    proxy.answers = [page] * 3
    assert opened(address).read_record("nothing") is None


def test_a_server_that_falls_silent_is_asked_again(proxy: Proxy, address: str, tmp_path: Path) -> None:
    made = make_checkpoint(tmp_path / "made", 0)
    store = opened(address, silence=0.5)
    proxy.silent = True
    threading.Timer(2, lambda: setattr(proxy, "silent", False)).start()
    digest = store.add_checkpoint(made)
    assert contents(store.checkpoint(digest)) == contents(made)


def test_a_server_that_stays_away_is_given_up_in_one_line(
    own_server: tuple[Server, Proxy, str], tmp_path: Path
) -> None:
    server, _, address = own_server
    store = opened(address, patience=1)
    assert store.read_record("nothing") is None
    server.kill()
    with pytest.raises(UserError, match=r"s3://models/store: no answer from the server.*tried for 1 s"):
        store.read_record("nothing")


def test_an_answer_lost_on_its_way_does_not_make_a_write_fail_or_happen_twice(proxy: Proxy, address: str) -> None:
    objects = BucketObjects(address)
    assert objects.read("warm") is None
    proxy.swallow = 1
    objects.write("runs/a.json", b"one", None)
    found = objects.read("runs/a.json")
    assert found is not None
    proxy.swallow = 1
    objects.write("runs/a.json", b"two", found.tag)
    with pytest.raises(ChangedError):
        objects.write("runs/a.json", b"three", found.tag)
    with hold(objects, "runs/b.json") as state:
        for number in range(3):
            proxy.swallow = 1
            state.decide(number, {"step": number})
    assert [entry["step"] for entry in read_state(objects, "runs/b.json").stored.history] == [0, 1, 2]


# Damage


def damage(address: str, blob: Blob, how: Callable[[bytearray], bytearray]) -> None:
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    name = f"{prefix}/{blob.name}"
    changed = how(bytearray(connect().get_object(bucket, name).read()))
    connect()._put_object(bucket, name, bytes(changed))


def flip(data: bytearray) -> bytearray:
    data[len(data) // 2] ^= 1
    return data


@pytest.mark.parametrize("size", [3000, 12 * MIB])
@pytest.mark.parametrize("how", [flip, lambda data: data[:-1], lambda data: data + b"x"])
def test_a_damaged_blob_is_noticed_and_named(
    address: str, tmp_path: Path, size: int, how: Callable[[bytearray], bytearray]
) -> None:
    store = opened(address)
    digest = store.add_checkpoint(make_checkpoint(tmp_path / "made", 0, {"model.safetensors": size}))
    blob = store.manifest(digest).files["model.safetensors"].blob
    damage(address, blob, how)
    forget_cache()
    with pytest.raises(UserError, match=rf"model\.safetensors: blob {blob.sha256[:12]} is damaged") as caught:
        opened(address).checkpoint(digest)
    assert "\n" not in str(caught.value)
    kept = [path for path in cache_folder().rglob("*") if path.is_file() and path.stat().st_size > 100]
    assert blob.sha256 not in {path.name for path in kept}, "nothing damaged is kept"


def test_a_byte_that_changes_on_the_way_is_fetched_again(proxy: Proxy, address: str, tmp_path: Path) -> None:
    made = make_checkpoint(tmp_path / "made", 0, {"model.safetensors": 3 * MIB})
    digest = opened(address).add_checkpoint(made)
    forget_cache()
    proxy.flip = 2 * MIB
    assert contents(opened(address).checkpoint(digest)) == contents(made)
    assert len(blob_requests(proxy, "GET")) == 3  # config, weights, weights once more


def test_a_file_that_changes_while_it_is_sent_is_noticed(address: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    for size in (1000, 12 * MIB):
        path.write_bytes(bytes(size))
        with pytest.raises(Exception, match="is damaged"):
            BucketObjects(address, part=PART).send(path, Blob("1" * 64, size), lambda _: None)
    assert list(BucketObjects(address).entries("blobs/")) == []


# Places that are not there or not allowed


def test_a_bucket_that_is_not_there_is_said_in_one_line(address: str, tmp_path: Path) -> None:
    store = opened("s3://no-such-bucket-here/x")
    with pytest.raises(UserError, match="there is no such bucket; make it, or name another") as caught:
        store.add_checkpoint(make_checkpoint(tmp_path / "made", 0))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["s3://ab", "s3://Name/p", "s3://"])
def test_addresses_that_are_no_buckets(wrong: str, address: str) -> None:
    with pytest.raises(UserError, match="is written s3://bucket/prefix"):
        open_store(wrong)


def test_a_password_in_an_address_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(UserError, match="credentials are no part of an address") as caught:
        open_store("s3://name:pass/word@bucket/p")
    assert "pass" not in str(caught.value)


def test_a_credentials_file_that_is_none_is_not_quoted(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text("this is no ini file: sesame\n", "utf-8")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    with pytest.raises(UserError, match="the AWS credentials file cannot be read") as caught:
        opened(address).read_record("nothing")
    assert "sesame" not in str(caught.value)


def test_an_upload_that_the_server_did_not_complete_is_no_upload(proxy: Proxy, address: str, tmp_path: Path) -> None:
    """S3 may begin to answer 200 and end with an error."""
    path = make_checkpoint(tmp_path / "made", 0, {"model.safetensors": 12 * MIB}) / "model.safetensors"
    blob = Blob(sha256_of(path), 12 * MIB)
    objects = BucketObjects(address, part=PART, patience=20)
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
def test_what_is_not_allowed_is_said_in_one_line(
    proxy: Proxy, address: str, status: str, code: str, message: str
) -> None:
    store = opened(address)
    proxy.answers = [answer(status, code, "the account 1234 of Mr. Smith")] * 2
    with pytest.raises(UserError, match=message) as caught:
        store.read_record("nothing")
    assert "Smith" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_denied_for_a_name_that_no_list_has_means_that_it_is_not_there(
    proxy: Proxy, address: str, tmp_path: Path
) -> None:
    """Ceph before version 21 answers so where keys may list under their prefix alone."""
    objects = BucketObjects(address)
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


def test_a_wrong_secret_is_refused(address: str, s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(s3_server, MiniStack):
        pytest.skip("this server checks no secrets; `make test-radosgw` runs against one that does")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a wrong secret")
    with pytest.raises(UserError, match="the credentials are not accepted") as caught:
        opened(address).read_record("nothing")
    assert "wrong secret" not in str(caught.value)


def test_a_clock_that_is_wrong_is_refused(address: str, s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(s3_server, MiniStack):
        pytest.skip("this server checks no clocks; `make test-radosgw` runs against one that does")
    import minio.time

    true = minio.time.utcnow
    monkeypatch.setattr("minio.time.utcnow", lambda: true().replace(year=2020))
    with pytest.raises(UserError, match="this machine's clock differs"):
        opened(address).read_record("nothing")


def test_an_address_nobody_answers_at_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(UserError, match=r"no answer from the server.*is AWS_ENDPOINT_URL right"):
        opened(address, patience=0.5).read_record("nothing")


def test_endpoints_that_are_none(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    for wrong in ("host:9000", "http://host:99999", "ftp://host", "https://name:secret@host", "https://host/path"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", wrong)
        with pytest.raises(UserError, match="AWS_ENDPOINT_URL is no endpoint") as caught:
            open_store(address)
        assert "secret" not in str(caught.value)


def test_without_credentials_one_line_says_what_to_set(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    # where an instance would be asked: nobody answers there
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{free_port()}/role")
    with pytest.raises(UserError, match="there are no credentials for the bucket; set AWS_ACCESS_KEY_ID"):
        opened(address).read_record("nothing")


def test_credentials_come_from_the_instances_profile(
    address: str, s3_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
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
        store = opened(address)
        store.write_record("a", {"x": 1})
        assert store.read_record("a") == {"x": 1}
        profile.shutdown()
    assert asked == ["/role"]


def test_tls_with_an_authority_of_ones_own(
    address: str, s3_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    front = TlsFront(s3_server.endpoint, context)
    monkeypatch.setenv("AWS_ENDPOINT_URL", front.endpoint)
    with pytest.raises(UserError, match="certificate is not trusted; name its authority's file in AWS_CA_BUNDLE"):
        opened(address).read_record("nothing")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "nothing.pem"))
    with pytest.raises(UserError, match="AWS_CA_BUNDLE: there is no file"):
        opened(address)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "authority.pem"))
    made = make_checkpoint(tmp_path / "made", 0, SIZES)
    digest = opened(address).add_checkpoint(made)
    forget_cache()
    assert contents(opened(address).checkpoint(digest)) == contents(made)
    front.close()


# The node's cache


def test_a_cache_hit_costs_one_request(proxy: Proxy, address: str, tmp_path: Path) -> None:
    digest = opened(address).add_checkpoint(make_checkpoint(tmp_path / "made", 0, SIZES))
    for _ in range(2):  # what was sent is at hand, and so is what was fetched
        proxy.requests.clear()
        opened(address).checkpoint(digest)
        assert [line.split("?")[0].rsplit("/", 2)[1] for line in proxy.requests] == ["checkpoints"]


def test_processes_that_need_the_same_files_fetch_them_once(proxy: Proxy, address: str, tmp_path: Path) -> None:
    digest = opened(address).add_checkpoint(make_checkpoint(tmp_path / "made", 0, {"model.safetensors": 4 * MIB}))
    forget_cache()
    proxy.requests.clear()
    readers = [subprocess.Popen([sys.executable, "-c", FETCHER, address, digest], cwd=TESTS) for _ in range(4)]
    assert [reader.wait() for reader in readers] == [0] * 4
    assert len(blob_requests(proxy, "GET")) == 2  # config and weights


def test_the_cache_stays_below_its_limit_and_keeps_what_was_used_last(address: str, tmp_path: Path) -> None:
    digests = [
        opened(address).add_checkpoint(make_checkpoint(tmp_path / str(number), number, {"model.safetensors": 3 * MIB}))
        for number in range(5)
    ]
    forget_cache()
    # each in a process of its own, so that nothing stays in use
    for digest in [*digests[:3], digests[0], *digests[3:]]:
        code = (
            f"from support.store_worker import opened\nopened({address!r}, limit={10 * MIB}).checkpoint({digest!r})\n"
        )
        subprocess.run([sys.executable, "-c", code], cwd=TESTS, check=True)
        held = [path for path in cache_folder().glob("blobs/*/*")]
        assert sum(path.stat().st_size for path in held) <= 10 * MIB
    store = opened(address)
    kept = {path.name for path in held}
    weights = [store.manifest(digest).files["model.safetensors"].sha256 for digest in digests]
    assert [sha in kept for sha in weights] == [True, False, False, True, True]


def test_a_file_in_use_is_never_removed(address: str, tmp_path: Path) -> None:
    first, second = (
        opened(address).add_checkpoint(make_checkpoint(tmp_path / str(number), number, {"model.safetensors": 3 * MIB}))
        for number in range(2)
    )
    forget_cache()
    store = opened(address, limit=4 * MIB)
    using = store.checkpoint(first)
    assert contents(store.checkpoint(second)) == contents(tmp_path / "1")
    assert contents(using) == contents(tmp_path / "0")


def test_a_data_set_of_many_files_does_not_count_the_cache_for_each(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMMPRESS_CACHE", str(tmp_path / "cache"))
    far = BucketObjects(f"{address}/data")
    names = ["metadata.jsonl", *(f"images/{number}.png" for number in range(200))]
    for name in names:
        far.write(name, name.encode(), None)
    looked = []
    monkeypatch.setattr("lmmpress.store.cache.lock_of", lambda path: looked.append(Path(path).name) or FileLock(path))
    folder = open_data(f"{address}/data")
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == set(names)
    assert 1 <= looked.count("room") < 20


def test_a_truncated_file_in_the_cache_is_fetched_again(address: str, tmp_path: Path) -> None:
    made = make_checkpoint(tmp_path / "made", 0)
    digest = opened(address).add_checkpoint(made)
    for path in cache_folder().glob("blobs/*/*"):
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1])
    assert contents(opened(address).checkpoint(digest)) == contents(made)


def test_a_full_disk_under_the_cache_is_said_in_one_line_and_breaks_nothing(address: str, tmp_path: Path) -> None:
    """A disk of 8 MiB of its own, in a mount namespace of the child."""
    store = opened(address)
    small = store.add_checkpoint(make_checkpoint(tmp_path / "small", 0, {"model.safetensors": 3 * MIB}))
    other = store.add_checkpoint(make_checkpoint(tmp_path / "other", 1, {"model.safetensors": 4 * MIB}))
    large = store.add_checkpoint(make_checkpoint(tmp_path / "large", 2, {"model.safetensors": 20 * MIB}))
    disk = tmp_path / "disk"
    disk.mkdir()
    code = (
        "import sys\n"
        "from support.store_worker import opened\n"
        "from lmmpress.errors import UserError\n"
        f"for digest in ({small!r}, {large!r}, {other!r}):\n"
        "    try:\n"
        f"        opened({address!r}).checkpoint(digest)\n"
        "        print('fetched')\n"
        "    except UserError as error:\n"
        "        print(error)\n"
    )
    inside = f'mount -t tmpfs -o size=8m none {quote(str(disk))} && exec {quote(sys.executable)} -c "$CODE"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", inside]
    if subprocess.run([*command[:4], "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let users mount a small disk of their own")
    done = subprocess.run(
        command,
        env=os.environ | {"CODE": code, "LMMPRESS_CACHE": str(disk / "cache")},
        cwd=TESTS,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    lines = done.stdout.splitlines()
    assert [lines[0], lines[2]] == ["fetched", "fetched"], done.stderr
    assert "is full: 0.02 GB are needed" in lines[1]
    assert "LMMPRESS_CACHE" in lines[1]


# A plain Hugging Face directory in a bucket


def test_a_model_that_lies_in_a_bucket_as_it_is(proxy: Proxy, address: str, tmp_path: Path) -> None:
    made = make_checkpoint(tmp_path / "made", 0, {"model.safetensors": 3000, "tokenizer.json": 10, "merges.txt": 0})
    bucket = address.removeprefix("s3://").partition("/")[0]
    for name, data in contents(made).items():
        connect()._put_object(bucket, f"teachers/antgmm/{name}", data)
    folder = f"s3://{bucket}/teachers/antgmm"
    assert contents(open_checkpoint(folder)) == contents(made)
    proxy.requests.clear()
    assert contents(open_checkpoint(folder)) == contents(made)
    assert len(proxy.requests) == 1
    connect()._put_object(bucket, "teachers/antgmm/config.json", b'{"seed": 7}')
    assert contents(open_checkpoint(folder))["config.json"] == b'{"seed": 7}'
    with pytest.raises(UserError, match="there is no checkpoint"):
        open_checkpoint(f"s3://{bucket}/teachers")


def test_what_consoles_put_there_to_show_a_folder_is_no_file(address: str, tmp_path: Path) -> None:
    made = make_checkpoint(tmp_path / "made", 0)
    bucket = address.removeprefix("s3://").partition("/")[0]
    for name, data in (contents(made) | {"": b"", "vocab/": b""}).items():
        connect()._put_object(bucket, f"teachers/antgmm/{name}", data)
    folder = open_checkpoint(f"s3://{bucket}/teachers/antgmm")
    assert contents(folder) == contents(made)
    store = opened(address)
    digest = store.add_checkpoint(made)
    for name in ("models/", "models/blobs/", "models/runs/", "models/checkpoints/"):
        connect()._put_object(bucket, name, b"")
    assert contents(opened(address).checkpoint(digest)) == contents(made)
    assert verify_store(store) == []
    assert collect_garbage(store, 0, dry_run=True).entries == []


def test_of_a_folder_in_a_bucket_only_what_may_belong_to_a_checkpoint_is_fetched(
    proxy: Proxy, address: str, tmp_path: Path
) -> None:
    bucket = address.removeprefix("s3://").partition("/")[0]
    wanted = {"config.json": b"{}", "model.safetensors": b"x", "LICENSE": b"y", "tokenizer.model": b"z"}
    others = [".env", "evil.py", "weights.pickle", "pytorch_model.bin", "custom_generate/generate.py", "a", "a/b"]
    for name, data in (wanted | dict.fromkeys([*others, "n" * 300], b"never")).items():
        connect()._put_object(bucket, f"teachers/odd/{name}", data)
    proxy.requests.clear()
    assert contents(open_checkpoint(f"s3://{bucket}/teachers/odd")) == wanted
    assert len(proxy.requests) == 1 + len(wanted)


def test_a_folder_in_a_bucket_that_no_disk_can_hold_is_refused(address: str) -> None:
    bucket = address.removeprefix("s3://").partition("/")[0]
    for name in ("metadata.jsonl", "images", "images/0.png"):
        connect()._put_object(bucket, f"data/{name}", b"{}")
    with pytest.raises(UserError, match="'images' is a file and also the folder of"):
        open_data(f"s3://{bucket}/data")


@pytest.mark.parametrize("prefix", ["a b/c", "100%25 done", "ünïcode/空", "q?x=1", "hash#tag", "plus+and&"])
def test_a_prefix_is_a_prefix_whatever_its_characters(address: str, tmp_path: Path, prefix: str) -> None:
    bucket = address.removeprefix("s3://").partition("/")[0]
    made = make_checkpoint(tmp_path / "made", 0)
    store = opened(f"s3://{bucket}/{prefix}")
    digest = store.add_checkpoint(made)
    assert contents(open_checkpoint(f"s3://{bucket}/{prefix}/checkpoints/{digest}")) == contents(made)
    assert verify_store(store) == []
