"""Sign-in by OpenID Connect: a real issuer, and one that lies. Who is signed in, what is refused, what is kept."""

import base64
import io
import json
import logging
import re
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.issuers import (
    CLIENT,
    CLIENT_SECRET,
    LI,
    Issuer,
    curve_key,
    free_port,
    issuing,
    key,
    query_of,
    real_issuer,
    settings_with,
    signed,
    signed_with_what_all_know,
    unsigned,
)
from support.trigger_page import (
    ADMINISTRATORS,
    OPERATORS,
    Browser,
    Lineage,
    Pointing,
    asked_once,
    page_settings,
    words_of,
)
from support.trigger_server import TOKENS, Answer, Running, running

from lmmpress.progress.log import LogForm
from lmmpress.trigger.acts import recorded
from lmmpress.trigger.check import check_issuer
from lmmpress.trigger.server import issuer as requests
from lmmpress.trigger.server import logs, oidc

COOKIE = "__Host-lmmpress"
Sign = Callable[[dict[str, Any]], str]


@pytest.fixture(scope="module")
def listening() -> Iterator[Issuer]:
    with issuing() as found:
        yield found


@pytest.fixture
def issuer(listening: Issuer) -> Issuer:
    """An issuer that does all as it should."""
    listening.forget()
    return listening


@contextmanager
def serving(
    folder: Path, issuer: str, page: dict[str, Any] | None = None, port: int = 0, **oidc: Any
) -> Iterator[Running]:
    """The server, where people sign in at an issuer."""
    port = port or free_port()
    lineage = Lineage()
    settings = settings_with(folder, issuer, port, page, **oidc)
    with running(settings, made_from=lineage, aliases=Pointing(lineage), port=port) as found:
        yield found


@pytest.fixture(scope="module")
def shared(listening: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("shared"), listening.address) as found:
        yield found


@pytest.fixture
def server(issuer: Issuer, shared: Running) -> Running:
    """A server that knows nothing of the issuer yet, for tests that leave nothing else behind."""
    here = shared.service.sign_in.oidc
    assert here is not None
    here.issuer = requests.Issuer(here.issuer.address, here.issuer.client, here.issuer._secret)
    return shared


def got(address: str) -> Answer:
    """What another site answers a browser."""
    return asked_once(urllib.request.Request(address))


def path_in(address: str) -> str:
    """The path and query of an address of the page."""
    parts = urllib.parse.urlsplit(address)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def sent_back(person: Browser, path: str = "/") -> str:
    """The path that the issuer sends a person back to, who begins to sign in there."""
    begun = person.get(f"/sign-in/issuer?next={urllib.parse.quote(path, safe='')}")
    assert begun.status == 303, begun.body
    issued = got(begun.headers["location"])
    assert issued.status == 302, issued.body
    assert issued.headers["location"].startswith(person.address + oidc.CALLBACK)
    return path_in(issued.headers["location"])


def signed_in(server: Running, path: str = "/") -> tuple[Browser, Answer]:
    """A browser whose person has come back from the issuer, and the answer to that."""
    person = Browser(server.address)
    return person, person.get(sent_back(person, path))


def refused(answer: Answer, status: int = 403) -> str:
    """What the page says to somebody who is not signed in."""
    assert answer.status == status, (answer.status, answer.headers["location"])
    found = re.search(r'<p role="alert">(.*?)</p>', answer.body.decode("utf-8"))
    assert found
    return words_of(found[1])


INVALID = "This sign-in is not valid any more, or was not begun in this browser. Begin again."


# The whole way


