"""The trigger's server: who may do what, what is refused, and what becomes of what is taken."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.trigger_server import (
    OLD_SECRET,
    Running,
    Runs,
    Versions,
    delivery_headers,
    event,
    running,
    settings_of,
    until,
)

from lmmpress.errors import UserError
from lmmpress.store.objects import Objects
from lmmpress.trigger.acts import recorded
from lmmpress.trigger.hints import hinted

MODELS = ("antgmm", "another model", "蚂蚁")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server for tests that leave nothing behind that others would see."""
    with running(settings_of(tmp_path_factory.mktemp("shared"), MODELS)) as found:
        yield found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with running(settings_of(tmp_path, MODELS)) as found:
        yield found


def claims(server: Running) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.ask("GET", "/api/v1/claims", "vera").json["claims"]
    return found


# Who may do what


GET = ["/api/v1/models", "/api/v1/models/antgmm", "/api/v1/claims", "/api/v1/claims/0-0", "/api/v1/acts?day=2026-11-29"]
POST = ["/api/v1/models/antgmm/fire", "/api/v1/claims/0-0/cancel", "/api/v1/claims/0-0/retry"]


@pytest.mark.parametrize("path", [*GET, *POST, "/api/v1/none"])
@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer ", "Basic dmVyYTp2", "Bearer é", "bearer"])
def test_without_a_valid_token_nothing_is_said(shared: Running, path: str, header: str | None) -> None:
    method = "POST" if path in POST else "GET"
    headers = {"Authorization": header} if header else {}
    answer = shared.ask(method, path, body=b"{" if method == "POST" else None, headers=headers)
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize("path", POST)
def test_a_viewer_cannot_act(shared: Running, path: str) -> None:
    answer = shared.ask("POST", path, "vera", {})
    assert answer.status == 403
    assert answer.json == {"error": "vera is viewer; this takes the role operator"}
    assert claims(shared) == []


@pytest.mark.parametrize("by", ["vera", "otto"])
def test_only_an_administrator_sees_who_did_what(shared: Running, by: str) -> None:
    assert shared.ask("GET", "/api/v1/acts?day=2026-11-29", by).status == 403
    assert shared.ask("GET", "/api/v1/acts?day=2026-11-29", "ada").status == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json"])
def test_probes_need_no_token(shared: Running, path: str) -> None:
    answer = shared.ask("GET", path)
    assert answer.status == 200
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


# Models and claims


def test_models_say_which_version_is_newest_and_which_in_service(shared: Running) -> None:
    shared.versions.newest["antgmm"] = 7
    (first, *_) = shared.ask("GET", "/api/v1/models", "vera").json["models"]
    assert (first["name"], first["newest"]["version"], first["in_service"]["version"]) == ("antgmm", "7", "1")
    assert (first["follows"], first["plans"], first["claim"]) == ("newest", ["fast", "small"], None)
    name = "/api/v1/models/%E8%9A%82%E8%9A%81"
    assert shared.ask("GET", name, "vera").json["name"] == "蚂蚁"


def test_the_compressed_model_has_the_name_that_mlflow_takes_wherever_it_is_shown(tmp_path: Path) -> None:
    with running(settings_of(tmp_path, ("ant.gmm",))) as server:
        assert server.ask("GET", "/api/v1/models/ant.gmm", "vera").json["compressed"] == "ant-gmm-compressed"


def test_a_model_whose_registry_is_away_is_shown_with_the_reason(server: Running) -> None:
    server.versions.fault = "MLflow does not answer"
    found = server.ask("GET", "/api/v1/models/antgmm", "vera").json
    assert (found["newest"], found["fault"]) == (None, "MLflow does not answer")
    assert server.ask("POST", "/api/v1/models/antgmm/fire", "otto").status == 503


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/api/v1/models/none", "model 'none' is not watched"),
        ("/api/v1/claims?model=none", "model 'none' is not watched"),
        ("/api/v1/claims/none", "there is no claim with that key"),
        ("/api/v1/claims/..%2f..%2fruns", "Not Found"),
        ("/api/v1/none", "Not Found"),
    ],
)
def test_what_is_not_there_is_said(shared: Running, path: str, said: str) -> None:
    answer = shared.ask("GET", path, "vera")
    assert (answer.status, answer.json) == (404, {"error": said})


