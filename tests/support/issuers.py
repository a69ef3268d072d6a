"""Issuers of OpenID Connect for the tests: the process of a real one, and one whose every answer a test can change."""

import base64
import hashlib
import hmac
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, quote, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from lmmpress.trigger.settings import TriggerSettings
from support.trigger_page import page_settings

CLIENT, CLIENT_SECRET = "lmmpress", "client+/" + "c" * 32
LI = {"sub": "0-77", "email": "li.na@example.com", "email_verified": True, "groups": ["staff", "press-operators"]}
"""A person whom the issuers know."""


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def real_issuer(*people: Mapping[str, Any]) -> Iterator[str]:
    """The address of oidc-provider-mock, a process of its own, which knows these people."""
    port = free_port()
    command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port), "--require-nonce", "true"]
    for one in people:
        command += ["--user-claims", json.dumps(dict(one))]
    nowhere = subprocess.DEVNULL
    server = subprocess.Popen(command, stdout=nowhere, stderr=nowhere, env=os.environ | {"NO_COLOR": "1"})
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert server.poll() is None, "the issuer ended"
            with suppress(OSError), urllib.request.urlopen(f"{address}/jwks", timeout=5):
                break
            time.sleep(0.1)
        yield address
    finally:
        server.kill()
        server.wait(30)


def settings_with(
    folder: Path, issuer: str, port: int, page: dict[str, Any] | None = None, **oidc: Any
) -> TriggerSettings:
    """Settings of a page on that port where people sign in at an issuer."""
    folder.mkdir(exist_ok=True)
    (folder / "client").write_text(CLIENT_SECRET, "utf-8")
    (folder / "session").write_text("s" * 40, "utf-8")
    said = {"issuer": issuer, "client_id": CLIENT, "client_secret": {"file": str(folder / "client")}} | oidc
    address = f"http://127.0.0.1:{port}"
    session = {"session_secret": {"file": str(folder / "session")}}
    return page_settings(folder, **{"address": address, "oidc": said, "trusted_proxies": [], **session, **(page or {})})


@cache
def key(name: str) -> RSAKey:
    """A key to sign with; the same name gives the same key."""
    return RSAKey.generate_key(2048, {"kid": name, "use": "sig"})


@cache
def curve_key(name: str) -> ECKey:
    """A key on a curve to sign with."""
    return ECKey.generate_key("P-256", {"kid": name})


def signed(claims: Mapping[str, Any], with_key: RSAKey | ECKey | None = None, **header: Any) -> str:
    """An ID token, signed with a key; with other headers than it should have."""
    with_key = with_key or key("first")
    alg = "ES256" if isinstance(with_key, ECKey) else "RS256"
    said = {name: value for name, value in {"alg": alg, "kid": with_key.kid, **header}.items() if value is not None}
    return jwt.encode(said, dict(claims), with_key, [alg])


def unsigned(claims: Mapping[str, Any], alg: str = "none", signature: bytes = b"") -> str:
    """A token that says how it is signed, and is not."""
    return b".".join([_written({"alg": alg, "kid": "first"}), _written(claims), _coded(signature)]).decode()


def signed_with_what_all_know(claims: Mapping[str, Any]) -> str:
    """A token with a signature that everybody can make: the issuer's public key is the secret of it."""
    known = key("first").as_pem(private=False)
    begin = b".".join([_written({"alg": "HS256", "kid": "first"}), _written(claims)])
    return (begin + b"." + _coded(hmac.new(known, begin, hashlib.sha256).digest())).decode()


def _written(said: Mapping[str, Any]) -> bytes:
    return _coded(json.dumps(dict(said)).encode("utf-8"))


