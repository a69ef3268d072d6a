"""The page for people: who may look and act, what is refused, and what the owner of a model sees."""

import re
import string
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from support.trigger_page import (
    NOW,
    PLAN,
    PROXY,
    VIEWERS,
    Browser,
    Lineage,
    Pointing,
    Registered,
    begin_in_folder,
    begin_on_kubeflow,
    claimed,
    on_kubeflow,
    page_settings,
    without_comparison,
    words_of,
)
from support.trigger_server import TOKENS, Running, running, until

from lmmpress.reporting import charts
from lmmpress.store import open_store
from lmmpress.store.kinds import CLAIMS
from lmmpress.tasks.approval import approval_of
from lmmpress.trigger.acts import recorded
from lmmpress.trigger.claims import State
from lmmpress.trigger.made_from import Made
from lmmpress.trigger.question import model_key
from lmmpress.trigger.registry import Version
from lmmpress.trigger.server import owner_view
from lmmpress.trigger.server.texts import Speech, all_texts, page_texts, preferred
from lmmpress.trigger.texts import LANGUAGES, core_texts

HOSTILE = "<script>alert('x')</script> \"&' \u202e\x07"
AS_VIEWER = PROXY | {"X-Auth-Request-Groups": VIEWERS}
AS_ADMINISTRATOR = {"X-Auth-Request-User": "ada", "X-Auth-Request-Groups": "press-administrators"}


