"""The requests to S3 that the store makes, one method for each, over the client of the package `minio`.

Writes on condition, single parts and lists of uploads are not in the client's public interface. Its private methods are
called in this module and nowhere else. Beside each stands the public method that comes closest, and why it is not
enough. tests/store/test_minio_contract.py tries every method with the oldest and the newest release that pyproject.toml
allows. Arguments go by their names: releases change their order more often.

Whatever fails ends in a `RequestError`, so callers need to know no type of the client.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any
from xml.etree.ElementTree import ParseError

import urllib3
from minio import Minio
from minio.datatypes import Part
from minio.error import InvalidResponseError, MinioAdminException, S3Error, ServerError

from lmmpress.errors import UserError

FAILURES = (urllib3.exceptions.HTTPError, HTTPException, ServerError, InvalidResponseError, ParseError, ConnectionError)
"""What a request may end with beside `S3Error`, the server's own answer in the words of S3."""
_PASSING = {"InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout", "OperationAborted", "BadDigest"}
_PASSING |= {"XAmzContentSHA256Mismatch", "IncompleteBody", "ConditionalRequestConflict", "Throttling"}
_PASSING_STATUS = (429, 500, 502, 503, 504)
_DENIED = ("AccessDenied", "AllAccessDisabled")
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
_LEAST_PART = 5 << 20  # bytes: the client refuses a smaller size of parts
MOST_PARTS = 10_000


class RequestError(Exception):
    """A request that failed.

    `code`: the server's reason in the words of S3, such as NoSuchKey; empty where the server gave none.
    `message`: the reason in one line for people, without the address.
    `may_pass`: whether the same request may succeed a little later.
    `by_setup`: whether bucket, keys, clock or space have to be mended first.
    `date`: the header Date of the server's answer, if there was one.
    """

    def __init__(
        self, code: str, message: str, may_pass: bool = False, by_setup: bool = False, date: str | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.may_pass, self.by_setup, self.date = code, message, may_pass, by_setup, date

    @property
    def denied(self) -> bool:
        """Whether the keys lack a right."""
        return self.code in _DENIED


@dataclass(frozen=True)
class Listed:
    """One line of a list: `size` in bytes, `modified` in seconds of the server's clock. A folder is what several names
    begin with, up to a slash; it has neither."""

    name: str
    size: int
    modified: float
    tag: str
    is_folder: bool


@dataclass(frozen=True)
class Upload:
    """An object that is being sent in parts. `begun` in seconds of the server's clock."""

    name: str
    identifier: str
    begun: float


@dataclass(frozen=True)
class SentPart:
    """A part of an upload that the server has; `size` in bytes."""

    number: int
    size: int
    tag: str


class Download:
    """The bytes of an object, or of a range of it, while they arrive. End it with `close` or `release`."""

    def __init__(self, response: Any) -> None:
        self._response = response
        headers = response.headers
        size = headers.get("Content-Range", "").rpartition("/")[2] or headers.get("Content-Length", "")
        self.size: int | None = int(size) if size.isdigit() else None
        """Bytes of the whole object, where the server says so."""
        self.tag: str = headers.get("ETag", "").strip('"')
        self.date: str | None = headers.get("Date")
        """The server's clock."""

    @property
    def modified(self) -> float:
        """When the object was written, in seconds of the server's clock."""
        return seconds_of(self._response.headers["Last-Modified"])

    def read(self, size: int | None = None) -> bytes:
        """The next `size` bytes, or fewer where no more are there; all that are left without `size`."""
        with _translated():
            data: bytes = self._response.read(size)
            return data

    def close(self) -> None:
        """Close the connection: what has not arrived is not waited for."""
        self._response.close()

    def release(self) -> None:
        """Keep the connection for the next request; all bytes must have been read."""
        self._response.release_conn()


class S3Bucket:
    """The requests to one bucket. Each may end in `RequestError`, or in UserError where there are no credentials."""

    def __init__(self, client: Minio, name: str) -> None:
        self._client, self._name = client, name

    # Through the client's public methods

    def get(self, name: str, start: int = 0, length: int = 0, tag: str | None = None) -> Download:
        """An object's bytes from `start`; all that follow where `length` is 0. With `tag` only if it still has that
        one; else PreconditionFailed."""
        with _translated():
            response = self._client.get_object(
                bucket_name=self._name,
                object_name=name,
                offset=start,
                length=length,
                request_headers={"If-Match": f'"{tag}"'} if tag else None,
            )
        return Download(response)

    def size_of(self, name: str) -> int:
        """The bytes of an object, without reading it."""
        with _translated():
            return int(self._client.stat_object(bucket_name=self._name, object_name=name).size or 0)

    def put(self, name: str, data: bytes, content_type: str) -> None:
        """Write an object whole, whatever was there."""
        with _translated():
            self._client.put_object(
                bucket_name=self._name,
                object_name=name,
                data=io.BytesIO(data),
                length=len(data),
                content_type=content_type,
                part_size=max(len(data), _LEAST_PART),  # one part, however large
            )

    def remove(self, name: str) -> None:
        """Remove an object."""
        with _translated():
            self._client.remove_object(bucket_name=self._name, object_name=name)

    def listed(self, prefix: str, recursive: bool = True) -> Iterator[Listed]:
        """The objects whose names begin so, in order. If not `recursive`, folders stand for what is in them."""
        with _translated():
            for item in self._client.list_objects(bucket_name=self._name, prefix=prefix, recursive=recursive):
                modified = item.last_modified.timestamp() if item.last_modified else 0.0
                yield Listed(str(item.object_name), item.size or 0, modified, item.etag or "", item.is_dir)

    def policy(self) -> str:
        """The policy of the bucket."""
        with _translated():
            return self._client.get_bucket_policy(bucket_name=self._name)

    def names_of_buckets(self) -> list[str]:
        """The names of all buckets that the keys may see."""
        with _translated():
            return [bucket.name for bucket in self._client.list_buckets()]

    # Through the client's private methods

    def put_if(self, name: str, data: bytes, content_type: str, match: str | None) -> None:
        """Write an object whole if the one that is there has the tag `match`, which is sent as it is, with its quotes;
        with None, if there is none. Else PreconditionFailed.

        Public: put_object. It has no conditions, and sends headers that it does not know as metadata of the object.
        """
        condition = {"If-None-Match": "*"} if match is None else {"If-Match": match}
        with _translated():
            self._client._put_object(
                bucket_name=self._name,
                object_name=name,
                data=data,
                headers={"Content-Type": content_type, **condition},
            )

    def uploads(self, prefix: str) -> list[Upload]:
        """The uploads of objects whose names begin so, which were begun and not ended.

        Public: none.
        """
        with _translated():
            listed = self._client._list_multipart_uploads(bucket_name=self._name, prefix=prefix)
        return [
            Upload(one.object_name, str(one.upload_id), one.initiated_time.timestamp() if one.initiated_time else 0.0)
            for one in listed.uploads
        ]

    def begin_upload(self, name: str, content_type: str) -> str:
        """Begin to send an object in parts; the identifier of the upload.

        Public: put_object with part_size. It sends all parts itself, from the first on, and aborts the upload where one
        fails: nothing could be carried on.
        """
        with _translated():
            return self._client._create_multipart_upload(
                bucket_name=self._name, object_name=name, headers={"Content-Type": content_type}
            )

    def parts(self, name: str, upload: str) -> list[SentPart]:
        """The parts of an upload that the server has.

        Public: none.
        """
        with _translated():
            listed = self._client._list_parts(
                bucket_name=self._name, object_name=name, upload_id=upload, max_parts=MOST_PARTS
            )
        return [SentPart(part.part_number, part.size or 0, part.etag.strip('"')) for part in listed.parts]

    def put_part(self, name: str, upload: str, number: int, data: bytes) -> str:
        """Send one part, counted from 1; its tag.

        Public: none.
        """
        with _translated():
            return self._client._upload_part(
                bucket_name=self._name,
                object_name=name,
                data=data,
                headers=None,
                upload_id=upload,
                part_number=number,
            )

    def complete_upload(self, name: str, upload: str, tags: dict[int, str]) -> bool:
        """Make the object of its parts, given their tags by number. False where the answer does not name the object: a
        server may begin to answer 200 and end with an error.

        Public: none.
        """
        parts = [Part(part_number=number, etag=tags[number]) for number in sorted(tags)]
        with _translated():
            made = self._client._complete_multipart_upload(
                bucket_name=self._name, object_name=name, upload_id=upload, parts=parts
            )
        return bool(made.etag or made.bucket_name)  # 7.2.17 loses the etag; an error has neither

    def abort_upload(self, name: str, upload: str) -> None:
        """Remove an upload and its parts.

        Public: none.
        """
        with _translated():
            self._client._abort_multipart_upload(bucket_name=self._name, object_name=name, upload_id=upload)


# What a failure means. Errors of the client keep the status of an answer in private fields: `_code`.


def passing(error: Exception) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, S3Error):
        return error.code in _PASSING or error.response.status in _PASSING_STATUS
    if isinstance(error, ServerError | ParseError):
        return True
    if isinstance(error, InvalidResponseError):
        return error._code in _PASSING_STATUS
    if isinstance(error, MinioAdminException):
        return error._code in map(str, _PASSING_STATUS)
    if _UNTRUSTED in str(error):
        return False
    return isinstance(error, urllib3.exceptions.HTTPError | HTTPException | ConnectionError | TimeoutError)


