"""The issuer of OpenID Connect: what it says about itself, its keys, and the requests to it.

Nothing that an issuer answers is trusted further than this needs: addresses without TLS, redirects, large or slow
bodies and keys that are no public keys are refused.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote, urlencode

import certifi
import urllib3
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key, KeySet, RSAKey

from lmmpress.errors import UserError
from lmmpress.files.strict_json import parse_mapping
from lmmpress.printing.one_line import printable
from lmmpress.trigger.server_settings import is_confidential

DOCUMENT = "/.well-known/openid-configuration"
"""Where an issuer says what it is, below its address."""
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""How an issuer may sign: with a key of its own alone. Never `none`, and never with a key that both sides know."""
LARGEST = 256 << 10
"""Bytes of an answer of an issuer's."""
_LONGEST = 2000  # characters of an address
_CONNECT, _READ, _WHOLE = 5.0, 10.0, 15.0  # seconds
_AT_A_TIME = 16
_KEPT, _FAULT_KEPT = 3600.0, 5.0
"""Seconds for which the document and the keys hold, and for which an issuer that is away is not asked again."""
_PAUSE = 10.0
"""Seconds between two looks for a key that is not known."""
_MOST_KEYS = 100
_SMALLEST_RSA = 2048  # bits
_PUBLIC = ("kty", "kid", "alg", "n", "e", "crv", "x", "y")
"""The parts of a key that can check a signature."""
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,60}")
_T = TypeVar("_T")


class IssuerError(UserError):
    """The issuer does not answer, or not as it should: nobody can sign in there now."""


class DeniedError(Exception):
    """The issuer does not take what a person has brought; the word of OAuth for the reason."""


@dataclass(frozen=True)
class Document:
    """What an issuer says about itself: its addresses, how it signs, and what it takes."""

    authorization: str
    token: str
    keys: str
    about: str | None
    """Where it tells more about a person than is in the token."""
    sign_out: str | None
    algorithms: tuple[str, ...]
    scopes: tuple[str, ...]
    """What it may be asked for; empty if it does not say."""
    login: Literal["basic", "post"]
    """How it wants to have the client's secret."""
    names_itself: bool
    """Whether it says who it is when it sends somebody back."""