def test_a_person_signs_in_at_a_real_issuer_and_out_again(tmp_path: Path) -> None:
    with real_issuer(LI) as address, serving(tmp_path, address) as server:
        person = Browser(server.address)
        first = person.get("/models/antgmm")
        assert first.headers["location"] == "/sign-in?next=%2Fmodels%2Fantgmm"
        (link,) = re.findall(r'href="(/sign-in/issuer[^"]*)"', person.text(first.headers["location"]))
        begun = person.get(link)
        sent = query_of(begun.headers["location"])
        assert sent["redirect_uri"] == f"{server.address}/sign-in/callback"
        assert sent["scope"] == "openid email"
        form = urllib.parse.urlencode({"sub": LI["sub"]}).encode("ascii")
        issued = asked_once(urllib.request.Request(begun.headers["location"], form))
        back = person.get(path_in(issued.headers["location"]))
        assert (back.status, back.headers["location"]) == (303, "/models/antgmm")
        assert "li.na@example.com, operator" in person.text("/models/antgmm")

        left = person.post("/sign-out", {"form": person.form_token()})
        assert left.headers["location"] == "/sign-out"
        (there,) = re.findall(r'href="(http[^"]*)"', person.text("/sign-out"))
        asked = query_of(there.replace("&amp;", "&"))
        assert asked == {"client_id": CLIENT, "post_logout_redirect_uri": f"{server.address}/sign-in"}
        assert got(there.replace("&amp;", "&")).status == 200
        assert person.get("/").status == 303
        denied = asked_once(urllib.request.Request(begun.headers["location"], b"action=deny"))
        assert "error=access_denied" in denied.headers["location"]


def test_the_issuer_finds_nothing_to_complain_of(server: Running, issuer: Issuer) -> None:
    person, answer = signed_in(server, "/history")
    assert (answer.status, answer.headers["location"], issuer.faults) == (303, "/history", [])
    assert "li.na@example.com, operator" in person.text("/")


def test_who_is_signed_in_can_act_by_that_name(issuer: Issuer, tmp_path: Path) -> None:
    with serving(tmp_path, issuer.address) as server:
        person, _ = signed_in(server)
        fields = {"form": person.form_token("/"), "plan": "fast"}
        assert person.post("/models/antgmm/fire", fields).status == 303
        assert [act.by for act in recorded(server.service.trigger.objects)] == ["li.na@example.com"]


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({"groups": [ADMINISTRATORS, OPERATORS]}, "li.na@example.com, administrator"),
        ({"groups": OPERATORS}, "li.na@example.com, operator"),
        ({"email": "boss", "groups": []}, "boss, administrator"),
        ({"email": "李娜@example.com"}, "李娜@example.com, operator"),
    ],
)
def test_the_largest_role_of_a_person_and_of_the_groups_counts(
    server: Running, issuer: Issuer, changed: dict[str, Any], shown: str
) -> None:
    issuer.person |= changed
    assert shown in signed_in(server)[0].text("/")


def test_other_claims_may_have_the_name_and_the_groups(issuer: Issuer, tmp_path: Path) -> None:
    issuer.person = {"sub": "0-77", "https://example.com/roles": [OPERATORS]}
    named: dict[str, Any] = {
        "name_claim": "sub",
        "groups_claim": "https://example.com/roles",
        "scopes": ["openid", "roles"],
    }
    with serving(tmp_path, issuer.address, **named) as server:
        assert "0-77, operator" in signed_in(server)[0].text("/")
    assert issuer.sent["scope"] == "openid roles"


@pytest.mark.parametrize(
    "document",
    [
        {"token_endpoint_auth_methods_supported": ["client_secret_post"]},
        {"token_endpoint_auth_methods_supported": ["private_key_jwt", "client_secret_basic"]},
        {"id_token_signing_alg_values_supported": None},
        {"userinfo_endpoint": None, "end_session_endpoint": None},
    ],
)
def test_issuers_may_differ(server: Running, issuer: Issuer, document: dict[str, Any]) -> None:
    issuer.document = document
    assert "operator" in signed_in(server)[0].text("/")
    assert issuer.faults == []


def test_a_small_token_is_completed_by_what_the_issuer_tells(server: Running, issuer: Issuer) -> None:
    issuer.in_token = {"sub"}
    assert "li.na@example.com, operator" in signed_in(server)[0].text("/")
    issuer.about = LI | {"sub": "another"}
    assert refused(signed_in(server)[1]) == INVALID
    issuer.about, issuer.in_token = LI | {"email": "boss"}, {"sub", "email"}  # whose email, and who has verified which?
    assert "has not verified your email" in refused(signed_in(server)[1])


