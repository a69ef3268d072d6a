"""REST about what is in service: promotion and roll back, comparisons that are handed in, rows of production."""

import json
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.cli import run
from support.mlflow_server import new_database
from support.plans import MOMENT
from support.promotion_work import digest_of
from support.trigger_page import (
    COMPRESSED,
    ORIGINAL,
    Browser,
    Lineage,
    Pointing,
    compared,
    page_settings,
    without_comparison,
    words_of,
)
from support.trigger_server import TOKENS, Answer, Running, running, settings_of, until

from lmmpress.errors import UserError
from lmmpress.files.digest import digest_checkpoint
from lmmpress.tracking.client import open_client
from lmmpress.tracking.database import uri_of
from lmmpress.trigger.acts import recorded
from lmmpress.trigger.made_from import Made

BASE = "/api/v1/models/antgmm"
TODAY = f"{datetime.now(UTC):%Y-%m-%d}"


def started(folder: Path, **changed: Any) -> Any:
    """A server on which version 3 is in service and version 5 is the newest compressed one."""
    at = datetime(2026, 11, 1, tzinfo=UTC)
    names = {"serving": Made("3", at, "3"), "compressed": Made("5", at, "5")}
    lineage = Lineage({("antgmm-compressed", alias): made for alias, made in names.items()})
    return running(page_settings(folder, **changed), made_from=lineage, aliases=Pointing(lineage))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with started(tmp_path) as found:
        yield found


def append(server: Running, body: str | bytes, by: str = "otto", kind: str = "text/csv", key: str = "") -> Answer:
    data = body.encode("utf-8") if isinstance(body, str) else body
    return server.ask("POST", f"{BASE}/online", by, data, {"Content-Type": kind, "Idempotency-Key": key})


def csv(right: int = 990, smaller: int = 980, rows: int = 1000, day: str = TODAY) -> str:
    return f"day,model,version,right,rows\n{day},antgmm,8,{right},{rows}\n{day},antgmm-compressed,5,{smaller},{rows}\n"


# Who may


@pytest.mark.parametrize("path", ["promote", "roll-back", "comparisons", "online"])
def test_a_viewer_cannot_act_and_a_stranger_not_even_ask(server: Running, path: str) -> None:
    assert server.ask("POST", f"{BASE}/{path}", "vera", {}).status == 403
    assert server.ask("POST", f"{BASE}/{path}", None, {}).status == 401
    assert list(recorded(server.service.trigger.objects)) == []


@pytest.mark.parametrize("path", ["serving", "comparisons?version=5", "online"])
def test_a_viewer_sees_what_is_in_service(server: Running, path: str) -> None:
    assert server.ask("GET", f"{BASE}/{path}", "vera").status == 200
    assert server.ask("GET", f"{BASE}/{path}").status == 401
    assert server.ask("GET", f"/api/v1/models/none/{path}", "vera").status == 404


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("promote", {"version": "5", "seen": "3", "why": "x"}),
        ("roll-back", {"seen": "3", "why": "x"}),
        ("comparisons", compared()),
    ],
)
def test_a_model_that_is_not_watched_is_unknown(server: Running, path: str, body: dict[str, Any]) -> None:
    assert server.ask("POST", f"/api/v1/models/none/{path}", "otto", body).status == 404


# Promotion


def test_an_operator_promotes_and_rolls_back_by_rest(server: Running) -> None:
    server.ask("POST", f"{BASE}/comparisons", "otto", compared())
    asked = {"version": "5", "seen": "3", "why": "for version 8"}
    done = server.ask("POST", f"{BASE}/promote", "otto", asked)
    assert done.status == 200
    now = done.json["in_service"]
    assert (now["version"], now["before"], now["by"], now["why"]) == ("5", "3", "otto", "for version 8")
    assert (done.json["compressed"], done.json["alias"], done.json["waiting"]) == (
        "antgmm-compressed",
        "serving",
        None,
    )
    assert server.ask("GET", f"{BASE}/serving", "vera").json == done.json
    back = server.ask("POST", f"{BASE}/roll-back", "ada", {"seen": "5", "why": "slow"})
    assert back.json["in_service"]["version"] == "3"
    acts = [(act.by, act.role, act.what, act.why) for act in recorded(server.service.trigger.objects)]
    assert acts[-2:] == [
        ("otto", "operator", "promote", "for version 8"),
        ("ada", "administrator", "roll back", "slow"),
    ]
    assert server.metric("acts_total", what="promote", outcome="done") == 1


