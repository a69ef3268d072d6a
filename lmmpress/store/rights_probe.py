"""What keys may do in a bucket, tried by requests that leave nothing behind, whatever the answer is.

Servers look at rights before anything else. So a write whose condition cannot hold, and an upload that does not exist,
show whether the keys may write, and nothing is written. An upload is begun only where the keys may end it.
"""

import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from lmmpress.errors import UserError
from lmmpress.store.connection import connect
from lmmpress.store.retries import Patience, user_error
from lmmpress.store.rights import LIST, Place
from lmmpress.store.s3_calls import RequestError, S3Bucket

T = TypeVar("T")

_ABSENT = {"NoSuchKey", "NoSuchUpload", "PreconditionFailed", "NoSuchBucketPolicy"}
_NEVER = '"00000000000000000000000000000000"'  # the tag of no object
_FEW = 5


class Prober:
    """Tries rights in a bucket. Raises UserError where the server does not answer, or refuses the keys as a whole.

    `patience` in seconds, for each request.
    """

    def __init__(self, where: Place, patience: float) -> None:
        self._where, self._seconds = where, patience
        self._bucket = S3Bucket(connect(), where.bucket)

    def lacking(self) -> list[str]:
        """The rights of `rights.policy` that the keys lack for a store there, in its words.

        s3:GetObject is not among them: only an object that is there shows whether the keys have it or s3:ListBucket.
        """
        bucket, folder = self._bucket, self._where.prefix
        key = self._key(f"{folder}/doctor" if folder else "doctor")
        begins = f"{folder}/" if folder else ""
        tried: dict[str, Callable[[], Any]] = {
            LIST: partial(self._first, begins),
            "s3:PutObject": partial(self._write, key),
            "s3:DeleteObject": partial(bucket.remove, key),
            "s3:AbortMultipartUpload": partial(bucket.abort_upload, key, uuid.uuid4().hex),
            "s3:ListBucketMultipartUploads": partial(bucket.uploads, begins),
        }
        lacking = [right for right, request in tried.items() if not self._allowed(request)]
        if not {"s3:PutObject", "s3:AbortMultipartUpload"} & set(lacking) and not self._lists_parts(key):
            lacking.append("s3:ListMultipartUploadParts")
        return lacking

    def excess(self, known: list[Place]) -> list[str]:
        """What the keys may do outside of the places that a task needs, in words."""
        bucket, found = self._where.bucket, []
        if others := self._other_buckets({one.bucket for one in known}):
            more = " and more" if len(others) > _FEW else ""
            found.append(f"see the names of other buckets ({', '.join(others[:_FEW])}{more})")
        if all(one.prefix for one in known if one.bucket == bucket):
            listed = self._certainly_allowed(partial(self._first, ""))
            if listed:
                found.append(f"list all of bucket {bucket}")
            if self._reads_outside(known, listed):
                found.append("read outside of its prefix")
            if self._certainly_allowed(partial(self._write, self._key(""))):
                found.append("write outside of its prefix")
        if self._certainly_allowed(self._bucket.policy):
            found.append("read the policy of the bucket, as its owner may")
        return found

    def _lists_parts(self, key: str) -> bool:
        """By an upload that is there: Ceph gives the same answer for a missing right and for an upload that is not."""
        try:
            upload = self._bucket.begin_upload(key, "application/octet-stream")
        except RequestError:
            return True  # a fault, and no question of this right
        try:
            return self._allowed(partial(self._bucket.parts, key, upload))
        finally:
            self._ask(partial(self._bucket.abort_upload, key, upload))

    def _other_buckets(self, known: set[str]) -> list[str]:
        try:
            return sorted(set(self._bucket.names_of_buckets()) - known)
        except RequestError:
            return []

    def _reads_outside(self, known: list[Place], listed: bool) -> bool:
        """By an object that is there, where the keys may list; else by one that is not, where only a yes is certain."""
        key = self._key("")
        if listed:
            outside = self._ask(partial(self._first_outside, known))
            if outside is None:
                return False
            key = outside
        return self._certainly_allowed(partial(self._bucket.size_of, key))

    def _first_outside(self, known: list[Place]) -> str | None:
        """The first object of the bucket that lies in none of the known places, if there is one."""
        inside = [f"{one.prefix}/" for one in known if one.bucket == self._where.bucket]
        for item in self._bucket.listed("", recursive=False):
            if not item.is_folder:
                return item.name
            if not any(one.startswith(item.name) for one in inside):
                return self._first(item.name, recursive=True) or item.name
        return None

    def _first(self, prefix: str, recursive: bool = False) -> str | None:
        """The first name of a list, if there is one."""
        first = next(self._bucket.listed(prefix, recursive), None)
        return first.name if first else None

    def _write(self, key: str) -> None:
        self._bucket.put_if(key, b"", "application/json", _NEVER)
        # a server that does not know conditions has written it
        self._bucket.remove(key)

    def _key(self, folder: str) -> str:
        return f"{folder}/{uuid.uuid4().hex}.json" if folder else f"lmmpress-doctor-{uuid.uuid4().hex}"

    def _allowed(self, request: Callable[[], Any]) -> bool:
        def ask() -> bool:
            try:
                request()
            except RequestError as error:
                if error.denied:
                    return False
                if error.code not in _ABSENT:
                    raise
            return True

        return self._ask(ask)

    def _certainly_allowed(self, request: Callable[[], Any]) -> bool:
        """Whether it is allowed; an answer that is not understood counts as no."""
        try:
            return self._allowed(request)
        except UserError:
            return False

    def _ask(self, request: Callable[[], T]) -> T:
        """The answer to a request; UserError where it fails."""
        where = f"s3://{self._where.bucket}/{self._where.prefix}".rstrip("/")
        try:
            return Patience(self._seconds, where).ask(request)
        except RequestError as error:
            raise user_error(error, where) from error