def test_an_operator_fires_once_and_finds_the_same_claim_again(server: Running) -> None:
    first = server.ask("POST", "/api/v1/models/antgmm/fire", "otto", {"why": "new titles", "plan": "small"})
    assert first.status == 200
    claim = first.json
    shown = {name: claim[name] for name in ("model", "version", "plan", "by", "cause", "why", "attempt")}
    assert shown == {
        "model": "antgmm",
        "version": "1",
        "plan": "small",
        "by": "otto",
        "cause": "REST",
        "why": "new titles",
        "attempt": 1,
    }
    again = server.ask("POST", "/api/v1/models/antgmm/fire", "ada")
    assert again.json["key"] == claim["key"]
    until(lambda: server.ask("GET", f"/api/v1/claims/{claim['key']}", "vera").json["state"] != "claimed")
    assert list(server.runs.phases) == [claim["run"]]


def test_an_operator_cancels_and_retries(server: Running) -> None:
    key = server.ask("POST", "/api/v1/models/antgmm/fire", "otto").json["key"]
    until(lambda: server.runs.phases)
    assert server.ask("POST", f"/api/v1/claims/{key}/retry", "otto").status == 409
    assert server.ask("POST", f"/api/v1/claims/{key}/cancel", "otto", {"why": "wrong rows"}).status == 200

    def state() -> Any:
        server.service.carry_on_soon(key)
        return server.ask("GET", f"/api/v1/claims/{key}", "vera").json["state"]

    until(lambda: state() == "cancelled")
    assert server.ask("POST", f"/api/v1/claims/{key}/cancel", "otto").status == 409
    again = server.ask("POST", f"/api/v1/claims/{key}/retry", "otto", {"why": "right rows"})
    assert (again.status, again.json["state"], again.json["attempt"]) == (200, "claimed", 2)
    until(lambda: len(server.runs.phases) == 2)


def test_the_policy_may_say_no(server: Running) -> None:
    server.ask("POST", "/api/v1/models/antgmm/fire", "otto")
    server.versions.newest["antgmm"] = 2
    answer = server.ask("POST", "/api/v1/models/antgmm/fire", "otto")
    assert answer.status == 409
    assert "one run at a time" in answer.json["error"]


def test_every_act_is_written_down_with_what_came_of_it(server: Running) -> None:
    server.ask("POST", "/api/v1/models/antgmm/fire", "otto", {"why": "new titles"})
    server.versions.newest["antgmm"] = 2
    server.ask("POST", "/api/v1/models/antgmm/fire", "ada", {"why": "newer titles"})
    server.versions.fault = "MLflow does not answer"
    refused = server.ask("POST", "/api/v1/models/antgmm/fire", "otto")
    day = time.strftime("%Y-%m-%d", time.gmtime())
    acts = server.ask("GET", f"/api/v1/acts?day={day}", "ada").json["acts"]
    assert [(act["by"], act["role"], act["what"], act["model"], act["why"]) for act in acts] == [
        ("otto", "operator", "fire", "antgmm", "new titles"),
        ("ada", "administrator", "fire", "antgmm", "newer titles"),
        ("otto", "operator", "fire", "antgmm", ""),
    ]
    assert [act["outcome"].partition(" ")[0] for act in acts] == ["claim", "refused:", "failed:"]
    assert acts[2]["request"] == refused.headers["X-Request-Id"]