def explain(error: Exception, where: str) -> UserError:
    """A failure in one line for people. What the server said is not repeated: it may hold names of accounts."""
    return UserError(f"{where}: {_message(error)}")


def seconds_of(date: str) -> float:
    """The seconds since 1970 that a header such as Date or Last-Modified names."""
    return parsedate_to_datetime(date).timestamp()


def _message(error: Exception) -> str:
    if isinstance(error, S3Error):
        return _setup_fault(error.code) or f"the server answers {error.code}"
    if isinstance(error, ServerError | InvalidResponseError):
        return f"the server answers {error.status_code if isinstance(error, ServerError) else error._code}"
    if isinstance(error, MinioAdminException):
        return f"the server answers {error._code}"
    if _UNTRUSTED in str(error):
        return "the server's certificate is not trusted; name its authority's file in AWS_CA_BUNDLE"
    return f"no answer from the server ({type(error).__name__}); is AWS_ENDPOINT_URL right?"


def _setup_fault(code: str | None) -> str | None:
    """What the user has to mend, if it is that."""
    match code:
        case "NoSuchBucket":
            return "there is no such bucket; make it, or name another"
        case "AccessDenied" | "AllAccessDisabled":
            return "access is denied; the credentials need to list, read, write and delete there"
        case "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken" | "InvalidTokenId":
            return f"the credentials are not accepted ({code})"
        case "RequestTimeTooSkewed":
            return "this machine's clock differs from the server's by too much; set it"
        case "QuotaExceeded" | "XMinioStorageFull" | "InsufficientStorage":
            return "the server has no space left"
    return None


@contextmanager
def _translated() -> Iterator[None]:
    """Turn whatever the client raises into `RequestError`."""
    try:
        yield
    except S3Error as error:
        by_setup = _setup_fault(error.code) is not None
        date = error.response.headers.get("Date")
        raise RequestError(error.code or "", _message(error), passing(error), by_setup, date) from error
    except FAILURES as error:
        raise RequestError("", _message(error), passing(error)) from error