class Issuer:
    """An issuer. Methods may be called from any thread; each raises IssuerError where there is no sound answer."""

    def __init__(self, address: str, client: str, secret: Callable[[], str]) -> None:
        self.address, self.client = address, client
        self._secret, self._clock = secret, time.monotonic
        authorities = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or certifi.where()
        self._pool = urllib3.PoolManager(
            maxsize=_AT_A_TIME,
            retries=False,
            timeout=urllib3.Timeout(connect=_CONNECT, read=_READ),
            ca_certs=authorities,
        )
        self._free = threading.BoundedSemaphore(_AT_A_TIME)
        self._document = _Kept(self._read_document, lambda: self._clock())
        self._keys = _Kept(self._read_keys, lambda: self._clock())

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Only so many threads of the server may wait for the issuer: where it hangs, the others still answer those who
        have come in another way."""
        if not self._free.acquire(blocking=False):
            raise IssuerError(f"{self.address}: {_AT_A_TIME} people wait for an answer; no more may")
        try:
            yield
        finally:
            self._free.release()

    def document(self) -> Document:
        """What the issuer says about itself, as of the last hour."""
        return self._document.value()

    def keys(self, again: bool = False) -> KeySet:
        """The public keys that the issuer signs with, as of the last hour; `again` fetches them anew, if that was not
        done just now."""
        return self._keys.value(_PAUSE if again else _KEPT)

    def tokens(self, fields: Mapping[str, str]) -> dict[str, Any]:
        """What the issuer gives for a code. DeniedError where it does not take the code."""
        document = self.document()
        sent, headers = dict(fields), {}
        if document.login == "basic":
            login = f"{quote(self.client, safe='')}:{quote(self._secret(), safe='')}"
            headers = dict(urllib3.make_headers(basic_auth=login))
        else:
            sent |= {"client_id": self.client, "client_secret": self._secret()}
        status, body = self._ask("POST", document.token, sent, headers)
        if status in (400, 401, 403):
            error = word_of(_mapping(body, document.token).get("error"))
            if error == "invalid_grant":
                raise DeniedError(error)
            raise IssuerError(f"{document.token}: refuses client {self.client}: {error} (HTTP {status})")
        return _whole(status, body, document.token)

    def about(self, access_token: str) -> dict[str, Any]:
        """What the issuer tells about the person whom an access token is for; nothing if it tells no more."""
        address = self.document().about
        if address is None:
            return {}
        status, body = self._ask("GET", address, None, {"authorization": f"Bearer {access_token}"})
        return _whole(status, body, address)

    def _read_document(self) -> Document:
        where = self.address.rstrip("/") + DOCUMENT
        found = _whole(*self._ask("GET", where), where)
        if found.get("issuer") != self.address:
            named = found.get("issuer")
            said = f"names the issuer {printable(named)}" if isinstance(named, str) else "names no issuer"
            raise IssuerError(f"{where}: {said}, and not {self.address}, which the settings name")
        algorithms = _texts(found, "id_token_signing_alg_values_supported") or ("RS256",)
        logins = _texts(found, "token_endpoint_auth_methods_supported")
        if not set(algorithms) & set(ALGORITHMS):
            raise IssuerError(
                f"{where}: the issuer signs with {printable(', '.join(algorithms))}; none of that is taken"
            )
        if logins and not {"client_secret_basic", "client_secret_post"} & set(logins):
            raise IssuerError(f"{where}: takes no secret of a client, only {printable(', '.join(logins))}")
        return Document(
            authorization=_needed(found, "authorization_endpoint", where),
            token=_needed(found, "token_endpoint", where),
            keys=_needed(found, "jwks_uri", where),
            about=_address(found, "userinfo_endpoint", where),
            sign_out=_address(found, "end_session_endpoint", where),
            algorithms=tuple(one for one in ALGORITHMS if one in algorithms),
            scopes=_texts(found, "scopes_supported"),
            login="post" if logins and "client_secret_basic" not in logins else "basic",
            names_itself=found.get("authorization_response_iss_parameter_supported") is True,
        )

    def _read_keys(self) -> KeySet:
        where = self.document().keys
        listed = _whole(*self._ask("GET", where), where).get("keys")
        keys = [key for one in listed[:_MOST_KEYS] if (key := _public_key(one))] if isinstance(listed, list) else []
        if not keys:
            raise IssuerError(f"{where}: holds no key that can check a signature")
        return KeySet(keys)

    def _ask(
        self,
        method: str,
        address: str,
        fields: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """The status and the body of an answer. No redirect is followed: a secret would go where nobody has sent it."""
        sent = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "lmmpress"} | dict(
            headers or {}
        )
        body = None
        if fields is not None:
            body = urlencode(fields)
            sent["content-type"] = "application/x-www-form-urlencoded"
        try:
            answer = self._pool.request(
                method, address, body=body, headers=sent, redirect=False, preload_content=False, decode_content=False
            )
            try:
                return answer.status, _body_of(answer, address)
            finally:
                answer.close()
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            reason = str(error).rpartition(": ")[2] or type(error).__name__
            raise IssuerError(f"{address}: no answer: {printable(reason, 200)}") from None


class _Kept(Generic[_T]):
    """Something that is read, and kept for a while; so is the fault of a read that failed, but not for long."""

    def __init__(self, read: Callable[[], _T], clock: Callable[[], float]) -> None:
        self._read, self._clock = read, clock
        self._one = threading.Lock()
        self._found: tuple[float, _T] | None = None
        self._fault: tuple[float, IssuerError] | None = None

    def value(self, seconds: float = _KEPT) -> _T:
        """What was read within the last `seconds`, or is read now, by one thread while the others wait for it."""
        with self._one:
            now = self._clock()
            if self._found and now - self._found[0] < seconds:
                return self._found[1]
            if self._fault and now - self._fault[0] < _FAULT_KEPT:
                raise IssuerError(*self._fault[1].lines)
            try:
                found = self._read()
            except IssuerError as error:
                self._fault = (self._clock(), error)
                raise
            self._found = (self._clock(), found)
            return found


def word_of(said: object) -> str:
    """A word that an issuer gives as the reason; nothing else of what it says is passed on."""
    return said if isinstance(said, str) and _WORD.fullmatch(said) else "no reason"


def _body_of(answer: urllib3.BaseHTTPResponse, address: str) -> bytes:
    """The body of an answer, if it is not too large and does not take too long."""
    end = time.monotonic() + _WHOLE
    parts, size = [], 0
    while part := answer.read1(64 << 10):
        parts.append(part)
        size += len(part)
        if size > LARGEST:
            raise IssuerError(f"{address}: the answer has more than {LARGEST} bytes")
        if time.monotonic() > end:
            raise IssuerError(f"{address}: the answer took longer than {_WHOLE:g} s")
    return b"".join(parts)


def _mapping(body: bytes, address: str) -> dict[str, Any]:
    try:
        return parse_mapping(body, address)
    except UserError as error:
        raise IssuerError(*error.lines) from None


def _whole(status: int, body: bytes, address: str) -> dict[str, Any]:
    """The JSON object of an answer with the status 200."""
    if status != 200:
        raise IssuerError(f"{address}: answers HTTP {status}")
    return _mapping(body, address)


def _texts(found: Mapping[str, Any], key: str) -> tuple[str, ...]:
    listed = found.get(key)
    return tuple(one for one in listed if isinstance(one, str)) if isinstance(listed, list) else ()


def _address(found: Mapping[str, Any], key: str, where: str) -> str | None:
    address = found.get(key)
    if address is None:
        return None
    if not isinstance(address, str) or len(address) > _LONGEST or "#" in address or not is_confidential(address):
        raise IssuerError(f"{where}: {key} is no address with https")
    return address


def _needed(found: Mapping[str, Any], key: str, where: str) -> str:
    address = _address(found, key, where)
    if address is None:
        raise IssuerError(f"{where}: {key} is missing")
    return address


def _public_key(listed: object) -> Key | None:
    """A key of the issuer's list; None for what cannot check a signature, or is too weak to."""
    if not isinstance(listed, dict) or listed.get("kty") not in ("RSA", "EC") or listed.get("use", "sig") != "sig":
        return None
    try:
        key = JWKRegistry.import_key({name: listed[name] for name in _PUBLIC if name in listed})
    except (JoseError, ValueError, TypeError, KeyError):  # the last is how joserfc meets a curve that it does not know
        return None
    return None if isinstance(key, RSAKey) and key.public_key.key_size < _SMALLEST_RSA else key