def _coded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def half_hash(text: str) -> str:
    """What a token says of another one."""
    return _coded(hashlib.sha256(text.encode("ascii")).digest()[:16]).decode()


Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Issuer:
    """An issuer that does all as it should, but for what a test has changed. It signs in whoever comes, as `person`."""

    address: str = ""
    person: dict[str, Any] = field(default_factory=lambda: dict(LI))
    document: dict[str, Any] = field(default_factory=dict)
    """What its document says otherwise; None takes a key out."""
    claims: dict[str, Any] = field(default_factory=dict)
    """What its tokens say otherwise; None takes a claim out."""
    sign: Callable[[dict[str, Any]], str] = signed
    keys: list[Any] = field(default_factory=lambda: [key("first").as_dict(private=False)])
    about: dict[str, Any] = field(default_factory=dict)
    """What it tells about the person beside the token; nothing: what it knows."""
    in_token: set[str] | None = None
    """The claims about the person that its tokens have; None: all."""
    token_answer: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    """Whole answers by path."""
    asked: list[str] = field(default_factory=list)
    """The paths of the requests that came."""
    faults: list[str] = field(default_factory=list)
    """What a client has done that it must not do."""
    given: list[str] = field(default_factory=list)
    """The codes and tokens that were given."""
    sent: dict[str, str] = field(default_factory=dict)
    """What the last person was sent here with."""
    holds: threading.Event | None = None
    """With it, each answer waits until it is set."""
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def forget(self) -> None:
        """Do again all as it should."""
        self.__init__(self.address)  # type: ignore[misc]

    def answer(self, method: str, path: str, query: str, headers: Mapping[str, str], body: str) -> Answer:
        """The answer to a request."""
        self.asked.append(path)
        if self.holds is not None:
            self.holds.wait(60)
        if path in self.answers:
            return self.answers[path]
        if path == "/.well-known/openid-configuration":
            return _json(200, self._document())
        if path == "/keys":
            return _json(200, {"keys": self.keys})
        if path == "/authorize":
            return self._authorize(dict(parse_qsl(query)))
        if path == "/token" and method == "POST":
            return self._token(headers, dict(parse_qsl(body)))
        if path == "/about":
            if headers.get("authorization", "").removeprefix("Bearer ") not in self.given:
                return _json(401, {"error": "invalid_token"})
            return _json(200, self.about or self.person)
        return _json(404, {})

    def _document(self) -> dict[str, Any]:
        said = {
            "issuer": self.address,
            "authorization_endpoint": f"{self.address}/authorize?realm=ads",
            "token_endpoint": f"{self.address}/token",
            "jwks_uri": f"{self.address}/keys",
            "userinfo_endpoint": f"{self.address}/about",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256"],
        } | self.document
        return {name: value for name, value in said.items() if value is not None}

    def _authorize(self, sent: dict[str, str]) -> Answer:
        self.sent = sent
        self._expect(sent.get("realm") == "ads", "the query of the address is lost")
        self._expect(sent.get("response_type") == "code", "no code is asked for")
        self._expect(sent.get("client_id") == CLIENT, "it is another client")
        self._expect(sent.get("code_challenge_method") == "S256" and len(sent["code_challenge"]) == 43, "no PKCE")
        self._expect(len(sent.get("nonce", "")) >= 32 and len(sent.get("state", "")) >= 32, "nonce or state are short")
        code = secrets.token_urlsafe(16)
        self.given.append(code)
        self._codes[code] = sent
        back = {"code": code, "state": sent["state"]}
        return 302, {"location": f"{sent['redirect_uri']}?{urlencode(back)}"}, b""

    def _token(self, headers: Mapping[str, str], sent: dict[str, str]) -> Answer:
        login = headers.get("authorization", "").removeprefix("Basic ")
        said = base64.b64decode(login).decode("ascii") or f"{sent.get('client_id')}:{quote(sent['client_secret'], '')}"
        if said != f"{CLIENT}:{quote(CLIENT_SECRET, safe='')}":
            return _json(401, {"error": "invalid_client"})
        begun = self._codes.pop(sent.get("code", ""), None)
        if begun is None:
            return _json(400, {"error": "invalid_grant"})
        challenge = _coded(hashlib.sha256(sent.get("code_verifier", "").encode("ascii")).digest()).decode()
        self._expect(challenge == begun["code_challenge"], "the verifier is not that of the challenge")
        self._expect(sent.get("redirect_uri") == begun["redirect_uri"], "it came back elsewhere")
        self._expect(sent.get("grant_type") == "authorization_code", "no code is given")
        if self.faults:
            return _json(400, {"error": "invalid_grant"})
        now, access_token = int(time.time()), secrets.token_urlsafe(16)
        known = {name: value for name, value in self.person.items() if self.in_token is None or name in self.in_token}
        claims: dict[str, Any] = {"iss": self.address, "aud": CLIENT, "exp": now + 300, "iat": now, **known}
        claims |= {"sub": self.person.get("sub"), "nonce": begun["nonce"], "at_hash": half_hash(access_token)}
        claims |= self.claims
        id_token = self.sign({name: value for name, value in claims.items() if value is not None})
        self.given += [access_token, id_token]
        told = {"access_token": access_token, "token_type": "Bearer", "expires_in": 300, "id_token": id_token}
        return _json(200, told | self.token_answer)

    def _expect(self, holds: bool, fault: str) -> None:
        if not holds:
            self.faults.append(fault)


def _json(status: int, said: Any) -> Answer:
    return status, {"content-type": "application/json"}, json.dumps(said).encode("utf-8")


@contextmanager
def issuing(port: int = 0) -> Iterator[Issuer]:
    """An issuer that listens on this machine until the end of the block."""
    issuer = Issuer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode("ascii")
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, said, data = issuer.answer(self.command, parts.path, parts.query, headers, body)
            self.close_connection = said.get("connection") == "close"
            with suppress(OSError):  # a client that has read enough
                self.send_response(status)
                for name, value in ({"content-length": str(len(data))} | said).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    issuer.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        if issuer.holds is not None:
            issuer.holds.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


def query_of(address: str) -> dict[str, str]:
    """What the query of an address says, each name once."""
    found = parse_qs(urlsplit(address).query, strict_parsing=True)
    assert all(len(values) == 1 for values in found.values())
    return {name: values[0] for name, values in found.items()}
