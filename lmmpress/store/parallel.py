"""Several transfers at a time. Once one has failed, no other begins."""

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from threading import Event
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def each(work: Callable[[A], B], items: Iterable[A], at_a_time: int = 4) -> list[B]:
    """The results of `work` for every item, in order.

    Items are taken from the iterable while others are worked on. Where one fails, or the user stops, no other begins.
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
    """The result of `work`, which may add to `jobs`, when it and all jobs have ended. Where one fails, jobs that have
    not begun are cancelled."""
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
