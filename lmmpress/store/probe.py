"""What keys may do in a bucket, tried by requests that leave nothing behind whatever the answer is.

Servers look at rights before anything else. So a write whose condition cannot hold, and an upload that does not exist,
tell whether the keys may write, and nothing is written. An upload is begun only where the keys may end it.
"""

import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from minio.error import S3Error

from lmmpress.errors import UserError
from lmmpress.store.connection import FAILURES, Patience, connect, explain
from lmmpress.store.rights import LIST, Place

_DENIED = {"AccessDenied", "AllAccessDisabled"}
_ABSENT = {"NoSuchKey", "NoSuchUpload", "PreconditionFailed", "NoSuchBucketPolicy"}
_NEVER = '"00000000000000000000000000000000"'  # the tag of no object
_FEW = 5


class Prober:
    """Tries rights in a bucket. Raises UserError where the server does not answer, or refuses the keys as a whole.

    `patience` in seconds, for each request.
    """

    def __init__(self, where: Place, patience: float) -> None:
        self._where, self._patience = where, patience
        self._client = connect()

    def lacking(self) -> list[str]:
        """The rights of `rights.policy` that the keys lack for a store there, in its words.

        s3:GetObject is not among them: only an object that is there tells it from s3:ListBucket.
        """
        client, bucket = self._client, self._where.bucket
        key = self._key(f"{self._where.prefix}/doctor" if self._where.prefix else "doctor")
        begins = f"{self._where.prefix}/" if self._where.prefix else ""
        tried: dict[str, Callable[[], Any]] = {
            LIST: partial(self._list, bucket, begins),
            "s3:PutObject": partial(self._write, key),
            "s3:DeleteObject": partial(client.remove_object, bucket, key),
            "s3:AbortMultipartUpload": partial(client._abort_multipart_upload, bucket, key, uuid.uuid4().hex),
            "s3:ListBucketMultipartUploads": partial(client._list_multipart_uploads, bucket, prefix=begins),
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
            listed = self._spare(partial(self._list, bucket, ""))
            if listed:
                found.append(f"list all of bucket {bucket}")
            if self._reads_outside(known, listed):
                found.append("read outside of its prefix")
            if self._spare(partial(self._write, self._key(""))):
                found.append("write outside of its prefix")
        if self._spare(partial(self._client.get_bucket_policy, bucket)):
            found.append("read the policy of the bucket, as its owner may")
        return found

    def _lists_parts(self, key: str) -> bool:
        """By an upload that is there: of another, Ceph does not tell a right from a name that is not there."""
        bucket = self._where.bucket
        try:
            upload = self._client._create_multipart_upload(bucket, key, {})
        except (S3Error, *FAILURES):
            return True  # a fault, and no question of this right
        try:
            return self._allowed(partial(self._client._list_parts, bucket, key, upload))
        finally:
            self._client._abort_multipart_upload(bucket, key, upload)

    def _other_buckets(self, known: set[str]) -> list[str]:
        try:
            return sorted({one.name for one in self._client.list_buckets()} - known)
        except S3Error:
            return []

    def _reads_outside(self, known: list[Place], listed: bool) -> bool:
        """By an object that is there, where the keys may list; else by one that is not, which only tells a yes."""
        bucket = self._where.bucket
        key = self._key("")
        if listed:
            inside = [f"{one.prefix}/" for one in known if one.bucket == bucket]
            for item in self._client.list_objects(bucket):
                key = str(item.object_name)
                if not (item.is_dir and any(one.startswith(key) for one in inside)):
                    if item.is_dir:
                        first = next(iter(self._client.list_objects(bucket, key, recursive=True)), None)
                        key = str(first.object_name) if first else key
                    break
            else:
                return False
        return self._spare(partial(self._client.stat_object, bucket, key))

    def _list(self, bucket: str, prefix: str) -> None:
        next(iter(self._client.list_objects(bucket, prefix)), None)

    def _write(self, key: str) -> None:
        self._client._put_object(self._where.bucket, key, b"", {"If-Match": _NEVER})
        # a server that does not know conditions has written it
        self._client.remove_object(self._where.bucket, key)

    def _key(self, folder: str) -> str:
        return f"{folder}/{uuid.uuid4().hex}.json" if folder else f"lmmpress-doctor-{uuid.uuid4().hex}"

    def _allowed(self, request: Callable[[], Any]) -> bool:
        where = f"s3://{self._where.bucket}/{self._where.prefix}".rstrip("/")

        def ask() -> bool:
            try:
                request()
            except S3Error as error:
                if error.code in _DENIED:
                    return False
                if error.code not in _ABSENT:
                    raise
            return True

        try:
            return Patience(self._patience, where).ask(ask)
        except S3Error as error:
            raise explain(error, where) from error

    def _spare(self, request: Callable[[], Any]) -> bool:
        """Whether it is allowed; an answer that is not understood is no."""
        try:
            return self._allowed(request)
        except UserError:
            return False