def test_without_the_sign_in_of_an_issuer_there_is_none(tmp_path: Path) -> None:
    with running(page_settings(tmp_path)) as server:
        for path in ("/sign-in/issuer", "/sign-in/callback?code=x&state=y", "/sign-out"):
            assert Browser(server.address).get(path).status == 404
        assert "/sign-in/issuer" not in Browser(server.address).text("/sign-in")


def test_where_there_are_no_tokens_the_issuer_is_the_only_way(issuer: Issuer, tmp_path: Path) -> None:
    with serving(tmp_path, issuer.address, {"tokens": False}) as server:
        page = Browser(server.address).text("/sign-in")
        assert "/sign-in/issuer" in page
        assert "<form" not in page
        assert "operator" in signed_in(server)[0].text("/")


# The session


def test_the_cookie_has_the_name_and_no_more_of_what_the_issuer_gave(server: Running, issuer: Issuer) -> None:
    person, answer = signed_in(server)
    (cookie,) = answer.headers.get_all("set-cookie", [])
    assert re.fullmatch(r"__Host-lmmpress=[\w=.-]+; Path=/; Max-Age=\d+; Secure; HttpOnly; SameSite=Lax", cookie)
    kept = base64.urlsafe_b64decode(person.cookies[COOKIE].partition(".")[0]).decode("utf-8")
    assert "li.na@example.com" in kept
    assert list(person.cookies) == [COOKIE]
    assert not [one for one in (*issuer.given, CLIENT_SECRET, *issuer.sent.values(), OPERATORS, "0-77") if one in kept]


def test_a_changed_mapping_counts_at_once(issuer: Issuer, tmp_path: Path) -> None:
    port = free_port()
    with serving(tmp_path, issuer.address, port=port) as server:
        person, _ = signed_in(server)
        assert "operator" in person.text("/")

    def seen(**page: Any) -> Answer:
        with serving(tmp_path, issuer.address, page, port):
            return person.get("/")

    assert "li.na@example.com, viewer" in seen(groups={"staff": "viewer"}).body.decode()
    assert "li.na@example.com, administrator" in seen(users={"li.na@example.com": "administrator"}).body.decode()
    gone = seen(groups={}, users={})
    assert gone.status == 403
    assert "li.na@example.com has no role here" in words_of(gone.body.decode())
    assert "antgmm" not in gone.body.decode()
    assert "li.na@example.com, viewer" in seen(groups={}, others="viewer").body.decode()


@pytest.mark.parametrize("changed", [{"client_id": "another"}, {"name_claim": "sub"}, {"issuer": "https://x.example"}])
def test_with_another_issuer_client_or_claim_nobody_is_signed_in(
    issuer: Issuer, tmp_path: Path, changed: dict[str, str]
) -> None:
    port = free_port()
    with serving(tmp_path, issuer.address, port=port) as server:
        person, _ = signed_in(server)
        assert person.get("/").status == 200
    with serving(tmp_path, **({"issuer": issuer.address, "port": port} | changed)):  # type: ignore[arg-type]
        assert person.get("/").status == 303


def test_a_person_without_a_role_sees_nothing_and_can_sign_out(server: Running, issuer: Issuer) -> None:
    issuer.person |= {"groups": ["staff"]}
    person, answer = signed_in(server)
    assert answer.status == 303
    shown = person.get("/")
    assert "li.na@example.com has no role here" in refused(shown)
    token = re.search(r'name="form" value="([0-9a-f]{64})"', shown.body.decode())
    assert token
    assert person.post("/sign-out", {"form": token[1]}).headers["location"] == "/sign-out"
    assert person.get("/").status == 303