def test_nothing_is_done_that_could_not_be_written_down(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(name: str, data: bytes, tag: str | None) -> None:
        raise UserError("the store is away")

    monkeypatch.setattr(server.service.trigger.objects, "write", write)
    answer = server.ask("POST", "/api/v1/models/antgmm/fire", "otto")
    assert (answer.status, answer.json) == (503, {"error": "the store is away"})
    assert answer.headers["Retry-After"]
    assert server.runs.phases == {}


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'"x"', b"1", b"\xff", {"why": 1}, {"why": None}, {"why": "x" * 1001}, {"plan": 3}, {"force": True}],
)
def test_a_malformed_request_is_refused(shared: Running, body: Any) -> None:
    answer = shared.ask("POST", "/api/v1/models/antgmm/fire", "otto", body)
    assert answer.status in (400, 422)
    assert list(answer.json) == ["error"]
    assert claims(shared) == []


def test_an_unknown_plan_is_refused_with_the_nearest(shared: Running) -> None:
    answer = shared.ask("POST", "/api/v1/models/antgmm/fire", "otto", {"plan": "smal"})
    assert (answer.status, answer.json["error"]) == (404, "model 'antgmm' has no plan 'smal'; did you mean 'small'?")


def test_an_oversized_request_is_refused(shared: Running) -> None:
    assert shared.ask("POST", "/api/v1/models/antgmm/fire", "otto", b"x" * 20_000).status == 413


def test_an_unexpected_fault_is_said_without_its_details(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: str | None = None) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(server.service, "claims", broken)
    answer = server.ask("GET", "/api/v1/claims", "vera")
    assert (answer.status, answer.json) == (500, {"error": "a fault of the server; its log says more"})
    assert answer.headers["X-Request-Id"]


# The webhook


def test_a_delivery_becomes_a_claim_and_a_run(server: Running) -> None:
    server.versions.newest["antgmm"] = 2
    answer = server.deliver(event(), identifier="d-1")
    assert (answer.status, answer.json) == (202, {"delivery": "d-1", "model": "antgmm", "noted": True})
    until(lambda: server.runs.phases)
    (claim,) = claims(server)
    assert (claim["version"], claim["by"], claim["cause"]) == ("2", "mlflow", "webhook")


def test_a_delivery_is_noted_before_it_is_answered(server: Running) -> None:
    server.versions.fault = "MLflow does not answer"
    assert server.deliver(event()).status == 202
    assert [hint.model for hint in hinted(server.service.trigger.objects)] == ["antgmm"]


def test_a_delivery_that_comes_again_is_answered_as_before_and_does_nothing(server: Running) -> None:
    body = json.dumps(event()).encode()
    headers = delivery_headers(body, identifier="d-1")
    answers = [server.ask("POST", "/webhooks/mlflow", body=body, headers=headers) for _ in range(3)]
    assert {(answer.status, answer.body) for answer in answers} == {(202, answers[0].body)}
    assert len(list(hinted(server.service.trigger.objects))) == 1
    assert server.metric("deliveries_total", result="repeated") == 2


def test_the_id_of_a_delivery_with_another_body_is_refused(server: Running) -> None:
    server.deliver(event(), identifier="d-1")
    assert server.deliver(event(version="3"), identifier="d-1").status == 409


def test_both_secrets_hold_during_a_rotation(shared: Running) -> None:
    assert shared.deliver(event("unwatched"), OLD_SECRET).status == 202


@pytest.mark.parametrize(
    "body", [event("unwatched"), event(entity="prompt"), {"entity": "a", "action": "b", "data": {}}]
)
def test_a_delivery_that_is_about_nothing_watched_is_answered_and_not_noted(shared: Running, body: Any) -> None:
    answer = shared.deliver(body)
    assert (answer.status, answer.json["noted"]) == (202, False)
    assert list(hinted(shared.service.trigger.objects)) == []


@pytest.mark.parametrize(
    ("status", "kind", "change"),
    [
        (401, "signature", {"x_mlflow_signature": "v1,AAAA"}),
        (401, "signature", {"x_mlflow_delivery_id": "another"}),
        (401, "headers", {"x_mlflow_timestamp": "soon"}),
        (415, "type", {"content_type": "text/plain"}),
        (415, "type", {"content_type": "application/x-www-form-urlencoded"}),
    ],
)
def test_a_delivery_that_was_changed_is_refused(
    shared: Running, status: int, kind: str, change: dict[str, str]
) -> None:
    before = shared.metric("deliveries_total", result=f"refused_{kind}")
    assert shared.deliver(event(), **change).status == status
    assert shared.metric("deliveries_total", result=f"refused_{kind}") == before + 1
    assert list(hinted(shared.service.trigger.objects)) == []


