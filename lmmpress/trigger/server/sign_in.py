"""Who looks at the page: people whom a trusted proxy has signed in, or who have signed in at an issuer or with a token.

A session is a signed cookie, so that replicas share sessions and none is kept. A form carries a token that follows from
the session and the person, so another site cannot have a browser send it. In the same way all that an attempt to sign
in at the issuer needs follows from the session, so nobody comes back to a browser that did not begin it. Signing in
begins another session, so nobody comes back twice.

A session says who somebody is, and never what that person may do: the role is found anew for each request.
"""

import base64
import hashlib
import hmac
import json
import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import astuple, dataclass
from ipaddress import IPv6Address, ip_address
from typing import Literal
from urllib.parse import urlsplit

from starlette.requests import Request

from lmmpress.printing.one_line import printable
from lmmpress.trigger.server.oidc import LONGEST_NAME, Attempt, Known, NotSignedInError, OpenId
from lmmpress.trigger.server.secrets import ClientSecret, Person, Tokens, Watched
from lmmpress.trigger.server_settings import ROLES, Page

COOKIE = "__Host-lmmpress"
"""Browsers take a cookie of such a name only with Secure, for one host, and for all paths."""
_MOST_GROUPS = 1000
_ATTEMPT = 600.0
"""Seconds that somebody may take to sign in at the issuer."""
_GROUP = 8
"""Characters that a group has in a cookie, of which browsers take 4096 in all."""
_MOST_KEPT = 200
"""Groups of a person that a cookie has."""
Fault = Literal["expired", "elsewhere"]
"""Why a form is not taken: it is of another session or person, or of another site."""


@dataclass(frozen=True)
class Session:
    """A browser's session: a random id, when it began, and the sign of a token or of the issuer by which a person has
    signed in. With the issuer it has the person's name, and signs of the groups."""

    id: str
    began: float
    mark: str = ""
    name: str = ""
    groups: str = ""


@dataclass(frozen=True)
class Visitor:
    """Who looks: the session, and the person if one is signed in. `unknown` is a person whom the proxy or the issuer
    has signed in and the settings give no role. `may_leave` is whether the session has signed the person in."""

    session: Session
    is_new: bool
    person: Person | None
    unknown: str = ""
    may_leave: bool = False

    @property
    def by_issuer(self) -> bool:
        """Whether the person has signed in at the issuer."""
        return self.may_leave and bool(self.session.name)