def test_a_session_ends_after_its_hours(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    person, _ = signed_in(server)
    later = time.time() + 13 * 3600
    monkeypatch.setattr(server.service.sign_in, "_clock", lambda: later)
    assert Browser(server.address, cookies=dict(person.cookies)).get("/").status == 303


def test_a_person_with_very_many_groups_has_a_cookie_that_browsers_take(server: Running, issuer: Issuer) -> None:
    issuer.person |= {"groups": [f"group {one}" for one in range(2000)] + [OPERATORS], "email": "𝄞" * 200}
    person, _ = signed_in(server)
    assert "operator" in person.text("/")
    assert len(COOKIE) + len(person.cookies[COOKIE]) <= 4096


def test_replicas_take_turns_in_one_sign_in(issuer: Issuer, tmp_path: Path) -> None:
    with serving(tmp_path, issuer.address) as one, serving(tmp_path / "b", issuer.address) as other:
        person = Browser(one.address)
        address = f"{one.address}/sign-in/callback"
        path = sent_back(person)
        other.service.sign_in.oidc._page = one.address  # type: ignore[union-attr]
        elsewhere = Browser(other.address, cookies=person.cookies)
        assert elsewhere.get(path).status == 303
        assert issuer.sent["redirect_uri"] == address
        assert "operator" in person.text("/")


def test_no_line_of_the_log_has_what_the_issuer_gave(server: Running, issuer: Issuer, tmp_path: Path) -> None:
    stream = io.StringIO()
    loggers = [logging.getLogger(name) for name in ("", *logs.PACKAGES)]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    try:
        logs.begin(LogForm.json, server.service.secrets, stream)
        signed_in(server)
        issuer.claims = {"aud": "another"}
        signed_in(server)
        issuer.token_answer = {"id_token": None}
        signed_in(server)
        person = Browser(server.address)
        person.get(sent_back(person) + "&code=twice")
        logging.getLogger("lmmpress.trigger").info("seen %s", CLIENT_SECRET)
    finally:
        for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
            logger.handlers[:], logger.level, logger.propagate = handlers, level, propagate
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    events = [one["event"] for one in told if one["event"] not in ("request", "seen [hidden]")]
    assert events[0] == "signed in at the issuer"
    assert {"not signed in", "issuer away"} <= set(events)
    assert any("aud" in one.get("reason", "") for one in told)
    assert not [one for one in (*issuer.given, CLIENT_SECRET, *issuer.sent.values()) if one in stream.getvalue()]


# What is refused


def other_key(claims: dict[str, Any]) -> str:
    return signed(claims, key("second"), kid="first")


def without_kid(claims: dict[str, Any]) -> str:
    return signed(claims, key("second"), kid=None)


def changed_after(claims: dict[str, Any]) -> str:
    head, _, signature = signed(claims).split(".")
    body = base64.urlsafe_b64encode(json.dumps(claims | {"email": "boss"}).encode()).rstrip(b"=").decode()
    return f"{head}.{body}.{signature}"


NOW = int(time.time())


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "0" * 64},
        {"nonce": None},
        {"iss": "https://login.example.com"},
        {"iss": None},
        {"aud": "another"},
        {"aud": None},
        {"aud": []},
        {"aud": ["another", CLIENT]},
        {"aud": ["another", CLIENT], "azp": "another"},
        {"azp": "another"},
        {"exp": NOW - 3600},
        {"exp": None},
        {"exp": "tomorrow"},
        {"iat": NOW + 3600},
        {"iat": None},
        {"nbf": NOW + 3600},
        {"sub": None},
        {"sub": ""},
        {"at_hash": "0" * 22},
    ],
    ids="-".join,  # the claims' names: times differ from one process to the next
)
def test_a_token_that_says_something_else_is_refused(server: Running, issuer: Issuer, claims: dict[str, Any]) -> None:
    issuer.claims = claims
    person, answer = signed_in(server)
    assert refused(answer) == INVALID
    assert person.get("/").status == 303


@pytest.mark.parametrize("claims", [{"aud": [CLIENT]}, {"aud": ["another", CLIENT], "azp": CLIENT}, {"at_hash": None}])
def test_a_token_may_say_it_otherwise(server: Running, issuer: Issuer, claims: dict[str, Any]) -> None:
    issuer.claims = claims
    assert signed_in(server)[1].status == 303