def test_who_saw_another_version_changes_nothing(server: Running) -> None:
    server.ask("POST", f"{BASE}/comparisons", "otto", compared())
    answer = server.ask("POST", f"{BASE}/promote", "otto", {"version": "5", "seen": None, "why": "x"})
    assert answer.status == 409
    assert "was at no version when you looked, and is at version 3 now" in answer.json["error"]
    assert server.ask("POST", f"{BASE}/roll-back", "otto", {"seen": "4", "why": "x"}).status == 409
    assert server.ask("GET", f"{BASE}/serving", "vera").json["in_service"]["version"] == "3"


def test_without_a_comparison_the_rule_refuses_and_says_what_to_do(server: Running) -> None:
    answer = server.ask("POST", f"{BASE}/promote", "otto", {"version": "5", "seen": "3", "why": "x"})
    assert answer.status == 409
    assert "have to be compared first" in answer.json["error"]


def test_a_second_person_confirms_by_rest(tmp_path: Path) -> None:
    lineage = Lineage()
    settings = without_comparison(settings_of(tmp_path))
    watched = settings.models["antgmm"]
    rule = watched.promotion.model_copy(update={"second_person": True})
    settings = settings.model_copy(update={"models": {"antgmm": watched.model_copy(update={"promotion": rule})}})
    with running(settings, made_from=lineage, aliases=Pointing(lineage)) as server:
        asked = {"version": "5", "seen": None, "why": "better"}
        first = server.ask("POST", f"{BASE}/promote", "otto", asked).json
        assert (first["in_service"], first["waiting"]["by"], first["waiting"]["version"]) == (None, "otto", "5")
        second = server.ask("POST", f"{BASE}/promote", "ada", asked).json
        assert (second["in_service"]["by"], second["waiting"]) == ("otto and ada", None)


@pytest.mark.parametrize(
    "body",
    [
        {"version": "5", "seen": "3"},
        {"version": "5", "seen": "3", "why": ""},
        {"version": "5", "why": "x"},
        {"seen": "3", "why": "x"},
        {"version": 5, "seen": "3", "why": "x"},
        {"version": "5", "seen": "3", "why": "x", "force": True},
    ],
)
def test_what_is_missing_or_not_known_is_refused(server: Running, body: dict[str, Any]) -> None:
    assert server.ask("POST", f"{BASE}/promote", "otto", body).status == 422


def test_a_registry_that_is_away_is_no_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*arguments: str) -> None:
        raise UserError("MLflow does not answer")

    monkeypatch.setattr(Pointing, "version_at", away)
    with started(tmp_path) as server:
        body = {"version": "5", "seen": "3", "why": "x"}
        for answer in (
            server.ask("GET", f"{BASE}/serving", "vera"),
            server.ask("POST", f"{BASE}/promote", "otto", body),
        ):
            assert (answer.status, answer.json) == (503, {"error": "MLflow does not answer"})


# Comparisons


def test_a_comparison_is_kept_once_with_its_figures(server: Running) -> None:
    first = server.ask("POST", f"{BASE}/comparisons", "otto", compared())
    assert first.status == 200
    (kept,) = first.json["comparisons"]
    shown = {name: kept[name] for name in ("version", "counts", "by", "agreement", "smaller", "lighter")}
    assert shown == {
        "version": "5",
        "counts": True,
        "by": "otto",
        "agreement": 0.96,
        "smaller": 4.0,
        "lighter": 3.2,
    }
    assert kept["comparison"]["turns"]["samples_per_second"]["median"] == 2.5
    assert kept["comparison"]["all"]["drop_interval"] == {"low": 0.005, "high": 0.015, "confidence": 0.95}
    assert server.ask("POST", f"{BASE}/comparisons", "ada", compared()).json == first.json
    assert server.ask("GET", f"{BASE}/comparisons?version=5", "vera").json == first.json
    acts = [(act.by, act.what, act.outcome) for act in recorded(server.service.trigger.objects)]
    assert acts[0] == ("otto", "hand in a comparison", f"version 5 lost 0.0100 on 1000 rows of data {'d' * 20}")


