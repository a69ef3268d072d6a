"""MLflow's webhook: is a delivery genuine, and which model does it name?

MLflow signs `{delivery id}.{timestamp}.{raw body}` with HMAC-SHA256 and sends the signature as `v1,<base64>`, after the
convention of https://www.standardwebhooks.com. Nothing of a body is read before its signature has been checked.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

ID, TIMESTAMP, SIGNATURE = "x-mlflow-delivery-id", "x-mlflow-timestamp", "x-mlflow-signature"
"""MLflow's headers, in lower case."""
WINDOW = 300.0
"""Seconds by which a timestamp may differ from this machine's clock, before or after."""
_MOST_SIGNATURES = 8
_IDENTIFIER = re.compile(r"[\x21-\x7e]{1,200}")
_SECONDS = re.compile(r"[0-9]{1,12}")

PATH = "/webhooks/mlflow"
"""Where the server takes deliveries."""

EVENTS = {("model_version", "created"), ("model_version_alias", "created")}
"""What makes a new version, or moves an alias to one. Other events are answered, and ignored."""


@dataclass(frozen=True)
class Refused:
    """A delivery that is not taken: the HTTP status, a word for the metrics, and a reason for a person."""

    status: int
    kind: str
    reason: str


@dataclass(frozen=True)
class Delivery:
    """A genuine delivery. `model` is None where its event is none that matters here."""

    id: str
    sha256: str
    event: str
    model: str | None
    version: str | None


class _Data(BaseModel):
    model_config = ConfigDict(strict=True)

    name: str = Field(min_length=1, max_length=500)
    version: str = Field(min_length=1, max_length=50)


class _Event(BaseModel):
    """The part of a body that every event has. MLflow adds keys from release to release, so unknown ones are left."""

    model_config = ConfigDict(strict=True)

    entity: str = Field(min_length=1, max_length=100)
    action: str = Field(min_length=1, max_length=100)
    data: dict[str, object]


def sign(secret: str, identifier: str, timestamp: str, body: bytes) -> str:
    """The signature of a delivery as MLflow sends it."""
    return "v1," + base64.b64encode(_mac(secret, identifier, timestamp, body)).decode("ascii")


def open_delivery(headers: Mapping[str, str], body: bytes, secrets: Iterable[str], now: float) -> Delivery | Refused:
    """Check and read a delivery. `headers` has names in lower case, `now` is in seconds since the epoch.

    A delivery counts if one of `secrets` has signed it, so that two hold during a rotation.
    """
    secrets = list(secrets)
    if not secrets:
        return Refused(403, "no_secret", "no secret is set for the webhook, so no delivery can be checked")
    identifier, timestamp = headers.get(ID, ""), headers.get(TIMESTAMP, "")
    if not _IDENTIFIER.fullmatch(identifier) or not _SECONDS.fullmatch(timestamp):
        return Refused(401, "headers", "the headers of a delivery are missing or not in their form")
    if not _is_signed(headers.get(SIGNATURE, ""), identifier, timestamp, body, secrets):
        return Refused(401, "signature", "the signature does not match")
    if abs(now - int(timestamp)) > WINDOW:
        return Refused(401, "expired", f"the delivery is more than {WINDOW:.0f} s old or ahead of this server's clock")
    return _read(identifier, body)


def _is_signed(header: str, identifier: str, timestamp: str, body: bytes, secrets: list[str]) -> bool:
    """Whether one of the signatures in the header was made with one of the secrets; compares all with all."""
    given = []
    for one in header.split(" ")[:_MOST_SIGNATURES]:
        version, _, encoded = one.partition(",")
        if version == "v1":
            try:
                given.append(base64.b64decode(encoded.encode("ascii", "replace"), validate=True))
            except (binascii.Error, ValueError):
                continue
    found = False
    for secret in secrets:
        expected = _mac(secret, identifier, timestamp, body)
        for signature in given:
            found |= hmac.compare_digest(expected, signature)
    return found


def _mac(secret: str, identifier: str, timestamp: str, body: bytes) -> bytes:
    signed = f"{identifier}.{timestamp}.".encode("ascii") + body
    return hmac.new(secret.encode("utf-8"), signed, hashlib.sha256).digest()


def _read(identifier: str, body: bytes) -> Delivery | Refused:
    try:
        value = from_json(body, allow_inf_nan=False)  # its depth is limited, so no body overflows the stack
    except ValueError:
        return Refused(400, "body", "the body is not JSON")
    try:
        event = _Event.model_validate(value)
        named = f"{event.entity}.{event.action}"
        if (event.entity, event.action) not in EVENTS:
            return Delivery(identifier, hashlib.sha256(body).hexdigest(), named, None, None)
        data = _Data.model_validate(event.data)
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"]) or "the body"
        return Refused(400, "body", f"{place} of the body is not what MLflow sends")
    return Delivery(identifier, hashlib.sha256(body).hexdigest(), named, data.name, data.version)