@pytest.mark.parametrize(
    "sign",
    [
        unsigned,
        lambda claims: unsigned(claims, "RS256"),
        lambda claims: unsigned(claims, "None"),
        signed_with_what_all_know,
        other_key,
        without_kid,
        changed_after,
        lambda claims: signed(claims, crit=["b64"], b64=False),
        lambda claims: "x",
        lambda claims: "..",
        lambda claims: "é.é.é",
        lambda claims: base64.urlsafe_b64encode(b'{"alg":["RS256"]}').decode() + ".e30.AAAA",
    ],
)
def test_a_token_that_the_issuer_has_not_signed_is_refused(server: Running, issuer: Issuer, sign: Sign) -> None:
    issuer.sign = sign
    if sign is without_kid:
        issuer.keys = [key("first").as_dict(private=False), key("third").as_dict(private=False)]
    person, answer = signed_in(server)
    assert refused(answer) == INVALID
    assert person.get("/").status == 303


@pytest.mark.parametrize("algorithm", ["HS256", "none"])
def test_an_issuer_that_offers_an_unsafe_signature_is_not_asked(
    server: Running, issuer: Issuer, algorithm: str
) -> None:
    issuer.document = {"id_token_signing_alg_values_supported": [algorithm]}
    assert refused(Browser(server.address).get("/sign-in/issuer"), 503)


def test_an_issuer_signs_with_what_it_offers(server: Running, issuer: Issuer) -> None:
    issuer.keys.append(curve_key("curve").as_dict(private=False))
    issuer.sign = lambda claims: signed(claims, curve_key("curve"))
    assert signed_in(server)[1].status == 303


