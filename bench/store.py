"""Compares the store with the plain S3 client, on a server on this machine: rates, bytes sent, memory, requests.

    python bench/store.py [--megabytes 1200] [--rounds 5]

The checkpoint is random bytes in four shards. The plain client transfers the same files one after another with
`fput_object` and `fget_object`, with the part size that is best for it here. Both use new names in each round; the
server keeps objects in memory. Rates are for the same bytes, so a ratio of 1 means that hashing, checking and linking
files costs nothing.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lmmpress.store import Store
from lmmpress.store.bucket import BucketObjects
from lmmpress.store.cache import CachedObjects
from lmmpress.store.connection import connect

PART_SIZES = (16, 64, 128)  # MiB
UNCHANGED = 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--moving", nargs=2, metavar=("UP_OR_DOWN", "DIR"), help="for the measurement of memory")
    arguments = parser.parse_args()
    if arguments.moving:
        print(moved_alone(*arguments.moving))
        return
    from common import show, spread  # torch comes with it, which the measurement of memory has to do without

    with tempfile.TemporaryDirectory(prefix="lmmpress-bench-") as name, server(Path(name)):
        folder = Path(name)
        checkpoint = make(folder / "checkpoint", arguments.megabytes, seed=0)
        best = min(PART_SIZES, key=lambda size: plain_upload(checkpoint, size)[0])
        ups, downs = [], []
        for _ in range(arguments.rounds):
            plain_seconds, bucket = plain_upload(checkpoint, best, keep=True)
            store, our_seconds = store_upload(folder, checkpoint)
            ups.append(plain_seconds / our_seconds)
            downs.append(plain_download(bucket, checkpoint, folder) / store_download(folder, store))
            drop(bucket, store)
        result = {
            "megabytes": arguments.megabytes,
            "best_part_mib_of_the_plain_client": best,
            "upload_rate_over_plain": spread(ups),
            "download_rate_over_plain": spread(downs),
            "sent_of_a_checkpoint_30_percent_unchanged": sent_when_partly_unchanged(folder, checkpoint),
            "requests_of_a_cache_hit": requests_of_a_hit(folder, checkpoint),
        }
        for size in (arguments.megabytes // 4, arguments.megabytes, 2 * arguments.megabytes):
            shutil.rmtree(folder / "checkpoint", ignore_errors=True)
            make(folder / "checkpoint", size, seed=0)
            peaks = {way: alone(way, folder) for way in ("up", "down")}
            result[f"peak_mb_of_{size}_mb"] = peaks
        show(result)


@contextmanager
def server(folder: Path) -> Iterator[None]:
    """Start an S3 server on this machine and set its address in the environment."""
    port = 4500 + os.getpid() % 1000
    environment = os.environ | {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "SERVICES": "s3"}
    environment["LOG_LEVEL"] = "ERROR"
    process = subprocess.Popen([sys.executable, "-m", "ministack"], env=environment, cwd=folder)
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench-bench",
    }
    for _ in range(600):
        try:
            urllib.request.urlopen(os.environ["AWS_ENDPOINT_URL"], timeout=5)
            break
        except urllib.error.HTTPError:
            break
        except OSError:
            time.sleep(0.1)
    try:
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def make(folder: Path, megabytes: int, seed: int) -> Path:
    """Write four shards, the first with 30 % of the bytes, their index, and a small config."""
    folder.mkdir(parents=True)
    chance = random.Random(seed)
    rest = (1 - UNCHANGED) / 3
    for number, share in enumerate((UNCHANGED, rest, rest, rest)):
        with (folder / f"model-{number}.safetensors").open("wb") as file:
            for _ in range(int(megabytes * share)):
                file.write(chance.randbytes(1_000_000))
    (folder / "config.json").write_text("{}", "utf-8")
    # without an index the shards would belong to no checkpoint, and the store would leave them out
    index = {"weight_map": {path.stem: path.name for path in sorted(folder.glob("*.safetensors"))}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    return folder


def plain_upload(checkpoint: Path, part: int, keep: bool = False) -> tuple[float, str]:
    client, bucket = connect(), new_bucket()
    begun = time.perf_counter()
    for path in sorted(checkpoint.iterdir()):
        client.fput_object(bucket, path.name, str(path), part_size=part << 20, num_parallel_uploads=4)
    seconds = time.perf_counter() - begun
    if not keep:
        empty(bucket)
    return seconds, bucket


def plain_download(bucket: str, checkpoint: Path, folder: Path) -> float:
    client, target = connect(), folder / "plain"
    begun = time.perf_counter()
    for path in sorted(checkpoint.iterdir()):
        client.fget_object(bucket, path.name, str(target / path.name))
    seconds = time.perf_counter() - begun
    shutil.rmtree(target)
    return seconds


def opened(folder: Path, bucket: str | None = None) -> Store:
    return Store(CachedObjects(BucketObjects(f"s3://{bucket or new_bucket()}/store"), folder / "cache", 10**12))


def store_upload(folder: Path, checkpoint: Path) -> tuple[Store, float]:
    """Upload as a step does: the checkpoint is in the store's scratch folder and then moves into the store."""
    store = opened(folder)
    with store.scratch() as scratch:
        for path in checkpoint.iterdir():
            (scratch / "new").mkdir(exist_ok=True)
            os.link(path, scratch / "new" / path.name)
        begun = time.perf_counter()
        store.add_checkpoint(scratch / "new")
        return store, time.perf_counter() - begun


