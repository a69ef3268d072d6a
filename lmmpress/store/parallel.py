"""Several transfers at a time, and none more once one has failed."""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def each(work: Callable[[A], B], items: Iterable[A], at_a_time: int = 4) -> list[B]:
    """What `work` gives for every item, in order.

    Items are taken while others are worked on. Where one fails, or the user stops, those not begun never begin.
    """
    pool = ThreadPoolExecutor(at_a_time)
    jobs: list[Future[B]] = []
    try:
        for item in items:
            if any(job.done() and job.exception() for job in jobs):
                break
            jobs.append(pool.submit(work, item))
        for job in jobs:
            job.result()
    finally:
        pool.shutdown(cancel_futures=True)
    return [job.result() for job in jobs]