def test_a_rotated_key_is_fetched_and_not_too_often(
    server: Running, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.service.sign_in.oidc is not None
    here = server.service.sign_in.oidc.issuer
    now = time.monotonic()
    monkeypatch.setattr(here, "_clock", lambda: now)
    assert signed_in(server)[1].status == 303
    issuer.sign = lambda claims: signed(claims, key("second"))
    for _ in range(3):
        assert refused(signed_in(server)[1]) == INVALID
    assert issuer.asked.count("/keys") == 1
    now += 60
    assert refused(signed_in(server)[1]) == INVALID
    assert issuer.asked.count("/keys") == 2
    issuer.keys = [key("second").as_dict(private=False)]
    now += 60
    assert signed_in(server)[1].status == 303
    assert issuer.asked.count("/keys") == 3
    issuer.sign = signed
    assert refused(signed_in(server)[1]) == INVALID, "the old key is gone"
    now += 3601
    issuer.sign = lambda claims: signed(claims, key("second"))
    asked = len(issuer.asked)
    assert signed_in(server)[1].status == 303
    assert {"/keys", "/.well-known/openid-configuration"} <= set(issuer.asked[asked:]), "both are old"


def test_keys_that_cannot_check_a_signature_are_left_out(server: Running, issuer: Issuer) -> None:
    weak = {"kty": "RSA", "kid": "weak", "n": base64.urlsafe_b64encode(b"\xc1" * 64).decode().rstrip("="), "e": "AQAB"}
    odd: list[Any] = [
        {"kty": "oct", "k": "AAAA", "kid": "first"},
        {"kty": "OKP", "crv": "none"},
        {"kty": "RSA", "kid": "first", "n": "!", "e": 3},
        {"kty": "EC", "crv": "P-1", "x": "A", "y": "A"},
        "key",
        weak,
        key("first").as_dict(private=False) | {"use": "enc", "kid": "first"},
    ]
    good = issuer.keys
    issuer.keys = odd + good
    assert signed_in(server)[1].status == 303
    issuer.keys = odd
    server.service.sign_in.oidc.issuer._clock = lambda: time.monotonic() + 7200  # type: ignore[union-attr]
    assert refused(signed_in(server)[1], 503)


@pytest.mark.parametrize(
    ("person", "said"),
    [
        ({"email_verified": False}, "has not verified your email"),
        ({"email_verified": None}, "has not verified your email"),
        ({"email_verified": "true"}, "has not verified your email"),
        ({"email": None}, "does not say who you are"),
        ({"email": ""}, "does not say who you are"),
        ({"email": ["boss"]}, "does not say who you are"),
        ({"email": "boss\n"}, "does not say who you are"),
        ({"email": " boss"}, "does not say who you are"),
        ({"email": "boss\u202e"}, "does not say who you are"),
        ({"email": "b" * 201}, "does not say who you are"),
    ],
)
def test_nobody_is_taken_for_another(server: Running, issuer: Issuer, person: dict[str, Any], said: str) -> None:
    issuer.person |= person
    assert said in refused(signed_in(server)[1])


def test_nobody_is_signed_in_by_what_another_browser_has_begun(server: Running) -> None:
    """Login CSRF: another site leads a person to a callback that somebody else has begun."""
    eve, person = Browser(server.address), Browser(server.address)
    person.get("/")
    path = sent_back(eve)
    for headers in ({}, {"sec_fetch_site": "cross-site", "referer": "https://evil.example/"}):
        assert refused(person.get(path, **headers)) == INVALID
        assert refused(Browser(server.address).get(path, **headers)) == INVALID, "nor in a new browser"
    assert person.get("/").status == 303
    assert eve.get(path).status == 303


@pytest.mark.parametrize(
    "change",
    [
        lambda sent: sent | {"state": sent["state"][:-1] + ("1" if sent["state"].endswith("0") else "0")},
        lambda sent: sent | {"state": "1" + sent["state"]},
        lambda sent: sent | {"state": ""},
        lambda sent: sent | {"state": "é.é"},
        lambda sent: {"code": sent["code"]},
        lambda sent: {"state": sent["state"]},
        lambda sent: sent | {"code": ""},
        lambda sent: sent | {"code": "x" * 5000},
        lambda sent: sent | {"code": "another"},
        lambda sent: sent | {"iss": "https://login.example.com"},
    ],
)
def test_a_callback_that_is_forged_is_refused(
    server: Running, change: Callable[[dict[str, str]], dict[str, str]]
) -> None:
    person = Browser(server.address)
    sent = query_of(server.address + sent_back(person))
    assert refused(person.get(f"{oidc.CALLBACK}?{urllib.parse.urlencode(change(sent))}")) == INVALID
    assert person.get("/").status == 303


@pytest.mark.parametrize("name", ["code", "state", "other"])
def test_a_callback_that_says_something_twice_is_refused(server: Running, name: str) -> None:
    person = Browser(server.address)
    assert refused(person.get(sent_back(person) + f"&other=1&{name}=another")) == INVALID


def test_an_issuer_that_says_who_it_is_has_to(server: Running, issuer: Issuer) -> None:
    issuer.document = {"authorization_response_iss_parameter_supported": True}
    person = Browser(server.address)
    assert refused(person.get(sent_back(person))) == INVALID
    named = "&iss=" + urllib.parse.quote(issuer.address, safe="")
    assert person.get(sent_back(person) + named).status == 303


def test_a_callback_counts_once(server: Running, issuer: Issuer) -> None:
    person = Browser(server.address)
    path = sent_back(person)
    before = dict(person.cookies)
    assert person.get(path).status == 303
    asked = issuer.asked.count("/token")
    assert refused(person.get(path)) == INVALID, "signing in has begun another session"
    assert issuer.asked.count("/token") == asked
    assert refused(Browser(server.address, cookies=before).get(path)) == INVALID, "the issuer takes no code twice"
    assert "operator" in person.text("/")


def test_a_sign_in_that_took_too_long_is_refused(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    person = Browser(server.address)
    path = sent_back(person)
    later = time.time() + 601
    monkeypatch.setattr(server.service.sign_in, "_clock", lambda: later)
    assert refused(person.get(path)) == INVALID


def test_who_is_not_signed_in_by_the_issuer_is_told(server: Running) -> None:
    person = Browser(server.address)
    state = query_of(person.get("/sign-in/issuer").headers["location"])["state"]
    for error in ("access_denied", "<script>"):
        answer = person.get(f"{oidc.CALLBACK}?{urllib.parse.urlencode({'error': error, 'state': state})}")
        assert "has not signed you in" in refused(answer)
        assert "<script>" not in answer.body.decode()


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        "/sign-in",
        "/sign-out",
        "javascript:x",
        "/蚂蚁",
        "/" + "x" * 2000,
        "/?next=//evil",
        "",
    ],
)
def test_nobody_is_led_elsewhere_after_signing_in(server: Running, path: str) -> None:
    assert signed_in(server, path)[1].headers["location"] == "/"


