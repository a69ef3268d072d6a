"""A store in a bucket, when the network, the server or the disk fails: real processes, real sockets, real faults."""

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from support.buckets import FETCHER, MIB, SIZES, TOTAL, await_that, blob_requests, forget_cache
from support.files import contents
from support.paths import TESTS
from support.s3 import Proxy, Server, answer
from support.store_worker import PART, opened, random_checkpoint

from lmmpress.errors import UserError
from lmmpress.store.bucket import BucketObjects
from lmmpress.store.cache_settings import cache_folder
from lmmpress.store.connection import connect
from lmmpress.store.objects import Blob, ChangedError
from lmmpress.store.run_state import hold, read_state


def test_files_of_many_parts_come_back_as_they_went_in(bucket_address: str, tmp_path: Path) -> None:
    made = random_checkpoint(tmp_path / "made", 0, SIZES)
    digest = opened(bucket_address).add_checkpoint(made)
    forget_cache()
    assert contents(opened(bucket_address).checkpoint(digest)) == contents(made)


def test_a_file_is_stored_under_its_sha256_and_readable_by_any_client(bucket_address: str, tmp_path: Path) -> None:
    made = random_checkpoint(tmp_path / "made", 0, SIZES)
    store = opened(bucket_address)
    digest = store.add_checkpoint(made)
    bucket, _, prefix = bucket_address.removeprefix("s3://").partition("/")
    for name, file in store.manifest(digest).files.items():
        found = connect().get_object(bucket, f"{prefix}/{file.blob.name}")
        assert found.read() == (made / name).read_bytes()


def test_files_that_are_stored_already_are_not_sent_again(proxy: Proxy, bucket_address: str, tmp_path: Path) -> None:
    first = random_checkpoint(tmp_path / "first", 0, SIZES)
    opened(bucket_address).add_checkpoint(first)
    second = random_checkpoint(tmp_path / "second", 1, SIZES)
    shutil.copy(first / "model-vision.safetensors", second)
    before = proxy.sent
    opened(bucket_address).add_checkpoint(second)
    assert SIZES["model-language.safetensors"] < proxy.sent - before < SIZES["model-language.safetensors"] + MIB


# Servers that die and connections that break


def test_an_upload_survives_a_server_that_dies_and_comes_back(
    own_server: tuple[Server, Proxy, str], tmp_path: Path
) -> None:
    server, proxy, bucket_address = own_server
    made = random_checkpoint(tmp_path / "made", 0, SIZES)
    digests: list[str] = []
    sender = threading.Thread(target=lambda: digests.append(opened(bucket_address).add_checkpoint(made)))
    sender.start()
    await_that(lambda: proxy.sent > TOTAL // 3)
    server.kill()
    time.sleep(0.5)
    assert sender.is_alive()
    server.start()
    sender.join()
    forget_cache()
    assert contents(opened(bucket_address).checkpoint(digests[0])) == contents(made)


def test_a_download_survives_a_server_that_dies_and_comes_back(
    own_server: tuple[Server, Proxy, str], tmp_path: Path
) -> None:
    server, proxy, bucket_address = own_server
    made = random_checkpoint(tmp_path / "made", 0, SIZES)
    digest = opened(bucket_address).add_checkpoint(made)
    forget_cache()
    proxy.reset_after = 2 * MIB  # slow enough to be caught in the middle
    found: list[Path] = []
    fetcher = threading.Thread(target=lambda: found.append(opened(bucket_address).checkpoint(digest)))
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
    proxy: Proxy, bucket_address: str, tmp_path: Path
) -> None:
    made = random_checkpoint(tmp_path / "made", 0, {"model.safetensors": 40 * MIB})
    proxy.requests.clear()
    proxy.silent_after = 12  # of 15, the last ones make an object of the parts and tell of it
    writer = subprocess.Popen([sys.executable, "-c", SENDER, bucket_address, made], cwd=TESTS)
    await_that(lambda: proxy.sent > 30 * MIB)
    writer.kill()
    writer.wait()
    proxy.silent_after = None
    assert list(opened(bucket_address).objects.entries("checkpoints/")) == [], "a reader sees nothing of it"
    before = proxy.sent
    digest = opened(bucket_address).add_checkpoint(made)
    assert proxy.sent - before <= 25 * MIB
    forget_cache()
    assert contents(opened(bucket_address).checkpoint(digest)) == contents(made)


def noted_ranges() -> int:
    """How many ranges of a file in the cache are complete, by the longest journal. That of a file that is complete as a
    whole is removed, at any moment."""
    found = [0]
    for journal in (Path(cache_folder()) / "partial").glob("*.parts"):
        with suppress(FileNotFoundError):
            found.append(len(journal.read_text("utf-8").split()) - 1)
    return max(found)


def test_a_reader_that_was_killed_leaves_ranges_that_the_next_one_does_not_fetch_again(
    proxy: Proxy, bucket_address: str, tmp_path: Path
) -> None:
    made = random_checkpoint(tmp_path / "made", 0, {"model.safetensors": 60 * MIB})
    digest = opened(bucket_address).add_checkpoint(made)
    forget_cache()
    proxy.requests.clear()
    proxy.silent_after = 10  # of 12 ranges and a few more, so that it is killed in the middle however fast it is
    reader = subprocess.Popen([sys.executable, "-c", FETCHER, bucket_address, digest], cwd=TESTS)
    await_that(lambda: noted_ranges() >= 4)
    reader.kill()
    reader.wait()
    proxy.silent_after = None
    proxy.requests.clear()
    assert contents(opened(bucket_address).checkpoint(digest)) == contents(made)
    assert len(blob_requests(proxy, "GET")) <= 12 - 4 + 1  # of 12 ranges, and the config