def store_download(folder: Path, store: Store) -> float:
    shutil.rmtree(folder / "cache" / "blobs")
    (digest,) = (Path(entry.name).stem for entry in store.objects.entries("checkpoints/"))
    fresh = opened(folder, store.root_address.removeprefix("s3://").partition("/")[0])
    begun = time.perf_counter()
    fresh.checkpoint(digest)
    return time.perf_counter() - begun


def sent_when_partly_unchanged(folder: Path, checkpoint: Path) -> float:
    """The bytes that a second save sends divided by those of the first, when one shard is unchanged."""
    store = opened(folder)
    first = loopback(lambda: store.add_checkpoint(checkpoint))
    for path in sorted(checkpoint.glob("*.safetensors"))[1:]:
        path.chmod(0o644)
        with path.open("r+b") as file:
            file.write(uuid.uuid4().bytes)
    return loopback(lambda: store.add_checkpoint(checkpoint)) / first


def loopback(work: Callable[[], object]) -> int:
    import psutil

    before = psutil.net_io_counters(pernic=True)["lo"].bytes_sent
    work()
    return int(psutil.net_io_counters(pernic=True)["lo"].bytes_sent - before)


def requests_of_a_hit(folder: Path, checkpoint: Path) -> int:
    store = opened(folder)
    digest = store.add_checkpoint(checkpoint)
    fresh = opened(folder, store.root_address.removeprefix("s3://").partition("/")[0])
    counted = 0
    pool = fresh.objects.remote._bucket._client._http  # type: ignore[attr-defined]
    ask = pool.urlopen

    def count(*positional: object, **named: object) -> object:
        nonlocal counted
        counted += 1
        return ask(*positional, **named)

    pool.urlopen = count
    fresh.checkpoint(digest)
    return counted


def alone(way: str, folder: Path) -> float:
    """The peak memory in MB of a process that only runs this transfer."""
    command = [sys.executable, __file__, "--moving", way, str(folder)]
    return float(subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True).stdout)


def moved_alone(way: str, name: str) -> float:
    folder = Path(name)
    noted = folder / "moved"
    if way == "up":
        store = opened(folder)
        noted.write_text(f"{store.root_address} {store.add_checkpoint(folder / 'checkpoint')}", "utf-8")
    else:
        shutil.rmtree(folder / "cache" / "blobs")
        address, digest = noted.read_text("utf-8").split()
        store = opened(folder, address.removeprefix("s3://").partition("/")[0])
        store.checkpoint(digest)
        empty(address.removeprefix("s3://").partition("/")[0])
    # not getrusage, which a child inherits from whoever started it
    (line,) = (line for line in Path("/proc/self/status").read_text("utf-8").splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def new_bucket() -> str:
    name = f"bench-{uuid.uuid4().hex[:12]}"
    connect().make_bucket(name)
    return name


def empty(bucket: str) -> None:
    client = connect()
    for item in client.list_objects(bucket, recursive=True):
        client.remove_object(bucket, item.object_name)


def drop(bucket: str, store: Store) -> None:
    empty(bucket)
    empty(store.root_address.removeprefix("s3://").partition("/")[0])


if __name__ == "__main__":
    main()