def registered(**newest: int) -> Registered:
    return Registered({"antgmm": (5, timedelta(days=12, hours=3))} | {m: (n, timedelta(1)) for m, n in newest.items()})


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server for tests that leave nothing behind that others would see."""
    lineage = Lineage()
    settings = page_settings(tmp_path_factory.mktemp("shared"))
    with running(settings, registered(), made_from=lineage, aliases=Pointing(lineage)) as found:
        yield found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    lineage = Lineage()
    with running(page_settings(tmp_path), registered(), made_from=lineage, aliases=Pointing(lineage)) as found:
        yield found


def operator(server: Running) -> Browser:
    return Browser(server.address, dict(PROXY))


def viewer(server: Running) -> Browser:
    return Browser(server.address, dict(AS_VIEWER))


def acts_of(server: Running) -> list[Any]:
    return list(recorded(server.service.trigger.objects))


# Signing in


PAGES = ["/", "/models/antgmm", "/history", "/runs/0-0", "/runs/0-0/report", "/acts"]
FORMS = [
    "/models/antgmm/fire",
    "/models/antgmm/promote",
    "/models/antgmm/roll-back",
    "/runs/0-0/cancel",
    "/runs/0-0/retry",
    "/runs/0-0/approve",
]


@pytest.mark.parametrize("path", PAGES)
def test_whom_nobody_has_signed_in_is_asked_to_sign_in(shared: Running, path: str) -> None:
    answer = Browser(shared.address).get(path)
    assert (answer.status, answer.headers["location"]) == (303, f"/sign-in?next={path.replace('/', '%2F')}")


@pytest.mark.parametrize("path", FORMS)
def test_whom_nobody_has_signed_in_cannot_act(shared: Running, path: str) -> None:
    stranger = Browser(shared.address)
    token = stranger.form_token("/sign-in")
    assert stranger.post(path, {"form": token, "why": "x"}).status == 401
    assert acts_of(shared) == []


def test_a_proxys_headers_from_any_other_address_count_for_nothing(tmp_path: Path) -> None:
    with running(page_settings(tmp_path, trusted_proxies=["10.0.0.0/8", "::1/128"]), registered()) as server:
        assert operator(server).get("/").status == 303
        forwarded = {"X-Forwarded-For": "10.0.0.1", "Forwarded": "for=10.0.0.1", "X-Real-Ip": "10.0.0.1"}
        assert Browser(server.address, PROXY | forwarded).get("/").status == 303


def test_without_tokens_who_comes_past_the_proxy_is_told_so(tmp_path: Path) -> None:
    with running(page_settings(tmp_path, tokens=False), registered()) as server:
        for path in ("/", "/sign-in"):
            answer = Browser(server.address).get(path)
            assert answer.status == 401
            assert "Come by the address" in words_of(answer.body.decode())


@pytest.mark.parametrize(
    ("user", "groups", "role"),
    [
        ("li", "press-viewers", "viewer"),
        ("li", "press-viewers, press-operators", "operator"),
        ("li", "press-administrators,press-viewers", "administrator"),
        ("蚂蚁", "press-viewers", "viewer"),
        ("boss", "", "administrator"),
    ],
)
def test_the_largest_role_of_a_person_and_of_the_groups_counts(
    shared: Running, user: str, groups: str, role: str
) -> None:
    sent = {"X-Auth-Request-User": user.encode().decode("latin-1"), "X-Auth-Request-Groups": groups}
    assert f"{user}, {role}" in Browser(shared.address, sent).text("/")


def test_a_person_without_a_role_sees_nothing(shared: Running) -> None:
    answer = Browser(shared.address, {"X-Auth-Request-User": "li", "X-Auth-Request-Groups": "staff"}).get("/")
    assert answer.status == 403
    assert "li has no role here" in words_of(answer.body.decode())
    assert "antgmm" not in answer.body.decode()


def test_others_may_have_a_role_and_headers_other_names(tmp_path: Path) -> None:
    with running(page_settings(tmp_path, others="viewer", user_header="kubeflow-userid"), registered()) as server:
        assert "li, viewer" in Browser(server.address, {"Kubeflow-Userid": "li"}).text("/")
        assert operator(server).get("/").status == 303


def test_a_token_signs_in_until_the_session_ends(shared: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    person = Browser(shared.address)
    fields = {"form": person.form_token("/sign-in"), "token": TOKENS["otto"], "next": "/models/antgmm"}
    answer = person.post("/sign-in", fields)
    assert (answer.status, answer.headers["location"]) == (303, "/models/antgmm")
    assert "otto, operator" in person.text("/")
    assert TOKENS["otto"] not in str(person.cookies)
    later = time.time() + 13 * 3600
    with monkeypatch.context() as clock:
        clock.setattr(shared.service.sign_in, "_clock", lambda: later)
        assert Browser(shared.address, cookies=dict(person.cookies)).get("/").status == 303
    kept = dict(person.cookies)
    assert person.post("/sign-out", {"form": person.form_token()}).status == 303
    assert person.cookies != kept
    assert person.get("/").status == 303


def test_a_token_that_is_replaced_ends_the_sessions_that_it_began(tmp_path: Path) -> None:
    with running(page_settings(tmp_path), registered()) as server:
        person = Browser(server.address)
        person.post("/sign-in", {"form": person.form_token("/sign-in"), "token": TOKENS["otto"]})
        assert person.get("/").status == 200
        (tmp_path / "otto").write_text("another-" + "o" * 40, "utf-8")
        assert person.get("/").status == 303


@pytest.mark.parametrize("token", ["", "wrong", "x" * 40, TOKENS["otto"] + "o", "é"])
def test_a_wrong_token_is_refused(shared: Running, token: str) -> None:
    person = Browser(shared.address)
    answer = person.post("/sign-in", {"form": person.form_token("/sign-in"), "token": token})
    assert answer.status == 403
    assert "This token is not valid." in words_of(answer.body.decode())
    assert person.get("/").status == 303


def test_a_stranger_cannot_send_a_form_of_any_size(shared: Running) -> None:
    person = Browser(shared.address)
    answer = person.post("/sign-in", {"form": person.form_token("/sign-in"), "token": "x" * 20_000})
    assert answer.status == 413
    assert "the body has more than 16384 bytes" in words_of(answer.body.decode())


@pytest.mark.parametrize("path", ["//evil.example", "https://evil.example", "/\\evil", "/sign-in", "javascript:x"])
def test_nobody_is_led_elsewhere_after_signing_in(shared: Running, path: str) -> None:
    person = Browser(shared.address)
    fields = {"form": person.form_token("/sign-in"), "token": TOKENS["vera"], "next": path}
    assert person.post("/sign-in", fields).headers["location"] == "/"


def test_cookies_are_signed_and_for_this_host_and_http_alone(shared: Running) -> None:
    person = operator(shared)
    (cookie,) = person.get("/").headers.get_all("set-cookie", [])
    assert re.fullmatch(
        r"__Host-lmmpress=[\w=-]+\.[0-9a-f]{64}; Path=/; Max-Age=\d+; Secure; HttpOnly; SameSite=Lax", cookie
    )
    value = person.cookies["__Host-lmmpress"]
    for forged in (
        value[:-1] + ("1" if value.endswith("0") else "0"),
        value.replace(".", "x."),
        ".",
        "a.b",
        value.split(".")[0] + ".",
        "é.é",
    ):
        person.cookies["__Host-lmmpress"] = forged
        assert person.get("/").headers.get_all("set-cookie", []), forged


def test_sessions_of_replicas_with_one_secret_are_one(tmp_path: Path) -> None:
    (tmp_path / "session").write_text("s" * 40, "utf-8")
    settings = page_settings(tmp_path, session_secret={"file": str(tmp_path / "session")})
    with running(settings, registered()) as one, running(settings, registered()) as other:
        person = Browser(one.address)
        person.post("/sign-in", {"form": person.form_token("/sign-in"), "token": TOKENS["vera"]})
        assert "vera" in Browser(other.address, cookies=person.cookies).text("/")
        assert "s" * 40 in one.service.secrets()


# Acting


@pytest.mark.parametrize("path", FORMS)
def test_a_viewer_has_no_button_and_cannot_act(shared: Running, path: str) -> None:
    person = viewer(shared)
    assert "<form" not in person.text("/")
    assert "<form" not in person.text("/models/antgmm")
    answer = person.post(path, {"form": "0" * 64, "why": "x"})
    assert answer.status == 403
    assert "You are viewer; this takes the role operator." in words_of(answer.body.decode())
    assert acts_of(shared) == []


@pytest.mark.parametrize("headers", [PROXY, AS_VIEWER])
def test_only_an_administrator_sees_who_did_what(shared: Running, headers: dict[str, str]) -> None:
    person = Browser(shared.address, dict(headers))
    assert "/acts" not in person.text("/")
    assert person.get("/acts").status == 403
    assert "Nobody did anything" in Browser(shared.address, AS_ADMINISTRATOR).text("/acts?day=2020-01-01")


@pytest.mark.parametrize("path", FORMS)
def test_a_form_without_its_token_is_refused(shared: Running, path: str) -> None:
    person, other = operator(shared), Browser(shared.address, PROXY | {"X-Auth-Request-User": "eve"})
    person.get("/")
    of_another = other.form_token("/")
    for fields in ({}, {"form": ""}, {"form": "0" * 64}, {"form": of_another}, {"form": "é"}):
        assert person.post(path, {"why": "x", **fields}).status == 403
    token = person.form_token("/")
    assert Browser(shared.address, dict(PROXY)).post(path, {"form": token, "why": "x"}).status == 403
    other.cookies = person.cookies  # the same browser, and another person before it
    assert other.post(path, {"form": token, "why": "x"}).status == 403
    assert acts_of(shared) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://["},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "none"},
    ],
)
def test_a_form_of_another_site_is_refused(shared: Running, headers: dict[str, str]) -> None:
    person = operator(shared)
    answer = person.post("/models/antgmm/fire", {"form": person.form_token("/")}, **headers)
    assert answer.status == 403
    assert "The form was not sent by this page." in words_of(answer.body.decode())
    assert acts_of(shared) == []


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "multipart/form-data; boundary=x", ""])
def test_only_forms_are_taken(shared: Running, kind: str) -> None:
    person = operator(shared)
    token = person.form_token("/")
    assert person.post("/models/antgmm/fire", {"form": token}, content_type=kind or "none").status == 415


def test_behind_a_proxy_the_origin_is_that_of_the_address(tmp_path: Path) -> None:
    settings = page_settings(tmp_path, address="https://press.example.com/lmmpress/")
    with running(settings, registered(), made_from=Lineage()) as server:
        person = operator(server)
        page = person.text("/")
        assert 'href="/lmmpress/models/antgmm"' in page
        token = person.form_token("/")
        assert person.post("/models/antgmm/fire", {"form": token}).status == 403
        answer = person.post("/models/antgmm/fire", {"form": token}, origin="https://press.example.com")
        assert answer.status == 303
        assert answer.headers["location"].startswith("/lmmpress/runs/")
        assert answer.headers["strict-transport-security"]


def test_an_operator_has_a_version_compressed_and_finds_the_same_run_again(server: Running) -> None:
    person = operator(server)
    token = person.form_token("/")
    fields = {"form": token, "plan": "small", "why": "new titles"}
    answer = person.post("/models/antgmm/fire", fields)
    assert answer.status == 303
    assert answer.headers["location"].endswith("?done=fired")
    page = words_of(person.text(answer.headers["location"]))
    assert "The run is claimed" in page
    assert "li.na@example.com, this page" in page
    assert "new titles" in page
    assert person.post("/models/antgmm/fire", fields).headers["location"].endswith("?done=found")
    (claim,) = server.service.claims(None)
    assert (claim.by, claim.cause, claim.question.plan_name) == ("li.na@example.com", "page", "small")


def test_an_operator_cancels_and_retries_with_a_reason(server: Running) -> None:
    person = operator(server)
    key = person.post("/models/antgmm/fire", {"form": person.form_token("/")}).headers["location"].split("/")[2]
    key = key.partition("?")[0]
    until(lambda: server.runs.phases)
    token = person.form_token(f"/runs/{key}")
    for why in ({}, {"why": " "}, {"why": "x" * 1001}):
        assert person.post(f"/runs/{key}/cancel", {"form": token, **why}).status == 422
    assert person.post(f"/runs/{key}/retry", {"form": token, "why": "x"}).status == 409
    assert person.post(f"/runs/{key}/cancel", {"form": token, "why": "错误的数据"}).status == 303

    def cancelled() -> bool:
        server.service.carry_on_soon(key)
        return server.service.claim(key).state is State.cancelled

    until(cancelled)
    page = person.text(f"/runs/{key}")
    assert "错误的数据" in page
    assert person.post(f"/runs/{key}/retry", {"form": token, "why": "right rows"}).status == 303
    assert server.service.claim(key).attempt == 2
    acts = [(act.by, act.role, act.what, act.why) for act in acts_of(server)]
    assert acts == [
        ("li.na@example.com", "operator", "fire", ""),
        ("li.na@example.com", "operator", "retry", "x"),
        ("li.na@example.com", "operator", "cancel", "错误的数据"),
        ("li.na@example.com", "operator", "retry", "right rows"),
    ]
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    seen = words_of(Browser(server.address, AS_ADMINISTRATOR).text(f"/acts?day={day}"))
    assert all(word in seen for word in ("re-compress", "错误的数据", "right rows"))


def test_what_the_policy_does_not_allow_is_said(server: Running) -> None:
    claimed(server.service.trigger, "antgmm", "4", State.running, began=NOW)
    person = operator(server)
    assert "one at a time" in words_of(person.text("/"))
    fields = {"form": person.form_token(f"/runs/{run_of(server)}")}
    answer = person.post("/models/antgmm/fire", fields)
    assert answer.status == 409
    assert "one run at a time: version 4 is running as lmmpress-antgmm-4-" in words_of(answer.body.decode())
    in_chinese = person.post("/models/antgmm/fire", fields, accept_language="zh-CN")
    said = words_of(in_chinese.body.decode())
    assert re.search("同一模型一次只运行一个：版本 4 的运行 lmmpress-antgmm-4-[0-9a-z-]+ 尚未结束（运行中）。", said)


def test_an_approval_lets_a_pipeline_go_on(tmp_path: Path) -> None:
    plan = PLAN | {"store": str(tmp_path / "pipeline"), "pipeline": {"approve": ["block"]}}
    settings = on_kubeflow(page_settings(tmp_path), tmp_path, "antgmm", plan)
    with running(settings, registered(), made_from=Lineage()) as server:
        trigger = server.service.trigger
        claim = claimed(trigger, "antgmm", "5", State.running, began=NOW)
        begin_on_kubeflow(trigger, claim, "aar")
        person, looks = operator(server), viewer(server)
        assert "waits for your approval" in words_of(person.text("/"))
        page = person.text(f"/runs/{claim.key}")
        assert "Stage block has ended. The run goes on once you approve." in words_of(page)
        assert "An operator can approve it." in words_of(looks.text(f"/runs/{claim.key}"))
        token = person.form_token(f"/runs/{claim.key}")
        assert person.post(f"/runs/{claim.key}/approve", {"form": token, "stage": "ffn"}).status == 409
        answer = person.post(f"/runs/{claim.key}/approve", {"form": token, "stage": "block", "why": "looks good"})
        assert answer.status == 303
        given = approval_of(open_store(str(tmp_path / "pipeline")), "d" * 64, "block")
        assert given is not None
        assert given.by == "li.na@example.com"
        assert "waits for your approval" not in words_of(person.text(f"/runs/{claim.key}"))
        _, act = acts_of(server)
        assert (act.what, act.claim, act.why) == ("approve", claim.key, "looks good")
        assert act.outcome == "stage block is approved by li.na@example.com"


def test_an_operator_puts_a_version_into_service_and_takes_it_back(tmp_path: Path) -> None:
    lineage = Lineage(
        {
            ("antgmm-compressed", "serving"): Made("3", NOW, "3"),
            ("antgmm-compressed", "compressed"): Made("5", NOW, "5"),
        }
    )
    settings = without_comparison(page_settings(tmp_path))
    with running(settings, registered(), made_from=lineage, aliases=Pointing(lineage)) as server:
        person, looks = operator(server), viewer(server)
        assert "may be put into service by an operator" in words_of(looks.text("/models/antgmm"))
        assert looks.post("/models/antgmm/promote", {"form": "0" * 64, "version": "5", "why": "x"}).status == 403
        token = person.form_token("/models/antgmm")
        fields = {"form": token, "version": "5", "seen": "3", "why": "better"}
        assert person.post("/models/antgmm/promote", fields | {"why": ""}).status == 422
        assert person.post("/models/antgmm/promote", fields | {"form": ""}).status == 403
        assert person.post("/models/none/promote", fields).status == 404
        old = person.post("/models/antgmm/promote", fields | {"seen": "2"})
        assert old.status == 409, "another version is in service than the person has seen"
        answer = person.post("/models/antgmm/promote", fields)
        assert (answer.status, answer.headers["location"]) == (303, "/models/antgmm?done=promoted")
        page = words_of(person.text("/models/antgmm"))
        assert "The model in service is up to date" in page
        assert "put there by li.na@example.com. Reason: better" in page
        answer = person.post("/models/antgmm/roll-back", {"form": token, "seen": "5", "why": "slow"})
        assert answer.headers["location"] == "/models/antgmm?done=rolled_back"
        assert lineage("antgmm-compressed", "serving") == Made("3", NOW, "3")
        acts = [(act.by, act.what, act.why) for act in acts_of(server)]
        assert acts[-2:] == [
            ("li.na@example.com", "promote", "better"),
            ("li.na@example.com", "roll back", "slow"),
        ]


def test_what_keeps_a_version_from_service_is_said(tmp_path: Path) -> None:
    lineage = Lineage({("antgmm-compressed", "compressed"): Made("5", NOW, "5")})
    with running(page_settings(tmp_path), registered(), made_from=lineage, aliases=Pointing(lineage)) as server:
        person = operator(server)
        said = words_of(person.text("/models/antgmm"))
        assert "cannot be put into service yet: the original aaaaaaaaaaaa" in said
        in_chinese = words_of(person.text("/models/antgmm", accept_language="zh-CN"))
        assert (
            "压缩版本 5 尚不能上线： 须先将原模型 aaaaaaaaaaaa 与该压缩版本 cccccccccccc 进行对比：执行" in in_chinese
        )
        fields = {"form": person.form_token("/models/antgmm"), "version": "5", "seen": "", "why": "better"}
        assert person.post("/models/antgmm/promote", fields).status == 409
        again = person.post("/models/antgmm/promote", fields | {"seen": "4"}, accept_language="zh-CN")
        said = words_of(again.body.decode())
        assert "您查看时 antgmm-compressed 的别名 serving 指向版本 4，而现在未指向任何版本；未做任何改动。" in said


def in_service(compressed: str) -> Lineage:
    """Version 5 is in service; the newest compressed version is that."""
    names = {"serving": Made("5", NOW, "5"), "compressed": Made(compressed, NOW, compressed)}
    return Lineage({("antgmm-compressed", alias): made for alias, made in names.items()})


@pytest.mark.parametrize(("newest", "offered"), [("5", ["3"]), ("6", ["3", "6"])])
def test_what_waits_for_a_second_person_is_shown_and_confirmed_whatever_is_newest(
    tmp_path: Path, newest: str, offered: list[str]
) -> None:
    lineage = in_service(newest)
    settings = without_comparison(page_settings(tmp_path))
    watched = settings.models["antgmm"]
    rule = watched.promotion.model_copy(update={"second_person": True})
    settings = settings.model_copy(update={"models": {"antgmm": watched.model_copy(update={"promotion": rule})}})
    with running(settings, registered(), made_from=lineage, aliases=Pointing(lineage)) as server:
        asked = {"version": "3", "seen": "5", "why": "the older one"}
        assert server.ask("POST", "/api/v1/models/antgmm/promote", "otto", asked).status == 200
        person = operator(server)
        said = words_of(person.text("/models/antgmm"))
        assert "otto has asked to put compressed version 3 into service; a second person has to confirm it." in said
        assert re.findall(r"Put compressed version (\d) into service", said) == offered
        fields = {"form": person.form_token("/models/antgmm"), "version": "3", "seen": "5", "why": "yes"}
        assert person.post("/models/antgmm/promote", fields).headers["location"] == "/models/antgmm?done=promoted"
        assert "put there by otto and li.na@example.com" in words_of(person.text("/models/antgmm"))


def test_a_page_reads_each_thing_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    class Counting(Pointing):
        def version_at(self, model: str, alias: str) -> str | None:
            asked.append(("alias", alias))
            return super().version_at(model, alias)

        def about(self, model: str, version: str) -> Any:
            asked.append(("version", version))
            return super().about(model, version)

    lineage = in_service("6")
    with running(page_settings(tmp_path), registered(), made_from=lineage, aliases=Counting(lineage)) as server:
        objects = server.service.trigger.objects
        read, entries = objects.read, objects.entries

        def reading(name: str) -> Any:
            asked.append(("object", name))
            return read(name)

        def listing(prefix: str) -> Any:
            asked.append(("list", prefix))
            return entries(prefix)

        monkeypatch.setattr(objects, "read", reading)
        monkeypatch.setattr(objects, "entries", listing)
        operator(server).text("/models/antgmm")
    of_promotion = [one for one in asked if one[0] in ("alias", "version") or one[1].startswith(("serv", "compar"))]
    assert sorted(name for name, _ in of_promotion) == ["alias", "list", "object", "version"], of_promotion


def test_what_a_refusal_quotes_is_shown_and_does_nothing(shared: Running) -> None:
    person = operator(shared)
    fields = {"form": person.form_token("/models/antgmm"), "version": HOSTILE, "seen": HOSTILE, "why": "x"}
    for language in LANGUAGES:
        page = person.post("/models/antgmm/promote", fields, accept_language=language).body.decode()
        assert "&lt;script&gt;" in page
        assert "<script>alert" not in page
        assert not {"\u202e", "\x07"} & set(page)


# What the owner sees


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({}, "No compressed model is in service Nothing has been compressed yet."),
        ({"compressed": "4"}, "Compressed version 4, made from version 4, is ready."),
        (
            {"serving": "5"},
            "The model in service is up to date It was compressed from version 5, and no later version is released.",
        ),
        (
            {"serving": "4"},
            "The model in service is out of date It was compressed from version 4. Version 5 has been there "
            "for 12 days.",
        ),
        ({"serving": "2"}, "It was compressed from version 2, 3 versions ago."),
        ({"serving": None}, "The origin of the model in service is unknown"),
        ({"serving": "4", "compressed": "5"}, "Compressed version 5 was made from version 5."),
    ],
)
def test_the_first_thing_is_how_old_the_model_in_service_is(
    tmp_path: Path, made: dict[str, str | None], said: str
) -> None:
    lineage = Lineage(
        {("antgmm-compressed", alias): Made(source or "9", NOW, source) for alias, source in made.items()}
    )
    with running(page_settings(tmp_path), registered(), made_from=lineage) as server:
        page = viewer(server).text("/")
        assert said in words_of(page)
        assert page.index("<h1") < page.index("<h2")


def test_where_the_alias_names_nothing_the_newest_version_is_what_counts(tmp_path: Path) -> None:
    class Unnamed(Registered):
        def look_up(self, model: str, alias: str | None) -> Version | None:
            return None if alias else super().look_up(model, alias)

    lineage = Lineage({("antgmm-compressed", "serving"): Made("9", NOW, "4")})
    with running(page_settings(tmp_path), Unnamed(registered().newest), made_from=lineage) as server:
        assert "The model in service is out of date" in words_of(viewer(server).text("/"))


@pytest.mark.parametrize("tag", [{"original": "4" * 64}, {"run_key": "c" * 64}])
def test_the_claims_say_from_which_version_the_one_in_service_was_made(tmp_path: Path, tag: dict[str, str]) -> None:
    lineage = Lineage({("antgmm-compressed", "serving"): Made("1", NOW, **tag)})
    with running(page_settings(tmp_path), registered(), made_from=lineage) as server:
        trigger = server.service.trigger
        claim = claimed(trigger, "antgmm", "4", State.succeeded, began=NOW - timedelta(days=9))
        claimed(trigger, "antgmm", "3", State.failed, began=NOW - timedelta(days=19))
        begin_in_folder(trigger, claim, "aar", ended=True)
        assert "It was compressed from version 4." in words_of(viewer(server).text("/"))


def test_a_registry_that_is_away_is_said_and_the_rest_is_shown(tmp_path: Path) -> None:
    with running(page_settings(tmp_path), made_from=Lineage()) as server:
        server.versions.fault = "MLflow does not answer"
        assert "It said: MLflow does not answer" in words_of(viewer(server).text("/"))


def run_of(server: Running) -> str:
    return server.service.claims(None)[0].key


def test_earlier_runs_tell_what_the_next_one_takes(server: Running) -> None:
    assert "no run has succeeded yet, so the time is unknown" in words_of(viewer(server).text("/"))
    trigger = server.service.trigger
    claim = claimed(trigger, "antgmm", "4", State.succeeded, began=NOW - timedelta(days=9))
    begin_in_folder(trigger, claim, "aar", ended=True)
    server_view = words_of(viewer(server).text("/models/antgmm"))
    assert "about 13 h 59 min, 2.5 GPU hours (by 1 earlier run)" in server_view


def test_a_run_shows_its_stages_and_its_accuracy_against_alpha(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner_view, "_FRESH", 0.0)
    trigger = server.service.trigger
    claim = claimed(trigger, "antgmm", "5", State.running, began=NOW)
    person = viewer(server)
    assert "The run has begun and has decided no step yet." in words_of(person.text(f"/runs/{claim.key}"))
    begin_in_folder(trigger, claim, "aara")
    page = person.text(f"/runs/{claim.key}")
    said = words_of(page)
    assert "Stage ffn: 1 of at most 4 steps are decided." in said
    assert "ended after 3 of at most 6 steps" in said
    assert "to come, at most 4 steps" in said
    assert "a loss of 2.0 points ends a stage" in said.lower()
    assert 'class="line alpha"' in page
    assert "data-follow" in page


def test_a_run_that_has_succeeded_has_its_report_with_its_own_style_alone(server: Running) -> None:
    trigger = server.service.trigger
    claim = claimed(trigger, "antgmm", "5", State.succeeded, began=NOW - timedelta(days=1))
    person = viewer(server)
    assert person.get(f"/runs/{claim.key}/report").status == 404
    begin_in_folder(trigger, claim, "aarar", ended=True)
    assert "Open the report" in person.text(f"/runs/{claim.key}")
    answer = person.get(f"/runs/{claim.key}/report")
    assert "Original and compressed" in answer.body.decode()
    policy = answer.headers["content-security-policy"]
    assert re.search(r"default-src 'none'; style-src 'sha256-[^']+'; .*sandbox", policy)
    assert "unsafe" not in policy


def test_a_run_whose_store_cannot_be_read_is_shown_without_its_progress(tmp_path: Path) -> None:
    settings = on_kubeflow(page_settings(tmp_path), tmp_path, "antgmm", PLAN | {"store": str(tmp_path / "none")})
    with running(settings, registered(), made_from=Lineage()) as server:
        claim = claimed(server.service.trigger, "antgmm", "5", State.failed, began=NOW, note="no node had a GPU")
        said = words_of(viewer(server).text(f"/runs/{claim.key}"))
        assert "Its progress cannot be read now: this machine has no such directory" in said
        assert "It said: no node had a GPU" in said


def test_texts_of_strangers_are_shown_and_do_nothing(tmp_path: Path) -> None:
    name = "a <b>bold</b> model"
    settings = page_settings(tmp_path, (name,))
    made = {(f"{name}-compressed", "serving"): Made("<i>1</i>", NOW, "1")}
    with running(settings, registered(**{name: 3}), made_from=Lineage(made)) as server:
        trigger = server.service.trigger
        claim = claimed(trigger, name, "3", State.failed, began=NOW, why=HOSTILE, by=HOSTILE, note=HOSTILE)
        person = Browser(server.address, {"X-Auth-Request-User": "<u>li</u>", "X-Auth-Request-Groups": VIEWERS})
        path = "/models/a%20%3Cb%3Ebold%3C%2Fb%3E%20model"
        for page in (person.text("/"), person.text("/history"), person.text(f"/runs/{claim.key}")):
            assert "<b>bold" not in page
            assert "<u>li" not in page
            assert "<i>1" not in page
            assert "alert(&#39;x" in page or "alert" not in page
            assert "\u202e" not in page
        assert "bold" in person.text("/")
        assert person.get(path).status in (200, 404)


@pytest.mark.parametrize(
    "path", ["/none", "/models/none", "/runs/none", "/runs/..%2f..", "/static/none", "/static/..%2fbase.html"]
)
def test_what_is_not_there_is_said(shared: Running, path: str) -> None:
    answer = viewer(shared).get(path)
    assert answer.status == 404


def test_a_fault_of_the_server_is_said_without_its_details(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: str | None = None) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(server.service, "claims", broken)
    answer = viewer(server).get("/")
    assert answer.status == 500
    assert "secret" not in answer.body.decode()
    assert str(answer.headers["X-Request-Id"]) in answer.body.decode()


# Headers, languages, texts


@pytest.mark.parametrize("path", ["/", "/history", "/sign-in", "/models/none", "/static/page.css", "/static/live.js"])
def test_every_page_tells_the_browser_to_load_nothing_from_elsewhere(shared: Running, path: str) -> None:
    answer = viewer(shared).get(path)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self';")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"


def test_pages_have_no_script_and_no_style_in_them(shared: Running) -> None:
    for path in ("/", "/history", "/models/antgmm"):
        page = operator(shared).text(path)
        assert re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", page) is None
        assert re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL) == [""]
        loaded = re.findall(r'<(?:link|script|img)[^>]*(?:href|src)="([^"]*)"', page)
        assert all(one.startswith("/static/") for one in loaded)


def test_files_are_kept_by_browsers_under_an_address_of_their_content(shared: Running) -> None:
    person = viewer(shared)
    (path,) = re.findall(r'href="(/static/page\.css\?v=[0-9a-f]{12})"', person.text("/"))
    assert "immutable" in person.get(path).headers["cache-control"]


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-GB,en;q=0.9,zh;q=0.8", "en"),
        ("fr,zh;q=0.5,en;q=0.4", "zh"),
        ("de", "en"),
        ("zh;q=0,en;q=0.1", "en"),
        ("*;;;q=x, zh", "zh"),
        ("z" * 10_000, "en"),
    ],
)
def test_the_browsers_language_is_taken(header: str, language: str) -> None:
    assert preferred(header) == language


def test_a_link_changes_the_language_for_good(shared: Running) -> None:
    person = viewer(shared)
    page = person.text("/", accept_language="en")
    assert '<html lang="en">' in page
    assert 'href="/?lang=zh" lang="zh-Hans"' in page
    chosen = person.get("/?lang=zh", accept_language="en")
    assert "尚无压缩模型上线" in chosen.body.decode()
    assert chosen.headers["content-language"] == "zh-Hans"
    assert '<html lang="zh-Hans">' in person.text("/history", accept_language="en")
    assert '<html lang="zh-Hans">' in person.text("/history?lang=fr", accept_language="en")


def test_every_text_is_there_in_both_languages_with_the_same_fields() -> None:
    assert core_texts().keys() & page_texts().keys() == set()
    for key, texts in all_texts().items():
        assert tuple(texts) == LANGUAGES, key
        assert all(isinstance(text, str) and text.strip() for text in texts.values()), key
        fields = [
            sorted(name for _, name, _, _ in string.Formatter().parse(text) if name is not None)
            for text in texts.values()
        ]
        assert fields[0] == fields[1], key


def test_the_templates_use_every_text_and_no_other() -> None:
    root = files("lmmpress.trigger.server")
    sources = [one.read_text("utf-8") for one in root.joinpath("pages").iterdir() if one.name.endswith(".html")]
    sources += [root.joinpath(name).read_text("utf-8") for name in ("page.py", "page_frame.py", "texts.py")]
    whole = set(re.findall(r'"([a-z_A-Z.]+)"', " ".join(sources))) | {"fault.expired", "fault.elsewhere"}
    begins = {one for one in whole if one.endswith(".")}
    known = {re.sub(r"\.(one|many)$", "", key) for key in all_texts()}
    of_the_page = {re.sub(r"\.(one|many)$", "", key) for key in page_texts()}
    unused = {key for key in of_the_page if key not in whole and not any(key.startswith(one) for one in begins)}
    assert unused == set()
    said = {key for source in sources for key in re.findall(r'say\("([a-zA-Z_.]+)"[,)]', source)}
    assert said - known == set()


def test_the_chart_is_drawn_in_the_language_of_the_page() -> None:
    from support.results import fabricated

    asked: list[str] = []

    def say(phrase: str) -> str:
        asked.append(phrase)
        return Speech("zh").chart()(phrase)

    drawn = charts.accuracy_chart(fabricated("aakar"), charts.PAGE, say)
    english = {texts["en"] for key, texts in all_texts().items() if key.startswith("chart.")}
    assert set(asked) <= english
    assert re.search("distilled<|rolled back<|original<|Accuracy", drawn) is None


@pytest.mark.parametrize(
    ("seconds", "en", "zh"),
    [
        (20, "less than a minute", "不到一分钟"),
        (60, "1 minute", "1 分钟"),
        (3600, "1 h 00 min", "1 小时 00 分"),
        (50 * 3600, "2 days", "2 天"),
    ],
)
def test_durations_are_written_in_both_languages(seconds: float, en: str, zh: str) -> None:
    assert (Speech("en").duration(seconds), Speech("zh").duration(seconds)) == (en, zh)


def test_a_damaged_record_of_claims_is_the_fault_of_its_model_alone(tmp_path: Path) -> None:
    good, bad = "antgmm", "other"
    lineage = Lineage()
    settings = page_settings(tmp_path, (good, bad))
    with running(settings, registered(other=4), made_from=lineage, aliases=Pointing(lineage)) as server:
        trigger = server.service.trigger
        claim = claimed(trigger, good, "5", State.failed, began=NOW - timedelta(days=1))
        claimed(trigger, bad, "4", State.failed, began=NOW - timedelta(days=1))
        name = CLAIMS.name(model_key(bad))
        found = trigger.objects.read(name)
        assert found is not None
        trigger.objects.write(name, b"{", found.tag)
        person = viewer(server)
        for path in ("/", "/history", f"/models/{good}", f"/models/{bad}"):
            assert person.get(path).status == 200, path
        assert claim.run in words_of(person.text("/history"))
        assert name in words_of(person.text("/"))
        assert name in words_of(person.text(f"/models/{bad}"))
        assert name not in words_of(person.text(f"/models/{good}"))
