"""Sign-in by OpenID Connect: the authorization code flow, with PKCE, for a client that has a secret.

A person is sent to the issuer, and comes back with a code. The server exchanges it for an ID token, which says who the
person is. What an attempt needs until then follows from the browser's session and is kept nowhere: see
`lmmpress.trigger.server.sign_in`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from authlib.common.urls import add_params_to_uri
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jws import JWSRegistry
from joserfc.jwt import Token

from lmmpress.printing.one_line import printable
from lmmpress.trigger.server.issuer import LARGEST, DeniedError, Document, Issuer, IssuerError, word_of
from lmmpress.trigger.server_settings import Oidc

CALLBACK = "/sign-in/callback"
"""Where the issuer sends people back to, below the page's address."""
LONGEST_NAME = 200
_LEEWAY = 60
"""Seconds by which the issuer's clock may differ from ours."""
_LONGEST_CODE = 4096
Why = Literal["invalid", "denied", "unverified", "nameless"]
"""Why somebody who has come back is not signed in: what was brought is not valid here and now; the issuer, or the
person at it, has said no; the issuer has not verified the email; it does not say who it is."""


class NotSignedInError(Exception):
    """Somebody who has come back from the issuer is not signed in: why, and a line for the log."""

    def __init__(self, why: Why, reason: str) -> None:
        super().__init__(reason)
        self.why = why


@dataclass(frozen=True)
class Attempt:
    """What is sent along to the issuer, and what is compared when somebody comes back."""

    state: str
    nonce: str
    verifier: str


@dataclass(frozen=True)
class Known:
    """Whom the issuer knows: the name, and the groups."""

    name: str
    groups: tuple[str, ...]


class OpenId:
    """Sign-in at one issuer. `address` is that of the page."""

    def __init__(
        self,
        settings: Oidc,
        address: str,
        secret: Callable[[], str],
        wants_groups: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._page, self._clock = settings, address, clock
        self._wanted = {settings.name_claim, *([settings.groups_claim] if wants_groups else ())}
        self.issuer = Issuer(settings.issuer, settings.client_id, secret)

    def begin(self, attempt: Attempt) -> str:
        """The address that the browser is sent to. IssuerError where the issuer is away."""
        with self.issuer.at_work():
            document = self.issuer.document()
        return str(
            prepare_grant_uri(
                document.authorization,
                self._settings.client_id,
                "code",
                redirect_uri=self._page + CALLBACK,
                scope=" ".join(self._settings.scopes),
                state=attempt.state,
                nonce=attempt.nonce,
                code_challenge=create_s256_code_challenge(attempt.verifier),
                code_challenge_method="S256",
            )
        )

    def finish(self, attempt: Attempt, answer: Mapping[str, str]) -> Known:
        """Who has come back with this answer to an attempt, whose state the caller has checked. NotSignedInError where
        the answer is not sound, IssuerError where the issuer is away."""
        with self.issuer.at_work():
            document = self.issuer.document()
            named = answer.get("iss")
            if named != self._settings.issuer and (named is not None or document.names_itself):
                raise NotSignedInError("invalid", "the answer is of another issuer")
            if "error" in answer:
                raise NotSignedInError("denied", word_of(answer["error"]))
            code = answer.get("code", "")
            if not 0 < len(code) <= _LONGEST_CODE:
                raise NotSignedInError("invalid", "the answer has no code")
            return self._known(document, attempt, code)

    def sign_out(self) -> str | None:
        """Where a person signs out at the issuer too, if it offers that and answers."""
        try:
            with self.issuer.at_work():
                address = self.issuer.document().sign_out
        except IssuerError:
            return None
        asked = {"client_id": self._settings.client_id, "post_logout_redirect_uri": f"{self._page}/sign-in"}
        return str(add_params_to_uri(address, list(asked.items()))) if address else None

    def _known(self, document: Document, attempt: Attempt, code: str) -> Known:
        sent = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._page + CALLBACK,
            "code_verifier": attempt.verifier,
        }
        try:
            given = self.issuer.tokens(sent)
        except DeniedError:
            raise NotSignedInError("invalid", "the issuer does not take the code") from None
        id_token, access_token = given.get("id_token"), given.get("access_token")
        if not isinstance(id_token, str):
            raise IssuerError(f"{document.token}: gave no ID token")
        access_token = access_token if isinstance(access_token, str) else ""
        claims = self._claims(id_token, access_token, attempt.nonce, document.algorithms)
        told: dict[str, Any] = {}
        if access_token and not self._wanted <= claims.keys():
            # an issuer may keep its tokens small, and tell the rest only when it is asked
            told = self.issuer.about(access_token)
            if told and told.get("sub") != claims["sub"]:
                raise NotSignedInError("invalid", "the issuer told about somebody else than in the token")
        name, groups = (
            # an email and whether it is verified have to come from one place
            claims if claim in claims else told
            for claim in (self._settings.name_claim, self._settings.groups_claim)
        )
        return Known(self._name(name), self._groups(groups))

    def _claims(self, id_token: str, access_token: str, nonce: str, algorithms: Sequence[str]) -> dict[str, Any]:
        """What an ID token says, once its signature, its issuer, whom it is for, its times and its nonce are right."""
        try:
            token = self._checked(id_token, algorithms)
            claims = CodeIDToken(
                token.claims,
                token.header,
                options={
                    "iss": {"essential": True, "value": self._settings.issuer},
                    "aud": {"essential": True, "value": self._settings.client_id},
                    "sub": {"essential": True},
                    "nonce": {"essential": True, "value": nonce},
                },
                params={"nonce": nonce, "client_id": self._settings.client_id, "access_token": access_token},
            )
            claims.validate(int(self._clock()), _LEEWAY)
        except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            # the others are how a library meets what no issuer would send
            said = error.args[0] if isinstance(error, JoseError) and error.args else type(error).__name__
            raise NotSignedInError("invalid", f"ID token: {printable(str(said), 200)}") from None
        return dict(claims)

    def _checked(self, id_token: str, algorithms: Sequence[str]) -> Token:
        """A token whose signature is right. Where its key is not known, the issuer may have a new one."""
        registry = JWSRegistry(algorithms=algorithms, strict_check_header=False)
        registry.max_payload_length = LARGEST  # a person may be in very many groups
        try:
            return jwt.decode(id_token, self.issuer.keys(), algorithms, registry)
        except InvalidKeyIdError:
            return jwt.decode(id_token, self.issuer.keys(again=True), algorithms, registry)

    def _name(self, claims: Mapping[str, Any]) -> str:
        claim = self._settings.name_claim
        name = claims.get(claim)
        if claim == "email" and name is not None and claims.get("email_verified") is not True:
            raise NotSignedInError("unverified", "the issuer has not verified the email")
        if not isinstance(name, str) or not name or printable(name, LONGEST_NAME) != name:
            raise NotSignedInError("nameless", f"the issuer gives no {claim} that can be a name here")
        return name

    def _groups(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        found = claims.get(self._settings.groups_claim)
        listed = [found] if isinstance(found, str) else found if isinstance(found, list) else []
        return tuple(one for one in listed if isinstance(one, str))
