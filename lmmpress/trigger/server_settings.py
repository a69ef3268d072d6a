"""Settings of the trigger's server: where it listens, who may come in, and how much it takes."""

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, field_validator, model_validator

Role = Literal["viewer", "operator", "administrator"]
"""What a person may do: look; also act, such as fire, cancel and promote; also read who has done what."""
ROLES: tuple[Role, ...] = ("viewer", "operator", "administrator")
"""From the least to the most: each may do what those before it may."""

_HEADER = r"^[A-Za-z0-9-]{1,64}$"
_ADDRESS = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?")
_ASCII = re.compile(r"[!-\[\]-~]+")
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Secret(_Section):
    """Where a secret is read from: a file, or a variable of the environment. A file that changes is read again."""

    file: Path | None = None
    env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None

    @model_validator(mode="after")
    def _one(self) -> "Secret":
        if (self.file is None) == (self.env is None):
            raise ValueError("takes either `file` or `env`")
        return self

    def __str__(self) -> str:
        return str(self.file) if self.file is not None else f"${self.env}"


class Token(Secret):
    """A bearer token: who it stands for, what that person or program may do, and where the token is read from."""

    name: Annotated[str, Field(pattern=_NAME)]
    role: Role


def is_confidential(address: str) -> bool:
    """Whether nobody else can read what is sent to an address: it is https, or http to this machine itself, and names
    no user."""
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or not _ASCII.fullmatch(address):
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_this_machine(host))


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Oidc(_Section):
    """Sign-in by OpenID Connect, at the service that knows the people: the issuer.

    A person's name is always that of one claim, so that nobody has two names here. An email counts only where the
    issuer says that it has verified it.
    """

    issuer: Annotated[str, Field(max_length=500)]
    """The issuer's address, exactly as its tokens write it."""
    client_id: Annotated[str, Field(pattern=r"^[!-~]{1,255}$")]
    client_secret: Secret
    scopes: Annotated[tuple[Annotated[str, Field(pattern=r"^[!#-\[\]-~]{1,100}$")], ...], Field(max_length=20)] = (
        "openid",
        "email",
    )
    """What the issuer is asked for. Some need a scope more before they name the groups."""
    name_claim: Annotated[str, Field(min_length=1, max_length=200)] = "email"
    """The claim with the person's name."""
    groups_claim: Annotated[str, Field(min_length=1, max_length=200)] = "groups"
    """The claim with the person's groups: a list of texts, or one."""

    @field_validator("issuer")
    @classmethod
    def _is_an_issuer(cls, issuer: str) -> str:
        if not is_confidential(issuer) or set(issuer) & set("?#"):
            raise ValueError("is no issuer; write it as https://login.example.com, http only for this machine")
        return issuer

    @field_validator("scopes")
    @classmethod
    def _asks_who_it_is(cls, scopes: tuple[str, ...]) -> tuple[str, ...]:
        if "openid" not in scopes:
            raise ValueError("lacks openid, without which the issuer names nobody")
        return scopes


class Page(_Section):
    """The page for people: where it is, and who may sign in to it.

    People are signed in by the headers of a proxy before the server, if the connection comes from one of
    `trusted_proxies`; from any other address these headers count for nothing. With `oidc` they sign in at an issuer.
    With `tokens` they may also sign in with one of the server's tokens, which suits a single machine.
    """

    address: str | None = None
    """Where people find the page, such as https://press.example.com/lmmpress. Without it, where a browser asks."""
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    user_header: Annotated[str, Field(pattern=_HEADER)] = "X-Auth-Request-User"
    """The proxy's header with the person's name. That of Kubeflow is kubeflow-userid."""
    groups_header: Annotated[str, Field(pattern=_HEADER)] = "X-Auth-Request-Groups"
    """The proxy's header with the person's groups, with commas between them."""
    users: dict[str, Role] = {}
    groups: dict[str, Role] = {}
    """The roles of persons and groups by name. The largest counts."""
    others: Role | None = None
    """The role of everybody else whom the proxy or the issuer has signed in; without one, they see nothing."""
    oidc: Oidc | None = None
    tokens: bool = True
    session_secret: Secret | None = None
    """What cookies are signed with. Without one the server makes its own, and a restart signs everybody out; several
    replicas need one."""
    session_hours: Annotated[float, Field(gt=0, le=24 * 31)] = 12.0

    @field_validator("address")
    @classmethod
    def _is_an_address(cls, address: str | None) -> str | None:
        if address is not None and not _ADDRESS.fullmatch(address):
            raise ValueError("is no address; write it as https://press.example.com")
        return address.rstrip("/") if address else address

    @model_validator(mode="after")
    def _people_can_come_back(self) -> "Page":
        if self.oidc is not None and not is_confidential(self.address or ""):
            raise ValueError(
                "oidc needs `address`, with https: the issuer sends people back there; http only for this machine"
            )
        return self


class Limits(_Section):
    """How much the server takes at a time. What is above is answered 429, with Retry-After."""

    webhook_bytes: Annotated[int, Field(ge=1024, le=1 << 20)] = 64 << 10
    """The largest body of a delivery, in bytes."""
    request_bytes: Annotated[int, Field(ge=256, le=1 << 20)] = 16 << 10
    """The largest body of any other request, in bytes."""
    upload_bytes: Annotated[int, Field(ge=1024, le=64 << 20)] = 4 << 20
    """The largest comparison, and the most rows of production at a time, in bytes. Only operators may send as much."""
    uploads: Annotated[int, Field(ge=1, le=100)] = 2
    """Comparisons and rows of production that are worked on at the same time."""
    deliveries: Annotated[int, Field(ge=1, le=10_000)] = 256
    """Deliveries that are noted at the same time."""
    requests: Annotated[int, Field(ge=1, le=1000)] = 32
    """Other requests that are worked on at the same time."""
    body_seconds: Annotated[float, Field(gt=0, le=600)] = 10.0
    """How long a body may take to arrive."""
    retry_after: Annotated[int, Field(ge=1, le=3600)] = 2
    """Seconds after which a refused client may come again."""


class ServerSettings(_Section):
    """The section `server` of the trigger's settings."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    tokens: tuple[Token, ...] = ()
    webhook_secrets: Annotated[tuple[Secret, ...], Field(max_length=2)] = ()
    """The secret that MLflow signs deliveries with; two while one replaces the other. Without one, none is taken."""
    limits: Limits = Limits()
    page: Page = Page()
    reconcile_seconds: Annotated[float, Field(ge=1, le=3600)] = 60.0
    """Between two rounds of the reconciler."""
    stop_seconds: Annotated[int, Field(ge=1, le=600)] = 20
    """How long requests that have begun may take when the server is told to stop."""

    @field_validator("tokens")
    @classmethod
    def _names_differ(cls, tokens: tuple[Token, ...]) -> tuple[Token, ...]:
        names = [token.name for token in tokens]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"has two tokens with the name {', '.join(twice)}; during a rotation name them differently"
            )
        return tokens
