"""Computes something for many items by threads, a limited number of items ahead of whoever takes the results."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

_AHEAD = 4


def by_workers(work: Callable[[In], Out], items: Iterable[In], ahead: int = _AHEAD) -> Iterator[Out]:
    """The results of `work` for each item, in order; each thread computes up to `ahead` results ahead.

    Threads are enough: decoding a picture and hashing a file release the interpreter lock.
    """
    count = min(8, os.cpu_count() or 1)
    remaining = iter(items)
    with ThreadPoolExecutor(count) as pool:
        started = deque(pool.submit(work, item) for item in islice(remaining, count * ahead))
        try:
            while started:
                result = started.popleft().result()
                started.extend(pool.submit(work, item) for item in islice(remaining, 1))
                yield result
        finally:
            for future in started:
                future.cancel()