def test_a_path_before_the_page_stays(issuer: Issuer, tmp_path: Path) -> None:
    port = free_port()
    with serving(tmp_path, issuer.address, {"address": f"http://127.0.0.1:{port}/press"}, port) as server:
        person = Browser(server.address)
        begun = person.get("/sign-in/issuer?next=/history")
        assert query_of(begun.headers["location"])["redirect_uri"] == f"{server.address}/press/sign-in/callback"
        path = path_in(got(begun.headers["location"]).headers["location"]).removeprefix("/press")
        assert person.get(path).headers["location"] == "/press/history"


# An issuer that is away, or strange


def test_an_issuer_that_is_away_is_said_in_a_line_and_tokens_still_sign_in(tmp_path: Path) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    with serving(tmp_path, f"http://{nobody}") as server:
        person = Browser(server.address)
        said = refused(person.get("/sign-in/issuer"), 503)
        assert said == f"{nobody} does not answer as it should, so nobody can sign in there now. Try again later."
        assert "未正常响应" in refused(person.get("/sign-in/issuer", accept_language="zh-CN"), 503)
        fields = {"form": person.form_token("/sign-in"), "token": TOKENS["otto"]}
        assert person.post("/sign-in", fields).status == 303
        assert "otto, operator" in person.text("/")
        assert "/sign-in" in person.text("/sign-out"), "with no link to the issuer"


def test_an_issuer_that_comes_back_is_asked_again(issuer: Issuer, server: Running) -> None:
    here = server.service.sign_in.oidc
    assert here is not None
    issuer.answers["/.well-known/openid-configuration"] = (500, {}, b"")
    person = Browser(server.address)
    refused(person.get("/sign-in/issuer"), 503)
    del issuer.answers["/.well-known/openid-configuration"]
    refused(person.get("/sign-in/issuer"), 503)
    assert len(issuer.asked) == 1, "not at once"
    here.issuer._clock = lambda: time.monotonic() + 10
    assert signed_in(server)[1].status == 303


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://login.example.com"},
        {"issuer": None},
        {"token_endpoint": "http://login.example.com/token"},
        {"authorization_endpoint": "http://login.example.com/authorize"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"jwks_uri": "http://10.0.0.1/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"userinfo_endpoint": "http://login.example.com/about"},
        {"end_session_endpoint": "http://login.example.com/out"},
        {"token_endpoint": "https://user:password@login.example.com/token"},
        {"token_endpoint": "https://login.example.com/token#x"},
        {"token_endpoint": "https://login.example.com/a b\r\n"},
        {"token_endpoint": "https://[login/"},
        {"token_endpoint": ["https://login.example.com/token"]},
        {"token_endpoint": None},
        {"jwks_uri": None},
        {"token_endpoint_auth_methods_supported": ["private_key_jwt"]},
    ],
    ids=str,
)
def test_a_document_that_is_not_sound_is_not_taken(server: Running, issuer: Issuer, document: dict[str, Any]) -> None:
    issuer.document = document
    refused(Browser(server.address).get("/sign-in/issuer"), 503)
    assert set(issuer.asked) == {"/.well-known/openid-configuration"}


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/keys", "/token", "/about"])
@pytest.mark.parametrize(
    "answer",
    [
        (302, {"location": "/elsewhere"}, b""),
        (500, {}, b"{}"),
        (200, {}, b"<html>"),
        (200, {}, b"[]"),
        (200, {}, b"[" * 100_000),
        (200, {}, b'{"a": NaN}'),
        (200, {}, b'{"a": "' + b"x" * requests.LARGEST + b'"}'),
        (200, {"content-length": "100", "connection": "close"}, b'{"a": '),
        (200, {"content-encoding": "gzip"}, b"\x1f\x8b\x08\x00"),
    ],
)
def test_an_answer_that_is_not_sound_is_not_taken(server: Running, issuer: Issuer, path: str, answer: Any) -> None:
    issuer.in_token = {"sub"}
    issuer.answers = {path: answer, "/elsewhere": (200, {}, b"{}")}
    person = Browser(server.address)
    begun = person.get("/sign-in/issuer")
    if path != "/.well-known/openid-configuration":
        begun = person.get(path_in(got(begun.headers["location"]).headers["location"]))
    refused(begun, 503)
    assert "/elsewhere" not in issuer.asked
    assert person.get("/").status == 303