class SignIn:
    """Signs people in. UserError where the secret of sessions, or that of the issuer's client, cannot be read."""

    def __init__(
        self, settings: Page, tokens: Tokens, complain: Callable[[str], None], clock: Callable[[], float] = time.time
    ) -> None:
        self._settings, self._tokens, self._clock = settings, tokens, clock
        self._secret = Watched(settings.session_secret, complain) if settings.session_secret else None
        self._own = os.urandom(32)
        self._expected = urlsplit(settings.address) if settings.address else None
        self._client = ClientSecret(settings.oidc.client_secret, complain) if settings.oidc else None
        self.oidc = open_id(settings, self._client) if self._client else None

    @property
    def takes_tokens(self) -> bool:
        """Whether there is a token to sign in with."""
        return self._settings.tokens and len(self._tokens) > 0

    @property
    def is_offered(self) -> bool:
        """Whether people can sign in here, and not only at a proxy."""
        return self.takes_tokens or self.oidc is not None

    def secrets(self) -> list[str]:
        """What no log may hold."""
        return [one.value for one in (self._secret, self._client) if one]

    def visitor(self, request: Request) -> Visitor:
        """Who makes a request."""
        session = self._read(request.cookies.get(COOKIE, ""))
        is_new = session is None
        session = session or self._begun()
        if named := self._by_proxy(request):
            return self._visitor(session, is_new, *named)
        if self._of_issuer and hmac.compare_digest(session.mark, self._of_issuer):
            return self._visitor(session, is_new, session.name, self._groups_of(session), may_leave=True)
        person = self._by_mark(session.mark)
        return Visitor(session, is_new, person, may_leave=person is not None)

    def begin_at_issuer(self, session: Session, path: str) -> str:
        """Where a browser is sent that signs in at the issuer, and comes back to a path of ours. IssuerError where the
        issuer is away."""
        assert self.oidc is not None
        words = [f"{self._clock():.0f}", os.urandom(8).hex(), base64.urlsafe_b64encode(path.encode("ascii")).decode()]
        return self.oidc.begin(self._attempt(session, ".".join(words)))

    def by_issuer(self, visitor: Visitor, answer: Mapping[str, str]) -> tuple[Session, str]:
        """A new session for whom the issuer has sent back, and the path to show. NotSignedInError where that is not
        what this browser has begun, or the answer is not sound. IssuerError where the issuer is away."""
        assert self.oidc is not None
        said = answer.get("state", "")
        words, _, _ = said.rpartition(".")
        attempt = self._attempt(visitor.session, words)
        if visitor.is_new or not hmac.compare_digest(said.encode("utf-8", "replace"), attempt.state.encode("utf-8")):
            raise NotSignedInError("invalid", "this browser has not begun that, or has ended it")
        began, _, path = words.split(".")
        if not -60 < self._clock() - float(began) < _ATTEMPT:
            raise NotSignedInError("invalid", "begun too long ago")
        known = self.oidc.finish(attempt, answer)
        return self._begun(self._of_issuer, known), base64.urlsafe_b64decode(path).decode("ascii")

    def by_token(self, token: str) -> Session | None:
        """A new session for whom a token stands for; None if it stands for nobody."""
        person = self._tokens.person(token) if self.takes_tokens else None
        digest = next((digest for one, digest in self._tokens.digests() if one == person), None)
        return None if digest is None else self._begun(self._mark(digest))

    def cookie(self, session: Session) -> str:
        """The value of the Set-Cookie header for a session."""
        text = json.dumps(astuple(session), ensure_ascii=False, separators=(",", ":"))
        body = base64.urlsafe_b64encode(text.encode("utf-8")).decode()
        left = max(0, int(session.began + self._seconds - self._clock()))
        return f"{COOKIE}={body}.{self._sign('session', body)}; Path=/; Max-Age={left}; Secure; HttpOnly; SameSite=Lax"

    @staticmethod
    def no_cookie() -> str:
        """The value of the Set-Cookie header that ends a session."""
        return f"{COOKIE}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax"

    def form_token(self, visitor: Visitor) -> str:
        """What each form of this visitor's carries."""
        name = visitor.person.name if visitor.person else ""
        return self._sign("form", f"{visitor.session.id} {name}")

    def fault_of(self, request: Request, visitor: Visitor, form_token: str) -> Fault | None:
        """Why a form that was sent is not taken; None if it is."""
        if not self._from_here(request):
            return "elsewhere"
        expected = self.form_token(visitor)
        matches = hmac.compare_digest(form_token.encode("utf-8", "replace"), expected.encode("ascii"))
        return None if matches and not visitor.is_new else "expired"

    def _from_here(self, request: Request) -> bool:
        """Whether a browser says that one of our own pages has sent a form."""
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return False
        origins = request.headers.getlist("origin")
        if len(origins) != 1:
            return False
        try:
            origin = urlsplit(origins[0])
        except ValueError:
            return False
        if self._expected is not None:
            return (origin.scheme, origin.netloc) == (self._expected.scheme, self._expected.netloc)
        return origin.scheme in ("http", "https") and origin.netloc == request.headers.get("host", "")

    def _by_proxy(self, request: Request) -> tuple[str, set[str]] | None:
        """The person whom a trusted proxy names, and the groups; nothing if it names none."""
        if not self._is_proxy(request.client.host if request.client else ""):
            return None
        names = request.headers.getlist(self._settings.user_header)
        if len(names) != 1 or not (name := printable(_text(names[0]), LONGEST_NAME)):
            return None
        groups = [
            group.strip()
            for line in request.headers.getlist(self._settings.groups_header)
            for group in _text(line).split(",")
        ]
        return name, set(groups[:_MOST_GROUPS])

    def _visitor(
        self, session: Session, is_new: bool, name: str, groups: Collection[str], may_leave: bool = False
    ) -> Visitor:
        """The visitor with the largest of the roles that the settings give this person and these groups now."""
        known = self._settings
        roles = [known.users.get(name), known.others]
        roles += [role for group, role in known.groups.items() if group in groups]
        role = max((role for role in roles if role), key=ROLES.index, default=None)
        person = Person(name, role) if role else None
        return Visitor(session, is_new, person, "" if role else name, may_leave)

    def _is_proxy(self, host: str) -> bool:
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in self._settings.trusted_proxies)

    def _by_mark(self, mark: str) -> Person | None:
        """The person who has signed in with a token that is still the one of the settings."""
        found = None
        for person, digest in self._tokens.digests() if mark and self.takes_tokens else ():
            if hmac.compare_digest(mark, self._mark(digest)):
                found = person
        return found

    @property
    def _of_issuer(self) -> str:
        """The sign of a session by the issuer: with another issuer, client or claim it is another."""
        oidc = self._settings.oidc
        return self._sign("issuer", f"{oidc.issuer} {oidc.client_id} {oidc.name_claim}") if oidc else ""

    def _attempt(self, session: Session, words: str) -> Attempt:
        """An attempt of this session's. Who has not the secret can make none, and who has not the session's cookie
        none that this browser would be taken with."""
        state, nonce, verifier = (self._sign(what, f"{session.id} {words}") for what in ("state", "nonce", "verifier"))
        return Attempt(f"{words}.{state}", nonce, verifier)

    def _mark_of_group(self, group: str) -> str:
        """A few characters for a group. They follow from the secret, so nobody can look for a group with the same."""
        return base64.urlsafe_b64encode(bytes.fromhex(self._sign("group", group)))[:_GROUP].decode()

    def _marks_of_groups(self, groups: Collection[str]) -> str:
        """The signs of a person's groups: of very many, first of those that the settings name."""
        named = sorted(set(groups), key=lambda group: (group not in self._settings.groups, group))
        return "".join(self._mark_of_group(group) for group in named[:_MOST_KEPT])

    def _groups_of(self, session: Session) -> set[str]:
        """The groups of the settings that the session has."""
        marks = {session.groups[at : at + _GROUP] for at in range(0, len(session.groups), _GROUP)}
        return {group for group in self._settings.groups if self._mark_of_group(group) in marks}

    def _read(self, cookie: str) -> Session | None:
        body, _, signature = cookie.partition(".")
        expected = self._sign("session", body) if body.isascii() else ""
        if not body or not hmac.compare_digest(signature.encode("utf-8", "replace"), expected.encode("ascii")):
            return None
        session = Session(*json.loads(base64.urlsafe_b64decode(body)))
        return session if -60 < self._clock() - session.began < self._seconds else None

    def _begun(self, mark: str = "", known: Known | None = None) -> Session:
        name, groups = (known.name, self._marks_of_groups(known.groups)) if known else ("", "")
        return Session(os.urandom(16).hex(), round(self._clock(), 3), mark, name, groups)

    def _mark(self, digest: bytes) -> str:
        return self._sign("token", digest.hex())

    def _sign(self, what: str, text: str) -> str:
        key = self._secret.value.encode("ascii") if self._secret else self._own
        return hmac.new(key, f"{what} {text}".encode(), hashlib.sha256).hexdigest()

    @property
    def _seconds(self) -> float:
        return 3600 * self._settings.session_hours


def open_id(page: Page, secret: ClientSecret) -> OpenId:
    """The sign-in by OpenID Connect of a page that has one."""
    assert page.oidc is not None
    assert page.address is not None
    return OpenId(page.oidc, page.address, lambda: secret.value, bool(page.groups))


def _text(header: str) -> str:
    """A header as its sender means it: UTF-8, which HTTP gives as Latin-1."""
    return header.encode("latin-1", "replace").decode("utf-8", "replace")