def test_a_delivery_that_is_signed_with_another_secret_is_refused(shared: Running) -> None:
    assert shared.deliver(event(), "x" * 40).status == 401


@pytest.mark.parametrize("seconds", [-301, 302])
def test_an_expired_delivery_is_refused(shared: Running, seconds: int) -> None:
    body = json.dumps(event()).encode()
    headers = delivery_headers(body, at=time.time() + seconds)
    answer = shared.ask("POST", "/webhooks/mlflow", body=body, headers=headers)
    assert answer.status == 401
    assert "old" in answer.json["error"]


def test_an_oversized_delivery_is_refused_without_being_read(shared: Running) -> None:
    assert shared.deliver({"data": "x" * 70_000}).status == 413
    host, port = shared.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = "POST /webhooks/mlflow HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 9999999999\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_a_chunked_delivery_is_read_up_to_the_limit(shared: Running) -> None:
    host, port = shared.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = "POST /webhooks/mlflow HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        connection.sendall(b"%x\r\n%s\r\n" % (70_000, b"x" * 70_000))
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"null", event(version=2), event(model={}), {"entity": 1}])  # type: ignore[arg-type]
def test_a_delivery_of_wrong_types_is_refused(shared: Running, body: Any) -> None:
    assert shared.deliver(body).status == 400


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_a_webhook_is_posted(shared: Running, method: str) -> None:
    assert shared.ask(method, "/webhooks/mlflow").status == 405


def test_without_a_secret_no_delivery_is_taken(tmp_path: Path) -> None:
    with running(settings_of(tmp_path, webhook_secrets=[])) as server:
        assert server.deliver(event()).status == 403