def test_ranges_that_a_crash_left_wrong_are_fetched_again(bucket_address: str, tmp_path: Path) -> None:
    """A journal that lists ranges which never reached the disk."""
    made = random_checkpoint(tmp_path / "made", 0, {"model.safetensors": 12 * MIB})
    store = opened(bucket_address)
    digest = store.add_checkpoint(made)
    blob = store.manifest(digest).files["model.safetensors"].blob
    forget_cache()
    store = opened(bucket_address)
    partial = cache_folder() / "partial" / blob.sha256
    partial.write_bytes(bytes(12 * MIB))
    partial.with_name(f"{partial.name}.parts").write_text(f"part={PART}\n0\n1\n2\n", "utf-8")
    assert contents(store.checkpoint(digest)) == contents(made)


def test_transfers_survive_connections_that_are_reset_every_few_bytes(
    proxy: Proxy, bucket_address: str, tmp_path: Path
) -> None:
    made = random_checkpoint(tmp_path / "made", 0, SIZES)
    proxy.reset_after = 7 * MIB
    digest = opened(bucket_address).add_checkpoint(made)
    forget_cache()
    proxy.reset_after = MIB
    assert contents(opened(bucket_address).checkpoint(digest)) == contents(made)
    assert proxy.resets > TOTAL // MIB


@pytest.mark.parametrize("fault", [("500 Internal Server Error", "InternalError"), ("503 Slow Down", "SlowDown")])
def test_requests_to_a_busy_server_are_repeated(
    proxy: Proxy, bucket_address: str, tmp_path: Path, fault: tuple[str, str]
) -> None:
    made = random_checkpoint(tmp_path / "made", 0, SIZES)
    store = opened(bucket_address)
    proxy.answers = [answer(*fault)] * 5
    digest = store.add_checkpoint(made)
    assert proxy.answers == []
    proxy.answers = [answer(*fault)] * 5
    forget_cache()
    assert contents(opened(bucket_address).checkpoint(digest)) == contents(made)
    assert proxy.answers == []


def test_requests_to_a_gateway_that_answers_in_html_are_repeated(proxy: Proxy, bucket_address: str) -> None:
    page = b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 5\r\nConnection: close\r\n\r\noops!"
    proxy.answers = [page] * 3
    assert opened(bucket_address).read_record("nothing") is None


def test_requests_to_a_server_that_falls_silent_are_repeated(proxy: Proxy, bucket_address: str, tmp_path: Path) -> None:
    made = random_checkpoint(tmp_path / "made", 0)
    store = opened(bucket_address, silence=0.5)
    proxy.silent = True
    threading.Timer(2, lambda: setattr(proxy, "silent", False)).start()
    digest = store.add_checkpoint(made)
    assert contents(store.checkpoint(digest)) == contents(made)


def test_a_server_that_stays_away_is_a_one_line_error(own_server: tuple[Server, Proxy, str], tmp_path: Path) -> None:
    server, _, bucket_address = own_server
    store = opened(bucket_address, patience=1)
    assert store.read_record("nothing") is None
    server.kill()
    with pytest.raises(UserError, match=r"s3://models/store: no answer from the server.*tried for 1 s"):
        store.read_record("nothing")


def test_an_answer_lost_on_its_way_does_not_make_a_write_fail_or_happen_twice(
    proxy: Proxy, bucket_address: str
) -> None:
    objects = opened(bucket_address).objects
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


def damage(bucket_address: str, blob: Blob, how: Callable[[bytearray], bytearray]) -> None:
    bucket, _, prefix = bucket_address.removeprefix("s3://").partition("/")
    name = f"{prefix}/{blob.name}"
    changed = how(bytearray(connect().get_object(bucket, name).read()))
    connect()._put_object(bucket, name, bytes(changed))


def flip(data: bytearray) -> bytearray:
    data[len(data) // 2] ^= 1
    return data


@pytest.mark.parametrize("size", [3000, 12 * MIB])
@pytest.mark.parametrize("how", [flip, lambda data: data[:-1], lambda data: data + b"x"])
def test_a_damaged_blob_is_noticed_and_named(
    bucket_address: str, tmp_path: Path, size: int, how: Callable[[bytearray], bytearray]
) -> None:
    store = opened(bucket_address)
    digest = store.add_checkpoint(random_checkpoint(tmp_path / "made", 0, {"model.safetensors": size}))
    blob = store.manifest(digest).files["model.safetensors"].blob
    damage(bucket_address, blob, how)
    forget_cache()
    with pytest.raises(UserError, match=rf"model\.safetensors: blob {blob.sha256[:12]} is damaged") as caught:
        opened(bucket_address).checkpoint(digest)
    assert "\n" not in str(caught.value)
    kept = [path for path in cache_folder().rglob("*") if path.is_file() and path.stat().st_size > 100]
    assert blob.sha256 not in {path.name for path in kept}, "nothing damaged is kept"


def test_a_byte_that_changes_on_the_way_is_fetched_again(proxy: Proxy, bucket_address: str, tmp_path: Path) -> None:
    made = random_checkpoint(tmp_path / "made", 0, {"model.safetensors": 3 * MIB})
    digest = opened(bucket_address).add_checkpoint(made)
    forget_cache()
    proxy.flip = 2 * MIB
    assert contents(opened(bucket_address).checkpoint(digest)) == contents(made)
    assert len(blob_requests(proxy, "GET")) == 3  # config, weights, weights once more


def test_a_file_that_changes_while_it_is_sent_is_noticed(bucket_address: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    for size in (1000, 12 * MIB):
        path.write_bytes(bytes(size))
        with pytest.raises(Exception, match="is damaged"):
            BucketObjects(bucket_address, part=PART).send(path, Blob("1" * 64, size), lambda _: None)
    assert list(BucketObjects(bucket_address).entries("blobs/")) == []
