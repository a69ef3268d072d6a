"""A connection to an S3 endpoint: where it is, and the credentials, from the environment.

The hook of the Helm chart (helm/lmmpress/files/prepare.py) imports `connect`, `administer`, `explain`, `passing` and
`FAILURES` from here. A chart that is installed already runs with newer images, so these names stay.
"""

import configparser
import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

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

from lmmpress.errors import UserError
from lmmpress.store.s3_calls import FAILURES, explain, passing

__all__ = ["FAILURES", "SILENCE", "administer", "connect", "explain", "passing"]

SILENCE = 20.0  # seconds without a byte after which a request is given up, and made again
_SLICE = 1 << 20


def connect(silence: float = SILENCE) -> Minio:
    """A client of the endpoint that the environment names. Nothing is sent yet.

    AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL (https://s3.amazonaws.com where neither is set), AWS_REGION, AWS_CA_BUNDLE
    for a certificate authority of one's own. The first credentials that are found count: AWS_ACCESS_KEY_ID and
    AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN), MINIO_ACCESS_KEY and MINIO_SECRET_KEY, the AWS credentials file, the role
    of the instance, container or service account.
    """
    settings = _settings(silence)
    return Minio(
        endpoint=settings.host,
        secure=settings.secure,
        region=settings.region or (None if settings.is_amazon else "us-east-1"),
        http_client=settings.pool,
        credentials=settings.credentials,
    )


def administer(silence: float = SILENCE) -> MinioAdmin:
    """A client of MinIO's own API for users and policies, at the endpoint and with the credentials of `connect`."""
    settings = _settings(silence)
    return MinioAdmin(
        endpoint=settings.host,
        secure=settings.secure,
        region=settings.region or "us-east-1",
        http_client=settings.pool,
        credentials=settings.credentials,
    )


@dataclass(frozen=True)
class _Settings:
    """What the environment says of the endpoint: `host` with its port, and `region` if one is set."""

    host: str
    secure: bool
    is_amazon: bool
    region: str | None
    pool: urllib3.PoolManager
    credentials: Provider


def _settings(silence: float) -> _Settings:
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
    # for the role alone: where no instance answers, that must be known soon
    brief = urllib3.PoolManager(timeout=urllib3.Timeout(connect=2, read=5), retries=1, ca_certs=authorities)
    return _Settings(
        host=parts.netloc,
        secure=parts.scheme == "https",
        is_amazon=str(parts.hostname).endswith(("amazonaws.com", "amazonaws.com.cn")),
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        pool=pool,
        credentials=_Credentials(brief),
    )


class _Credentials(Provider):
    """The first credentials that are found; one line where there are none, whatever was wrong with each place."""

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
