"""A node's cache of files from a bucket."""

import os
import subprocess
import sys
from pathlib import Path
from shlex import quote

import pytest
from filelock import FileLock
from support.buckets import FETCHER, MIB, SIZES, blob_requests, forget_cache
from support.files import contents
from support.paths import TESTS
from support.s3 import Proxy
from support.store_worker import opened, random_checkpoint

from lmmpress.data import open_data
from lmmpress.data.address import bring
from lmmpress.store.bucket import BucketObjects
from lmmpress.store.cache_settings import cache_folder


def test_a_cache_hit_costs_one_request(proxy: Proxy, bucket_address: str, tmp_path: Path) -> None:
    digest = opened(bucket_address).add_checkpoint(random_checkpoint(tmp_path / "made", 0, SIZES))
    for _ in range(2):  # sent files are in the cache, and fetched files too
        proxy.requests.clear()
        opened(bucket_address).checkpoint(digest)
        assert [line.split("?")[0].rsplit("/", 2)[1] for line in proxy.requests] == ["checkpoints"]


def test_processes_that_need_the_same_files_fetch_them_once(proxy: Proxy, bucket_address: str, tmp_path: Path) -> None:
    digest = opened(bucket_address).add_checkpoint(
        random_checkpoint(tmp_path / "made", 0, {"model.safetensors": 4 * MIB})
    )
    forget_cache()
    proxy.requests.clear()
    readers = [subprocess.Popen([sys.executable, "-c", FETCHER, bucket_address, digest], cwd=TESTS) for _ in range(4)]
    assert [reader.wait() for reader in readers] == [0] * 4
    assert len(blob_requests(proxy, "GET")) == 2  # config and weights


def test_the_cache_stays_below_its_limit_and_keeps_what_was_used_last(bucket_address: str, tmp_path: Path) -> None:
    digests = [
        opened(bucket_address).add_checkpoint(
            random_checkpoint(tmp_path / str(number), number, {"model.safetensors": 3 * MIB})
        )
        for number in range(5)
    ]
    forget_cache()
    # each in a new process, so that no file stays in use
    for digest in [*digests[:3], digests[0], *digests[3:]]:
        fetch = f"opened({bucket_address!r}, limit={10 * MIB}).checkpoint({digest!r})"
        code = f"from support.store_worker import opened\n{fetch}\n"
        subprocess.run([sys.executable, "-c", code], cwd=TESTS, check=True)
        held = [path for path in cache_folder().glob("blobs/*/*")]
        assert sum(path.stat().st_size for path in held) <= 10 * MIB
    store = opened(bucket_address)
    kept = {path.name for path in held}
    weights = [store.manifest(digest).files["model.safetensors"].sha256 for digest in digests]
    assert [sha in kept for sha in weights] == [True, False, False, True, True]


def test_a_file_in_use_is_never_removed(bucket_address: str, tmp_path: Path) -> None:
    first, second = (
        opened(bucket_address).add_checkpoint(
            random_checkpoint(tmp_path / str(number), number, {"model.safetensors": 3 * MIB})
        )
        for number in range(2)
    )
    forget_cache()
    store = opened(bucket_address, limit=4 * MIB)
    using = store.checkpoint(first)
    assert contents(store.checkpoint(second)) == contents(tmp_path / "1")
    assert contents(using) == contents(tmp_path / "0")


def test_a_data_set_of_many_files_does_not_count_the_cache_for_each(
    bucket_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMMPRESS_CACHE", str(tmp_path / "cache"))
    far = BucketObjects(f"{bucket_address}/data")
    names = ["metadata.jsonl", *(f"images/{number}.png" for number in range(200))]
    for name in names:
        far.write(name, name.encode(), None)
    looked: list[str] = []

    def lock_of(path: Path) -> FileLock:
        looked.append(path.name)
        return FileLock(path)

    monkeypatch.setattr("lmmpress.store.cache.lock_of", lock_of)
    folder = open_data(f"{bucket_address}/data")
    bring(folder, names)
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == set(names)
    assert 1 <= looked.count("room") < 20


def test_a_truncated_file_in_the_cache_is_fetched_again(bucket_address: str, tmp_path: Path) -> None:
    made = random_checkpoint(tmp_path / "made", 0)
    digest = opened(bucket_address).add_checkpoint(made)
    for path in cache_folder().glob("blobs/*/*"):
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1])
    assert contents(opened(bucket_address).checkpoint(digest)) == contents(made)


def test_a_full_disk_under_the_cache_is_a_one_line_error_and_breaks_nothing(
    bucket_address: str, tmp_path: Path
) -> None:
    """The child process gets a disk of 8 MiB, in its own mount namespace."""
    store = opened(bucket_address)
    small = store.add_checkpoint(random_checkpoint(tmp_path / "small", 0, {"model.safetensors": 3 * MIB}))
    other = store.add_checkpoint(random_checkpoint(tmp_path / "other", 1, {"model.safetensors": 4 * MIB}))
    large = store.add_checkpoint(random_checkpoint(tmp_path / "large", 2, {"model.safetensors": 20 * MIB}))
    disk = tmp_path / "disk"
    disk.mkdir()
    code = (
        "import sys\n"
        "from support.store_worker import opened\n"
        "from lmmpress.errors import UserError\n"
        f"for digest in ({small!r}, {large!r}, {other!r}):\n"
        "    try:\n"
        f"        opened({bucket_address!r}).checkpoint(digest)\n"
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