@pytest.mark.parametrize(
    ("changed", "status", "said"),
    [
        ({"a": COMPRESSED, "b": ORIGINAL}, 409, "no version of antgmm-compressed is the checkpoint aaaaaaaaaaaa"),
        ({"b": "e" * 64}, 409, "no version of antgmm-compressed is the checkpoint eeeeeeeeeeee"),
        ({"a": "x' or 1=1"}, 409, "this is no comparison of two checkpoints"),
        ({"lost": 7.0}, 409, "this is no comparison of two checkpoints"),
        ({"format": 2}, 409, "this is no comparison of two checkpoints"),
    ],
)
def test_a_comparison_of_anything_else_is_not_kept(
    server: Running, changed: dict[str, Any], status: int, said: str
) -> None:
    answer = server.ask("POST", f"{BASE}/comparisons", "otto", compared(**changed))
    assert answer.status == status
    assert said in answer.json["error"]
    assert server.ask("GET", f"{BASE}/comparisons?version=5", "vera").json == {"comparisons": []}


@pytest.mark.parametrize("body", [{}, [], b"{", compared() | {"more": 1}, {**compared(), "a": None}])
def test_what_is_no_comparison_is_refused(server: Running, body: Any) -> None:
    assert server.ask("POST", f"{BASE}/comparisons", "otto", body).status == 422


def test_a_large_comparison_is_taken_from_an_operator_up_to_the_limit(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, limits={"upload_bytes": 60_000})
    with running(settings, aliases=Pointing(Lineage())) as server:

        def ask(path: str, by: str, size: int) -> int:
            return server.ask("POST", f"{BASE}/{path}", by, compared(environment={"note": "n" * size})).status

        assert ask("comparisons", "otto", 50_000) == 200
        assert ask("comparisons", "vera", 50_000) == 413, "a viewer sends nothing large"
        assert ask("promote", "otto", 50_000) == 413, "only comparisons and rows may be large"
        assert ask("comparisons", "otto", 60_000) == 413


def test_only_so_many_large_bodies_are_worked_on_at_a_time(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, limits={"uploads": 1, "body_seconds": 5})
    with running(settings, aliases=Pointing(Lineage())) as server:
        host, port = server.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as slow:
            head = f"POST {BASE}/online HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKENS['otto']}\r\n"
            slow.sendall(f"{head}Content-Length: 9\r\n\r\n".encode("ascii"))
            until(lambda: server.metric("requests_under_way") == 1)
            refused = append(server, csv())
            assert (refused.status, refused.headers["Retry-After"]) == (429, "2")
            assert server.ask("GET", f"{BASE}/online", "vera").status == 200
        until(lambda: append(server, csv()).status == 200)


