"""A connection to an S3 endpoint: where it is and who asks, from the environment; how long to be patient with it."""

import configparser
import os
import random
import time
from collections.abc import Callable
from http.client import HTTPException
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit
from xml.etree.ElementTree import ParseError

import certifi
import urllib3
from minio import Minio, MinioAdmin
from minio.credentials import (
    AWSConfigProvider,
    ChainedProvider,
    Credentials,
    EnvAWSProvider,
    EnvMinioProvider,
    IamAwsProvider,
    Provider,
)
from minio.error import InvalidResponseError, MinioAdminException, S3Error, ServerError

from lmmpress.errors import UserError

T = TypeVar("T")

_PASSING = {"InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout", "OperationAborted", "BadDigest"}
_PASSING |= {"XAmzContentSHA256Mismatch", "IncompleteBody", "ConditionalRequestConflict", "Throttling"}
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
SILENCE = 20.0  # seconds without a byte after which a request is given up, and made again
FAILURES = (urllib3.exceptions.HTTPError, HTTPException, ServerError, InvalidResponseError, ParseError, ConnectionError)
_SLICE = 1 << 20


def connect(silence: float = SILENCE) -> Minio:
    """A client of the endpoint that the environment names. Nothing is sent yet.

    AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL (https://s3.amazonaws.com where neither is set), AWS_REGION, AWS_CA_BUNDLE
    for a certificate authority of one's own. Credentials are looked for in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
    (AWS_SESSION_TOKEN), MINIO_ACCESS_KEY and MINIO_SECRET_KEY, the AWS configuration file, and at last asked of the
    instance, container or service account.
    """
    parts, pool, credentials = _settings(silence)
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    ours = not str(parts.hostname).endswith(("amazonaws.com", "amazonaws.com.cn"))
    return Minio(
        parts.netloc,
        secure=parts.scheme == "https",
        region=region or ("us-east-1" if ours else None),
        http_client=pool,
        credentials=credentials,
    )


def administer(silence: float = SILENCE) -> MinioAdmin:
    """A client of MinIO's own API for users and policies, at the endpoint and with the credentials of `connect`."""
    parts, pool, credentials = _settings(silence)
    return MinioAdmin(
        endpoint=parts.netloc,
        secure=parts.scheme == "https",
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        http_client=pool,
        credentials=credentials,
    )


def _settings(silence: float) -> tuple[SplitResult, urllib3.PoolManager, Provider]:
    """The endpoint, connections to it and the credentials, as the environment says."""
    address = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "https://s3.amazonaws.com"
    parts = urlsplit(address)
    try:
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is none
        sound = False
    if not sound or parts.path not in ("", "/") or parts.username:
        raise UserError(
            "AWS_ENDPOINT_URL is no endpoint: write it as https://host:port, without a path or a name in it"
        )
    authorities = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or certifi.where()
    if not os.path.isfile(authorities):
        raise UserError(f"AWS_CA_BUNDLE: there is no file {authorities}")
    pool = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=min(10.0, silence), read=silence),
        maxsize=16,
        retries=False,
        ca_certs=authorities,
    )
    pool.pool_classes_by_scheme = {"http": _SlicedPool, "https": urllib3.HTTPSConnectionPool}
    shy = urllib3.PoolManager(timeout=urllib3.Timeout(connect=2, read=5), retries=1, ca_certs=authorities)
    return parts, pool, _Credentials(shy)


class _Credentials(Provider):
    """The first credentials there are; one line where there are none, whatever else was wrong with each place."""

    def __init__(self, pool: urllib3.PoolManager) -> None:
        places = [EnvAWSProvider(), EnvMinioProvider(), AWSConfigProvider(), IamAwsProvider(http_client=pool)]
        self._chain = ChainedProvider(places)

    def retrieve(self) -> Credentials:
        try:
            return self._chain.retrieve()
        except configparser.Error:  # its message quotes the line, and with it a secret
            raise UserError("the AWS credentials file cannot be read; it is no configuration file") from None
        except (ValueError, KeyError, OSError, urllib3.exceptions.HTTPError):
            raise UserError(
                "there are no credentials for the bucket; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run "
                "where the instance or service account has a role"
            ) from None


