"""Several transfers at a time, and none more once one has failed."""

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from threading import Event
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def each(work: Callable[[A], B], items: Iterable[A], at_a_time: int = 4) -> list[B]:
    """What `work` gives for every item, in order.

    Items are taken while others are worked on. Where one fails, or the user stops, those not begun never begin.
    """
    pool = ThreadPoolExecutor(at_a_time)
    failed = Event()
    jobs: list[Future[B]] = []

    def attempt(item: A) -> B:
        try:
            return work(item)
        except BaseException:
            failed.set()
            raise

    try:
        for item in items:
            if failed.is_set():
                break
            jobs.append(pool.submit(attempt, item))
        for job in jobs:
            job.result()
    finally:
        pool.shutdown(cancel_futures=True)
    return [job.result() for job in jobs]


def finish(jobs: list[Future[None]], work: Callable[[], B]) -> B:
    """What `work` gives, once it and all jobs have ended; where one fails, those not begun never begin.

    `work` may add to `jobs`.
    """
    try:
        result = work()
        wait(jobs, return_when=FIRST_EXCEPTION)
    except BaseException:
        for job in jobs:
            job.cancel()
        wait(jobs)
        raise
    for job in jobs:
        if job.done() and job.exception():
            for other in jobs:
                other.cancel()
            wait(jobs)
            job.result()
    return result