def test_a_comparison_of_the_command_line_is_taken_and_counts(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    from PIL import Image

    original, smaller, rows = make_checkpoint("llama"), make_checkpoint("opt"), tmp_path / "rows"
    rows.mkdir()
    Image.new("RGB", (40, 30), "red").save(rows / "a.png")
    row = {"file_name": "a.png", "question": "标题", "answer": "红色", "task": "ad", "split": "test"}
    (rows / "metadata.jsonl").write_text(json.dumps(row, ensure_ascii=False), "utf-8")
    run("compare", original, smaller, "--data", rows, "-o", tmp_path / "out", "--seconds", MOMENT)
    tracking = uri_of(new_database(tmp_path / "mlflow.db"))
    client = open_client(tracking)
    client.create_registered_model("antgmm-compressed")
    for checkpoint in (digest_of(1), digest_checkpoint(smaller)):
        tags = {"lmmpress.checkpoint": checkpoint, "lmmpress.original": digest_checkpoint(original)}
        client.create_model_version("antgmm-compressed", "s3://models/x", tags=tags)
    settings = settings_of(tmp_path / "settings").model_copy(update={"tracking": tracking})
    with running(settings) as server:
        handed = (tmp_path / "out" / "comparison.json").read_bytes()
        answer = server.ask("POST", f"{BASE}/comparisons", "otto", handed)
        assert answer.status == 200, answer.body
        (kept,) = answer.json["comparisons"]
        assert (kept["version"], kept["counts"], kept["comparison"]["data"]["rows"]) == ("2", True, 1)
        assert None not in (kept["agreement"], kept["smaller"], kept["lighter"], kept["comparison"]["turns"])
        done = server.ask("POST", f"{BASE}/promote", "otto", {"version": "2", "seen": None, "why": "first"})
        assert (done.status, done.json.get("in_service", {}).get("version")) == (200, "2"), done.json


# Rows of production


def test_rows_are_counted_once_and_make_the_table(server: Running) -> None:
    first = append(server, csv())
    assert (first.status, first.json) == (200, {"rows": 2, "days": [TODAY], "known": False})
    assert append(server, csv()).json["known"], "the same body"
    line = {"day": TODAY, "model": "antgmm", "right": 1, "rows": 1}
    for key, known in (("one", False), ("two", False), ("one", True)):
        assert append(server, json.dumps(line), kind="application/x-ndjson", key=key).json["known"] == known
    found = server.ask("GET", f"{BASE}/online", "vera").json
    assert (found["compressed"], found["alpha"], len(found["days"])) == ("antgmm-compressed", 0.02, 7)
    today = found["days"][-1]
    assert today["original"] == {"right": 992, "rows": 1002, "accuracy": 992 / 1002}
    assert today["compressed"] == {"right": 980, "rows": 1000, "accuracy": 0.98}
    assert (today["day"], today["versions"], today["drifts"]) == (TODAY, ["5"], False)
    assert found["days"][0]["drop"] is None
    assert found["all"] == today | {"day": None}
    assert server.metric("acts_total", what="append rows", outcome="done") == 5


@pytest.mark.parametrize(
    ("body", "kind", "status", "said"),
    [
        (csv(), "application/x-www-form-urlencoded", 415, "rows are text/csv or application/x-ndjson"),
        (csv(right=1001), "text/csv", 422, "the body, line 2: "),
        (csv(day="2126-01-01"), "text/csv", 422, "2126-01-01 lies in the future"),
        ("", "text/csv", 422, "there are no rows"),
        ("a,b\n1,2\n", "text/csv", 422, "names the columns"),
        (b"\xff\xfe", "text/csv", 422, "UTF-8"),
        ("day,model,right,rows\n2026-11-28,other,1,1\n", "text/csv", 422, "none of 'other'"),
    ],
)
def test_rows_that_are_wrong_are_refused_and_none_is_counted(
    server: Running, body: str | bytes, kind: str, status: int, said: str
) -> None:
    answer = append(server, body, kind=kind)
    assert answer.status == status
    assert said in answer.json["error"]
    assert server.ask("GET", f"{BASE}/online", "vera").json["all"]["original"]["rows"] == 0


def test_rows_of_another_watched_model_go_to_that_model(tmp_path: Path) -> None:
    with running(settings_of(tmp_path, ("antgmm", "other"))) as server:
        answer = append(server, csv().replace("antgmm,", "other,"))
        assert (answer.status, "takes rows of antgmm and antgmm-compressed" in answer.json["error"]) == (422, True)


# On the page


OPERATOR = {"X-Auth-Request-User": "li.na@example.com", "X-Auth-Request-Groups": "press-operators"}


def test_the_page_shows_the_comparison_before_a_version_is_put_into_service(server: Running) -> None:
    person = Browser(server.address, dict(OPERATOR))
    path = "/models/antgmm"
    assert "Compressed version 5 has not been compared with its original." in words_of(person.text(path))
    server.ask("POST", f"{BASE}/comparisons", "otto", compared())
    said = words_of(person.text(path, accept_language="en"))
    for words in (
        "How compressed version 5 compares with its original",
        "99.0 % and 98.0 %",
        "1.0 (95 % interval: 0.5 to 1.5)",
        "Equal answers 96.0 %",
        "8 M and 2 M: 4.00 times smaller",
        "Weights on disk 3.20 times smaller",
        "2.50 times as many (turns: 2.25 to 2.75)",
        "rows of data dddddddddddd, handed in by otto",
        "Put compressed version 5 into service",
    ):
        assert words in said
    assert "与原模型的对比" in words_of(person.text(path, accept_language="zh"))


def test_the_page_says_of_a_comparison_that_it_does_not_count(server: Running) -> None:
    some = compared()
    server.ask("POST", f"{BASE}/comparisons", "otto", some | {"data": some["data"] | {"tasks": ["ad"]}})
    said = words_of(Browser(server.address, dict(OPERATOR)).text("/models/antgmm"))
    assert "It does not count for putting the version into service" in said
    assert "cannot be put into service yet" in said


def test_the_page_has_the_table_of_seven_days(server: Running) -> None:
    append(server, csv(right=990, smaller=900))
    person = Browser(server.address, dict(OPERATOR))
    said = words_of(person.text("/models/antgmm"))
    assert "In production the compressed model loses more than 2.0 percentage points." in said
    assert f"{TODAY} 99.0 % 90.0 %" in said
    assert "All days" in said
    assert "最近七天的线上表现" in words_of(person.text("/models/antgmm", accept_language="zh"))


def test_the_page_says_where_there_are_no_rows_of_production(server: Running) -> None:
    said = words_of(Browser(server.address, dict(OPERATOR)).text("/models/antgmm"))
    assert "There are no rows of production of antgmm from these days." in said