def test_a_store_that_is_away_has_mlflow_come_again(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(name: str, data: bytes, tag: str | None) -> None:
        raise UserError("the store is away")

    with monkeypatch.context() as away:
        away.setattr(server.service.trigger.objects, "write", write)
        answer = server.deliver(event(), identifier="d-1")
        assert (answer.status, bool(answer.headers["Retry-After"])) == (503, True)
    assert server.deliver(event(), identifier="d-1").status == 202


# Too much at a time


def test_deliveries_above_the_limit_are_told_to_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(settings_of(tmp_path, limits={"deliveries": 2, "retry_after": 7})) as server:
        objects = server.service.trigger.objects
        go_on = slow_down(objects, monkeypatch)
        statuses: list[int] = []
        threads = [threading.Thread(target=lambda: statuses.append(server.deliver(event()).status)) for _ in range(2)]
        for thread in threads:
            thread.start()
        until(lambda: server.metric("deliveries_under_way") == 2)
        answer = server.deliver(event())
        assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
        assert server.ask("GET", "/healthz").status == 200
        go_on.set()
        for thread in threads:
            thread.join(10)
        assert statuses == [202, 202]


def test_requests_above_the_limit_are_told_to_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(settings_of(tmp_path, limits={"requests": 1})) as server:
        go_on, began = threading.Event(), threading.Event()

        def claims(model: str | None) -> list[Any]:
            began.set()
            go_on.wait(20)
            return []

        monkeypatch.setattr(server.service, "claims", claims)
        thread = threading.Thread(target=lambda: server.ask("GET", "/api/v1/claims", "vera"))
        thread.start()
        assert began.wait(10)
        answer = server.ask("GET", "/api/v1/models", "vera")
        assert (answer.status, answer.headers["Retry-After"]) == (429, "2")
        assert server.ask("GET", "/api/v1/models").status == 401
        assert server.deliver(event()).status == 202
        go_on.set()
        thread.join(10)
        assert server.ask("GET", "/api/v1/models", "vera").status == 200


def test_a_body_that_does_not_arrive_is_not_waited_for(tmp_path: Path) -> None:
    with running(settings_of(tmp_path, limits={"body_seconds": 0.2})) as server:
        host, port = server.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            head = "POST /webhooks/mlflow HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: 10\r\n\r\nabc".encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 408")


def test_strangers_take_no_place_from_people(tmp_path: Path) -> None:
    with running(settings_of(tmp_path, limits={"requests": 1})) as server, ExitStack() as open_ones:
        host, port = server.address.removeprefix("http://").split(":")
        for path in ("/x", "/openapi.json", "/api"):
            connection = open_ones.enter_context(socket.create_connection((host, int(port)), timeout=10))
            connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc".encode())
            assert connection.recv(100)[:12] in (b"HTTP/1.1 404", b"HTTP/1.1 405"), "at once, without the whole body"
        assert server.ask("GET", "/api/v1/models", "vera").status == 200


def slow_down(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Have writes of hints wait until the event is set."""
    go_on, write = threading.Event(), objects.write

    def slow(name: str, data: bytes, tag: str | None) -> None:
        if name.startswith("hints/"):
            go_on.wait(20)
        write(name, data, tag)

    monkeypatch.setattr(objects, "write", slow)
    return go_on


# Its own work


def test_hints_that_a_killed_server_has_left_are_worked_off(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    with running(settings, Versions(fault="MLflow does not answer")) as server:
        assert server.deliver(event()).status == 202
    with running(settings) as server:
        until(lambda: server.runs.phases)
        assert claims(server)[0]["cause"] in ("webhook", "reconciler")


def test_the_reconciler_finds_new_versions_without_any_delivery(tmp_path: Path) -> None:
    with running(settings_of(tmp_path, reconcile_seconds=1), reconciles=True) as server:
        until(lambda: server.metric("claims", model="antgmm", state="running") == 1)
        (claim,) = claims(server)
        assert claim["cause"] == "reconciler"
        server.runs.phases[claim["run"]] = "succeeded"
        until(lambda: claims(server)[0]["state"] == "succeeded")
        until(lambda: server.metric("claims", model="antgmm", state="succeeded") == 1)
        assert server.metric("claims", model="antgmm", state="running") == 0
        assert server.metric("reconciler_last_success_timestamp_seconds") > time.time() - 60


def test_two_replicas_make_one_run(tmp_path: Path) -> None:
    settings, runs, versions = settings_of(tmp_path), Runs(), Versions()
    with running(settings, versions, runs) as one, running(settings, versions, runs) as other:
        for number in range(10):
            assert (one, other)[number % 2].deliver(event()).status == 202
        until(lambda: runs.phases)
        assert len(claims(one)) == len(claims(other)) == 1
        assert len(runs.phases) == 1


def test_readiness_says_that_the_store_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(settings_of(tmp_path)) as server:

        def read(name: str) -> None:
            raise UserError("the store is away")

        monkeypatch.setattr(server.service.trigger.objects, "read", read)
        answer = server.ask("GET", "/readyz")
        assert (answer.status, answer.json) == (503, {"status": "failing", "faults": ["store: the store is away"]})
        assert server.ask("GET", "/healthz").status == 200


def test_metrics_have_the_routes_and_not_what_strangers_ask_for(server: Running) -> None:
    for path in ("/api/v1/models/antgmm", "/strange/path", "/api/v1/models/none"):
        server.ask("GET", path, "vera")
    server.deliver(event())
    text = server.ask("GET", "/metrics").body.decode()
    assert 'lmmpress_trigger_requests_total{method="GET",route="/api/v1/models/{model}",status="200"} 1.0' in text
    assert 'route="other",status="404"' in text
    assert "strange" not in text
    assert 'lmmpress_trigger_deliveries_total{result="noted"} 1.0' in text
    assert "process_resident_memory_bytes" in text


def test_acts_of_strangers_leave_nothing(shared: Running) -> None:
    assert list(recorded(shared.service.trigger.objects)) == []