class _SlicedConnection(urllib3.connection.HTTPConnection):
    """Sends a body in slices, because a socket's timeout covers the whole of what it is given at once."""

    def send(self, data: Any) -> None:
        if not isinstance(data, bytes):
            return super().send(data)
        view = memoryview(data)
        for start in range(0, len(view), _SLICE):
            super().send(view[start : start + _SLICE])


class _SlicedPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _SlicedConnection


class Patience:
    """How long a request is tried again while nothing moves: `seconds` since the first failure, with growing pauses."""

    def __init__(self, seconds: float, where: str) -> None:
        self._seconds, self._where = seconds, where
        self.moved()

    def moved(self) -> None:
        """Something came through: patience is whole again."""
        self._since: float | None = None
        self._pause = 0.05

    def failed(self, error: Exception) -> None:
        """Wait a little after a failure that may pass; UserError where it will not, or where patience ran out."""
        explained = explain(error, self._where)
        if not passing(error):
            raise explained from error
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since > self._seconds:
            raise UserError(f"{explained}; tried for {self._seconds:.0f} s") from error
        time.sleep(self._pause * random.uniform(0.5, 1.5))
        self._pause = min(2 * self._pause, 5.0)

    def ask(self, request: Callable[[], T]) -> T:
        """The answer to a request, asked again while it fails in a way that may pass.

        Other errors of the S3 protocol come out as they are where `explain` has nothing to say of them.
        """
        while True:
            try:
                return request()
            except S3Error as error:
                if not passing(error) and not _told(error):
                    raise
                self.failed(error)
            except FAILURES as error:
                self.failed(error)


def passing(error: Exception) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, S3Error):
        return error.code in _PASSING or error.response.status in (429, 500, 502, 503, 504)
    if isinstance(error, ServerError | ParseError):
        return True
    if isinstance(error, InvalidResponseError):
        return error._code in (429, 500, 502, 503, 504)
    if isinstance(error, MinioAdminException):
        return error._code in ("429", "500", "502", "503", "504")
    if _UNTRUSTED in str(error):
        return False
    return isinstance(error, urllib3.exceptions.HTTPError | HTTPException | ConnectionError | TimeoutError)


def explain(error: Exception, where: str) -> UserError:
    """One line for a person; it never repeats what the server said, which may hold names of accounts."""
    if isinstance(error, S3Error):
        return UserError(f"{where}: {_told(error) or f'the server answers {error.code}'}")
    if isinstance(error, ServerError | InvalidResponseError):
        status = error.status_code if isinstance(error, ServerError) else error._code
        return UserError(f"{where}: the server answers {status}")
    if isinstance(error, MinioAdminException):
        return UserError(f"{where}: the server answers {error._code}")
    if _UNTRUSTED in str(error):
        return UserError(
            f"{where}: the server's certificate is not trusted; name its authority's file in AWS_CA_BUNDLE"
        )
    return UserError(f"{where}: no answer from the server ({type(error).__name__}); is AWS_ENDPOINT_URL right?")


def _told(error: S3Error) -> str | None:
    match error.code:
        case "NoSuchBucket":
            return "there is no such bucket; make it, or name another"
        case "AccessDenied" | "AllAccessDisabled":
            return "access is denied; the credentials need to list, read, write and delete there"
        case "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken" | "InvalidTokenId":
            return f"the credentials are not accepted ({error.code})"
        case "RequestTimeTooSkewed":
            return "this machine's clock differs from the server's by too much; set it"
        case "QuotaExceeded" | "XMinioStorageFull" | "InsufficientStorage":
            return "the server has no space left"
    return None
