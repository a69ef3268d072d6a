"""Requests that are made again while their failures may pass."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from lmmpress.errors import AwayError, UserError
from lmmpress.progress import say
from lmmpress.store.objects import DeniedError
from lmmpress.store.s3_calls import RequestError, S3Bucket, seconds_of

T = TypeVar("T")

_EVERY = 60.0  # seconds between two lines for people while nothing moves


class Patience:
    """How long a request is tried again while nothing moves: `seconds` since the first failure, with growing pauses."""

    def __init__(self, seconds: float, where: str) -> None:
        self._seconds, self._where = seconds, where
        self.moved()

    def moved(self) -> None:
        """Some bytes came through: count the seconds from the next failure on."""
        self._since: float | None = None
        self._said = 0.0
        self._pause = 0.05

    def failed(self, error: RequestError) -> None:
        """Wait a little after a failure that may pass; UserError where it will not, or where the time is up."""
        if not error.may_pass:
            raise user_error(error, self._where) from error
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since > self._seconds:
            raise AwayError(f"{self._where}: {error.message}; tried for {self._seconds:.0f} s") from error
        if now - self._since - self._said > _EVERY:
            self._said = now - self._since
            left = (self._seconds - self._said) / 60
            say(f"{self._where}: {error.message}; tried for {self._said:.0f} s, and for {left:.0f} more minutes")
        time.sleep(self._pause * random.uniform(0.5, 1.5))
        self._pause = min(2 * self._pause, 5.0)

    def ask(self, request: Callable[[], T]) -> T:
        """The answer to a request, which is made again while it fails in a way that may pass.

        Raises UserError where the user has to mend something. Any other answer in the words of S3, such as NoSuchKey,
        is raised as the RequestError that it is.
        """
        while True:
            try:
                return request()
            except RequestError as error:
                if error.code and not error.may_pass and not error.by_setup:
                    raise
                self.failed(error)


def user_error(error: RequestError, where: str) -> UserError:
    """A failed request in one line for people."""
    return (DeniedError if error.denied else UserError)(f"{where}: {error.message}")


class BucketRequests:
    """Requests for the objects of a bucket whose names start with a prefix, each with patience.

    `patience` in seconds, of which `first` until the server has answered for the first time. Names are those of
    objects: without the prefix.
    """

    def __init__(self, bucket: S3Bucket, address: str, prefix: str, patience: float, first: float) -> None:
        self.bucket, self.address, self.prefix = bucket, address, prefix
        self._seconds, self._first = patience, min(first, patience)
        self._answered = False
        self._ahead: float | None = None

    @property
    def seconds_ahead(self) -> float | None:
        """How far the server's clock is before this machine's; None where it has not answered yet."""
        return self._ahead

    def key(self, name: str) -> str:
        """The name in the bucket of an object."""
        return self.prefix + name

    def patience(self) -> Patience:
        """Patience for one request; less of it until the server has answered for the first time."""
        return Patience(self._seconds if self._answered else self._first, self.address)

    def answered(self, date: str | None = None) -> None:
        """Note that the server has answered, and the time that it gave."""
        self._answered = True
        if date:
            self._ahead = seconds_of(date) - time.time()

    def ask(self, request: Callable[[], T], expected: tuple[str, ...] = ()) -> T:
        """The answer to a request. RequestError where the server answers with one of the codes that are `expected`;
        UserError where the request fails in another way."""
        try:
            answer = self.patience().ask(request)
        except RequestError as error:
            self.answered(error.date)
            if error.code in expected:
                raise
            raise user_error(error, self.address) from error
        self._answered = True
        return answer

    def ask_for(self, request: Callable[[], T], absent: tuple[str, ...]) -> T | None:
        """The answer to a request; None where the server says, with one of these codes, that there is no such thing."""
        try:
            return self.ask(request, expected=absent)
        except RequestError:
            return None

    def of_object(self, name: str, request: Callable[[], T]) -> T:
        """The answer to a request for an object; RequestError with NoSuchKey where there is none.

        If keys may list only under their prefix, Ceph before version 21 answers AccessDenied for a missing object. Then
        a list of that one name, which the keys may have, shows whether the object is missing or access is denied.
        """
        try:
            return request()
        except RequestError as error:
            if not error.denied or self._may_be_there(name):
                raise
            raise RequestError("NoSuchKey", "the server answers NoSuchKey", date=error.date) from None

    def size_of(self, name: str) -> int | None:
        """The bytes of an object; None where there is none."""
        return self.ask_for(
            lambda: self.of_object(name, lambda: self.bucket.size_of(self.key(name))), absent=("NoSuchKey",)
        )

    def _may_be_there(self, name: str) -> bool:
        wanted = self.key(name)
        try:
            # the name itself comes before all that begin with it
            first = next(self.bucket.listed(wanted), None)
        except RequestError as error:
            if not error.code:
                raise
            return True
        return first is not None and first.name == wanted
