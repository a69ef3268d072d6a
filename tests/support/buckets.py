"""What tests of a store in a bucket share: large files, the requests for them, a cache that is forgotten."""

import shutil
import time
from collections.abc import Callable

from lmmpress.store.cache_settings import cache_folder
from support.s3 import Proxy

MIB = 1 << 20
SIZES = {"model-vision.safetensors": 17 * MIB + 3, "model-language.safetensors": 11 * MIB}
TOTAL = sum(SIZES.values())
FETCHER = "import sys\nfrom support.store_worker import opened\nopened(sys.argv[1]).checkpoint(sys.argv[2])\n"
"""A program that fetches a checkpoint from a store: its two arguments."""


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
