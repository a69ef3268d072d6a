"""The server's secrets: the tokens of people and programs, the secrets that MLflow signs deliveries with, and the one
by which an issuer knows the server.

Files are read again where they change, so a token is replaced, or revoked, without a restart. Secrets are compared in
constant time, and only their sha256 is kept of tokens.
"""

import hashlib
import hmac
import os
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmmpress.errors import UserError
from lmmpress.printing.visible import visible
from lmmpress.trigger.server_settings import ROLES, Role, Secret, Token

SHORTEST = 32
"""Characters of a token or secret: fewer could be guessed."""
_LONGEST = 4096  # bytes of a file
_HASHED = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Person:
    """Who a request comes from, and what that person may do."""

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Whether this role includes `role`."""
        return ROLES.index(self.role) >= ROLES.index(role)


class Watched:
    """The value of one secret, read again when its file changes. Of a file that has become unreadable, or holds no good
    secret, the last value stays, and `complain` is called with the reason, once for each change.

    With `may_be_empty` an empty file is a value, too: the empty one. So what is in the file is revoked by emptying it.
    Whoever writes a file anew empties it first, but what was in it is not to be valid any longer then, either.
    """

    shortest, made = SHORTEST, "`openssl rand -hex 32` makes one"

    def __init__(
        self, source: Secret, complain: Callable[[str], None] = lambda fault: None, may_be_empty: bool = False
    ) -> None:
        self._source, self._complain, self._may_be_empty = source, complain, may_be_empty
        self._seen: object = None
        self._reading = threading.Lock()
        self._value = self._read()

    @property
    def value(self) -> str:
        """The secret. UserError never: it was readable when the server started."""
        if self._source.file is not None and self._stamp(self._source.file) != self._seen:
            with self._reading:
                try:
                    self._value = self._read()
                except UserError as error:
                    self._complain(f"{error}; the value before stays in use")
        return self._value

    def _read(self) -> str:
        file = self._source.file
        if file is None:
            text = os.environ.get(str(self._source.env), "")
            where = f"${self._source.env}"
        else:
            self._seen = self._stamp(file)
            text, where = _text_of(file), str(file)
        if not text and file is not None and self._may_be_empty:
            self._complain(f"{where} is empty: what was in it is revoked")
            return ""
        if not text:
            raise UserError(f"{where}: there is no secret")
        if not _HASHED.fullmatch(text) and len(text) < self.shortest:
            raise UserError(f"{where}: a secret has at least {self.shortest} characters; {self.made}")
        if not text.isascii() or not text.isprintable() or " " in text:
            raise UserError(f"{where}: a secret is one line of ASCII without spaces")
        return text

    @staticmethod
    def _stamp(file: Path) -> object:
        try:
            state = file.stat()
        except OSError:
            return None
        return state.st_mtime_ns, state.st_ino, state.st_size


class ClientSecret(Watched):
    """The secret by which an issuer knows the server. It is as long as the issuer makes them."""

    shortest, made = 8, "the issuer makes one"


def _text_of(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            data = opened.read(_LONGEST + 1)
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from None
    if len(data) > _LONGEST:
        raise UserError(f"{file}: a secret has at most {_LONGEST} bytes")
    try:
        return data.decode("ascii").strip()
    except UnicodeDecodeError:
        raise UserError(f"{file}: a secret is one line of ASCII without spaces") from None


class Tokens:
    """The bearer tokens. An empty file holds none, so nobody comes in with it. UserError where one cannot be read, is
    too short, or stands for two names."""

    def __init__(self, tokens: Sequence[Token], complain: Callable[[str], None] = lambda fault: None) -> None:
        self._watched = [(Person(token.name, token.role), Watched(token, complain, True)) for token in tokens]
        owner: dict[bytes, str] = {}
        for person, digest in self.digests():
            other = owner.setdefault(digest, person.name)
            if other != person.name:
                raise UserError(f"{visible(person.name)} and {visible(other)} have the same token; each has its own")

    def __len__(self) -> int:
        return len(self._watched)

    def person(self, token: str) -> Person | None:
        """Who a token stands for. All tokens are compared, whichever matches."""
        presented = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        found = None
        for person, digest in self.digests():
            if hmac.compare_digest(presented, digest):
                found = person
        return found

    def digests(self) -> list[tuple[Person, bytes]]:
        """The people, each with the sha256 of the token as it is now."""
        return [(person, _digest(value)) for person, watched in self._watched if (value := watched.value)]

    def values(self) -> list[str]:
        """The tokens, so that logs can leave them out."""
        return [value for _, watched in self._watched if (value := watched.value)]


def _digest(value: str) -> bytes:
    """The sha256 of a token: what a file holds may be the token, or `sha256:` and the digest of it."""
    hashed = _HASHED.fullmatch(value)
    return bytes.fromhex(hashed[1]) if hashed else hashlib.sha256(value.encode("ascii")).digest()


class SigningSecrets:
    """The secrets of the webhook: one, or two during a rotation. UserError where one cannot be read, or is a hash."""

    def __init__(self, secrets: Sequence[Secret], complain: Callable[[str], None] = lambda fault: None) -> None:
        self._watched = [Watched(secret, complain) for secret in secrets]
        for secret, watched in zip(secrets, self._watched, strict=True):
            if _HASHED.fullmatch(watched.value):
                raise UserError(f"{secret}: a signature cannot be checked with the hash of a secret; give the secret")

    def values(self) -> list[str]:
        """The secrets, each as text."""
        return [watched.value for watched in self._watched]
