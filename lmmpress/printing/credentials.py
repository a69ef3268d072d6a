"""Finds credentials in addresses and other texts, and hides them before a text is printed or stored.

    s3://KEY:SECRET@bucket/p                 the user and the password before the last @ of an address
    https://host/m?X-Amz-Signature=...       the values of parameters with secret names
    password=...                             the same in any text
    ghp_..., AKIA..., private keys           tokens in the format of a known service
    environment variables                    the values of variables with secret names

If the end of a password is ambiguous (`https://user:1/2@host` may hold a port and a path), more is hidden rather than
less.
"""

import os
import re
from functools import lru_cache
from urllib.parse import unquote

HIDDEN = "***"

# A text may be long and hostile, so every pattern reads each character a bounded number of times: names and schemes
# start at a word boundary or have a maximum length.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,63}:(?P<slashes>/+)")
_AUTHORITY = re.compile(r"(?:\[[^\]/]*\](?::\d+)?)?([^/?#]*)")  # without an IPv6 address and its port
_MISTYPED = re.compile(r"[A-Za-z0-9+.-]+[:;]?[/\\]{2}")  # s3//bucket
_IMAGE_DIGEST = re.compile(r"@(?=sha\d+:[0-9a-f]{32})")
_USER = re.compile(rf"(?:^|(?<=[='\"(,\[{{]))(?:{_MISTYPED.pattern})?[\w.+%-]+:(?!/)")  # user:password@host
_IN_TEXT = re.compile(r"(?<![\w.%+-])(?P<name>[\w.%+-]+)=(?P<value>[^\s&;#,'\")\]}>]+)")
_IN_ADDRESS = re.compile(r"(?<=[?&;#])(?P<name>[^=?&;#]+)=(?P<value>[^&;#]+)")
_KNOWN_FORMS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:.*?-----END [A-Z ]*PRIVATE KEY-----|.*)"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|\b(?:gh[pousr]_|github_pat_|glpat-|hf_|xox[abprs]-|sk-)\w[\w-]{18,}"
    r"|\beyJ[\w-]{8,2000}\.[\w-]{8,}\.[\w-]*"
    r"|(?<=\bBearer )[^\s'\",]+|(?<=\bBasic )[A-Za-z0-9+/]{8,}=*",
    re.DOTALL,
)
_STEMS = re.compile(
    "password|passwd|passphrase|secret|credential|signature|private_?key|api_?key|account_?key|encryption_?key|"
    "(?:access|auth|session|security|refresh|bearer)_?(?:token|key)"
)
_WORDS = {"token", "pwd", "pass", "pw", "key", "keys", "sig", "jwt", "private"}
_ABOUT = {"file", "path", "dir", "url", "uri", "endpoint", "host", "name", "type", "ttl", "timeout", "enabled"}
_HARMLESS = {"pwd", "oldpwd", "google_application_credentials"}  # folders, and the path of a file
_SHORTEST = 8  # a shorter value of an environment variable may be an ordinary word of the text


def names_a_secret(name: str) -> bool:
    """Whether a variable or parameter of this name holds a secret.

    DB_PWD, API_KEY, X-Amz-Credential and AWSAccessKeyId do. AWS_REGION, MONKEY and TOKENIZERS_PARALLELISM do not. Names
    that only refer to a secret do not either: TOKEN_FILE, SECRET_NAME, KMS_KEY_ID.
    """
    words = _words(name)
    if not words or words[-1] in _ABOUT or "_".join(words) in _HARMLESS:
        return False
    return bool(_STEMS.search("_".join(words))) or (words[-1] not in ("id", "index") and not _WORDS.isdisjoint(words))


def holds_credentials(text: str) -> bool:
    """Whether a text contains credentials: a variable's value, an image's name, a whole message."""
    return _without_secrets(text) != text


def address_holds_credentials(address: str) -> bool:
    """Whether the address of a model, a data set or a store contains credentials, even if it is mistyped.

    An address that begins with /, . or ~ is a path and contains none.
    """
    if address.startswith(("/", ".", "~")):
        return False
    if _SCHEME.match(address):
        return address_without_credentials(address) != address
    suspect = address if _MISTYPED.match(address) else address.partition("/")[0] + "@" * ("@" in address)
    return _without_user(suspect) != suspect


def address_without_credentials(address: str) -> str:
    """An address, which may contain spaces, without user, password and the values of secret parameters."""
    return _IN_ADDRESS.sub(_shown_in_address, _without_user(address))


def without_credentials(text: str) -> str:
    """A text without the secrets that its form shows, and without the secrets in environment variables."""
    return _without_secrets(_without_environment(text))


def _words(name: str) -> list[str]:
    separated = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", unquote(name))
    return [word for word in re.split(r"[^a-z0-9]+", separated.lower()) if word]


def _without_secrets(text: str) -> str:
    if "@" in text or "=" in text:
        text = "".join(_word_without_secrets(word) for word in re.split(r"(\s+)", text))
    return _KNOWN_FORMS.sub(HIDDEN, text)


def _word_without_secrets(word: str) -> str:
    return _IN_TEXT.sub(_shown_in_text, _IN_ADDRESS.sub(_shown_in_address, _without_user(word)))


def _without_user(address: str) -> str:
    begin, end = _user(address)
    return address[:begin] + address[end:]


def _user(address: str) -> tuple[int, int]:
    """The start and end of user and password in an address: up to the last @, since a password may contain / and @.

    In an address without a host, such as models:/Name@alias, the text before the @ counts only if it has a colon.
    """
    last = _IMAGE_DIGEST.sub(" ", address).rfind("@") + 1
    for scheme in _SCHEME.finditer(address, 0, last):
        authority = _AUTHORITY.match(address, scheme.end(), last)
        assert authority is not None
        if ":" in authority[1] or (scheme["slashes"] == "//" and "@" in authority[1]):
            return scheme.end(), last
    user = _USER.search(address, 0, last)
    return (user.start(), last) if user else (0, 0)


def _shown_in_address(parameter: re.Match[str]) -> str:
    return f"{parameter['name']}={HIDDEN}" if names_a_secret(parameter["name"]) else parameter[0]


def _shown_in_text(parameter: re.Match[str]) -> str:
    """Outside an address only unambiguous names are hidden: eos_token=2 is not a secret."""
    words = "_".join(_words(parameter["name"]))
    secret = bool(_STEMS.search(words)) or words in ("token", "sig", "pwd", "jwt")
    return f"{parameter['name']}={HIDDEN}" if secret and names_a_secret(parameter["name"]) else parameter[0]


_names_a_secret_variable = lru_cache(maxsize=1024)(names_a_secret)
"""Every text is searched for every variable, and their names hardly change."""


def _without_environment(text: str) -> str:
    """A text without the values of secret variables and without the passwords of addresses in variables."""
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and _names_a_secret_variable(name):
            text = text.replace(value, HIDDEN)
        elif "://" in value:
            begin, end = _user(value)
            password = value[begin : max(begin, end - 1)].partition(":")[2]
            for written in {password, unquote(password)}:
                if len(written) >= _SHORTEST:
                    text = text.replace(written, HIDDEN)
    return text