def test_an_issuer_that_does_not_take_the_client_is_a_fault_of_the_settings(issuer: Issuer, tmp_path: Path) -> None:
    with serving(tmp_path, issuer.address) as server:
        (tmp_path / "client").write_text("another-secret-of-the-client", "utf-8")
        assert "does not answer as it should" in refused(signed_in(server)[1], 503)
        (tmp_path / "client").write_text(CLIENT_SECRET + "\n", "utf-8")
        assert signed_in(server)[1].status == 303, "a file that changes is read again"


def test_an_issuer_that_hangs_takes_no_more_than_a_part_of_the_threads(server: Running, issuer: Issuer) -> None:
    issuer.holds = threading.Event()
    waiting = [threading.Thread(target=Browser(server.address).get, args=("/sign-in/issuer",)) for _ in range(16)]
    for thread in waiting:
        thread.start()
    here = server.service.sign_in.oidc
    assert here is not None
    while here.issuer._free._value:
        time.sleep(0.01)
    person = Browser(server.address)
    refused(person.get("/sign-in/issuer"), 503)
    fields = {"form": person.form_token("/sign-in"), "token": TOKENS["otto"]}
    assert person.post("/sign-in", fields).status == 303
    assert all(thread.is_alive() for thread in waiting), "all that while they wait"
    issuer.holds.set()
    for thread in waiting:
        thread.join(60)


def test_an_answer_that_never_ends_is_given_up(
    server: Running, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "_WHOLE", -1.0)
    refused(Browser(server.address).get("/sign-in/issuer"), 503)


# Checked before


def test_the_check_says_whether_the_issuer_answers_and_is_the_one(issuer: Issuer, tmp_path: Path) -> None:
    page = settings_with(tmp_path, issuer.address, 8080).server.page

    def said() -> list[tuple[str, str]]:
        return [(one.status, one.said) for one in check_issuer(page)]

    assert said() == [("ok", f"{issuer.address} answers; 1 of its keys can check signatures")]
    issuer.document = {"scopes_supported": ["openid", "profile"]}
    assert said()[1:] == [("warning", f"{issuer.address} does not list the scope email")]
    issuer.document = {"issuer": "https://login.example.com/\u202e"}
    where = f"{issuer.address}/.well-known/openid-configuration"
    named = f"names the issuer https://login.example.com/, and not {issuer.address}, which the settings name"
    assert said() == [("failed", f"{where}: {named}")]
    issuer.document, issuer.keys = {}, []
    assert said() == [("failed", f"{issuer.address}/keys: holds no key that can check a signature")]
    (tmp_path / "client").write_text("", "utf-8")
    assert said() == [("failed", f"{tmp_path / 'client'}: there is no secret")]


def test_the_check_of_an_issuer_that_is_away_fails_in_a_line(tmp_path: Path) -> None:
    port = free_port()
    (found,) = check_issuer(settings_with(tmp_path, f"http://127.0.0.1:{port}", 8080).server.page)
    assert found.status == "failed"
    assert found.said.startswith(f"http://127.0.0.1:{port}/.well-known/openid-configuration: no answer: ")
