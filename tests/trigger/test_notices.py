"""Notices: each event once to each address, whatever is killed, halted or doubled; and never in anybody's way."""

import json
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.trigger_world import MODEL, Scene, scene

from lmmpress.errors import UserError
from lmmpress.store import open_store
from lmmpress.trigger.claims import Cause, Claim, Claims, Event, State
from lmmpress.trigger.fire import fire
from lmmpress.trigger.notice_events import NEWS, of_claims
from lmmpress.trigger.notice_settings import NoticeAddress, NoticeKind, NoticeSettings
from lmmpress.trigger.notices import (
    BEFORE,
    HALTED,
    KEPT,
    LAPSE,
    PAUSES,
    Notice,
    deliver,
    note,
    notify,
    read_box,
    secret_of,
    send_with_apprise,
)
from lmmpress.trigger.online import Row, append
from lmmpress.trigger.question import Question
from lmmpress.trigger.settings import TriggerSettings, read_settings
from lmmpress.trigger.texts import Text
from lmmpress.trigger.trigger import Trigger
from lmmpress.trigger.watch import watch

AGAIN = "tried before"
TWO = (NoticeAddress(name="mail", env="M"), NoticeAddress(name="chat", env="C"))
PASSWORD = "geheim-und-lang"


def noticed(base: TriggerSettings, *addresses: NoticeAddress, **changes: Any) -> TriggerSettings:
    """Settings with notices."""
    to = addresses or (NoticeAddress(name="mail", env="MAIL"),)
    return base.model_copy(update={"notices": NoticeSettings(addresses=to, **changes)})


@dataclass
class Inbox:
    """What addresses have received: (address, title, text, time)."""

    world: Any
    taken: list[tuple[str, str, str, float]] = field(default_factory=list)
    refuses: int = 0

    def send(self, address: NoticeAddress, title: str, text: str) -> bool:
        """As apprise: it gives up after a while."""
        began = self.world.time
        self.world.point()
        if self.world.time - began > 100:
            return False
        if self.refuses:
            self.refuses -= 1
            return False
        self.taken.append((address.name, title, text, self.world.time))
        self.world.point()
        return True


def words(what: str) -> Text:
    """A text that says this."""
    return Text("notice.said", what=what, note="x")


NEWS_ITEM = Notice(NoticeKind.failed, MODEL, words("the run has failed"), event="a")


def deliver_as(made: Scene, inbox: Inbox) -> Any:
    return made.world.start(lambda: deliver(made.replica, inbox.send))


# Exactly once


@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from(["round", "note", "wait"]), min_size=2, max_size=14))
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_event_is_sent_once_and_in_doubt_again_with_a_word_about_it(
    make_settings: Any, seed: int, events: list[str]
) -> None:
    """Rounds of several replicas are interleaved, killed and halted anywhere; the store's answers get lost."""
    base = make_settings_once(make_settings)
    made = scene(noticed(base, *TWO), seed)
    inbox = Inbox(made.world)
    for event in events:
        match event:
            case "round":
                deliver_as(made, inbox)
            case "note":
                made.world.start(lambda: notify(made.replica, NEWS_ITEM))
            case "wait":
                made.world.time += 700
        for _ in range(12):
            made.world.turn()
    made.world.settle()
    made.world.calm = True
    made.world.run(lambda: notify(made.replica, NEWS_ITEM))
    for _ in range(2):
        made.world.time += LAPSE.total_seconds()
        made.world.run(lambda: deliver(made.replica, inbox.send))
    for name in ("mail", "chat"):
        sent = [(text, at) for to, _, text, at in inbox.taken if to == name]
        assert sent, "no event is lost"
        for (_, before), (text, at) in pairwise(sent):
            assert at - before >= (LAPSE - HALTED).total_seconds() - 100, "never while another may be sending"
            assert AGAIN in text, "who may have it already is told"
    count = len(inbox.taken)
    made.world.time += KEPT.total_seconds()
    made.world.run(lambda: notify(made.replica, NEWS_ITEM))
    made.world.run(lambda: deliver(made.replica, inbox.send))
    assert len(inbox.taken) == count, "and it is over then"


_BASE: list[TriggerSettings] = []


def make_settings_once(make_settings: Any) -> TriggerSettings:
    if not _BASE:
        _BASE.append(make_settings())
    return _BASE[0]


def test_a_process_killed_at_any_point_leaves_one_notice(make_settings: Any) -> None:
    """Only if it was killed after the message was taken, and before that was noted, does it come again: once, with a
    word about it."""
    for point in range(1, 40):
        made = scene(noticed(make_settings_once(make_settings)))
        inbox = Inbox(made.world)
        made.world.run(partial(notify, made.replica, NEWS_ITEM))
        made.world.kill_at = made.world.points + point
        killed = deliver_as(made, inbox)
        made.world.settle()
        made.world.kill_at = None
        sent_before = len(inbox.taken)
        made.world.time += LAPSE.total_seconds()
        made.world.run(partial(deliver, made.replica, inbox.send))
        made.world.run(partial(deliver, made.replica, inbox.send))
        assert len(inbox.taken) <= 1 + (killed.killed and sent_before)
        assert [AGAIN in text for _, _, text, _ in inbox.taken[1:]] == [True] * (len(inbox.taken) - 1)
        assert inbox.taken
        if not killed.killed:
            assert point > 8, "there were points to be killed at"
            return
    raise AssertionError("more points than expected")


def test_two_replicas_send_many_events_once_each(make_settings: Any, tmp_path: Path) -> None:
    trigger = real(noticed(make_settings(), *TWO), tmp_path)
    taken: list[tuple[str, str]] = []
    note(trigger, MODEL, [Notice(NoticeKind.started, MODEL, words(f"run {number}")) for number in range(15)])

    def send(address: NoticeAddress, title: str, text: str) -> bool:
        taken.append((address.name, text))
        return True

    threads = [threading.Thread(target=deliver, args=(real(trigger.settings, tmp_path), send)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted((name, f"run {number}: x") for number in range(15) for name in ("mail", "chat"))


def test_who_was_halted_while_sending_does_not_undo_what_another_has_done(make_settings: Any) -> None:
    made = scene(noticed(make_settings_once(make_settings)))
    inbox = Inbox(made.world)
    notify(made.trigger, NEWS_ITEM)

    def halted(address: NoticeAddress, title: str, text: str) -> bool:
        made.world.time += LAPSE.total_seconds()
        deliver(made.replica, inbox.send)
        return False

    deliver(made.trigger, halted)
    for _ in range(3):
        made.world.time += LAPSE.total_seconds()
        deliver(made.replica, inbox.send)
    assert len(inbox.taken) == 1


# Trying again


def test_what_is_not_taken_is_tried_again_later_and_given_up_at_last(make_settings: Any) -> None:
    made = scene(noticed(make_settings_once(make_settings)))
    inbox = Inbox(made.world, refuses=100)
    made.world.run(lambda: notify(made.trigger, NEWS_ITEM))
    faults: list[str] = []
    for _ in range(10):
        for _ in range(2):  # the second is too early
            faults += made.world.run(lambda: deliver(made.trigger, inbox.send))
        made.world.time += PAUSES[-1].total_seconds()
    tries = len(PAUSES) + 1
    assert len(faults) == tries
    assert faults[0] == "a notice to mail was not taken (try 1); it is tried again"
    assert faults[-1] == f"a notice to mail was not taken (try {tries}); it is given up"
    assert 100 - inbox.refuses == tries


def test_one_address_that_refuses_does_not_keep_the_other_from_its_notice(make_settings: Any) -> None:
    made = scene(
        noticed(
            make_settings_once(make_settings), NoticeAddress(name="bad", env="B"), NoticeAddress(name="good", env="G")
        )
    )
    inbox = Inbox(made.world)

    def send(address: NoticeAddress, title: str, text: str) -> bool:
        if address.name == "bad":
            raise RuntimeError(f"https://user:{PASSWORD}@host")
        return inbox.send(address, title, text)

    made.world.run(lambda: notify(made.trigger, NEWS_ITEM))
    faults = made.world.run(lambda: deliver(made.trigger, send))
    assert [to for to, *_ in inbox.taken] == ["good"]
    assert faults == ["a notice to bad was not taken (try 1): RuntimeError; it is tried again"]


def test_an_address_gets_the_kinds_that_it_is_for(make_settings: Any) -> None:
    only = NoticeAddress(name="chat", env="C", kinds=(NoticeKind.drift,))
    made = scene(noticed(make_settings_once(make_settings), only, NoticeAddress(name="mail", env="M")))
    inbox = Inbox(made.world)
    made.world.run(lambda: notify(made.trigger, NEWS_ITEM))
    made.world.run(lambda: notify(made.trigger, Notice(NoticeKind.drift, MODEL, words("it drifts"))))
    made.world.run(lambda: deliver(made.trigger, inbox.send))
    assert sorted((to, title) for to, title, *_ in inbox.taken) == [
        ("chat", f"{MODEL}: the accuracy drifts"),
        ("mail", f"{MODEL}: compression has failed"),
        ("mail", f"{MODEL}: the accuracy drifts"),
    ]


def test_a_store_that_is_away_hinders_nobody(make_settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    made = scene(noticed(make_settings_once(make_settings)))

    class Away:
        def __getattr__(self, name: str) -> Any:
            raise UserError("the store gives no answer")

    trigger = replace(made.trigger, objects=Away(), claims=Claims(Away()))
    notify(trigger, NEWS_ITEM)
    assert "the store gives no answer" in caplog.text
    faults = watch(trigger, lambda *_: True)
    assert faults
    assert all("the store gives no answer" in fault for fault in faults)


# What notices are about


def run_to(made: Scene, state: State) -> Claim:
    """A claim of the version in the registry that has come to that state."""
    claim = fire(made.trigger, MODEL, by="Ada", cause=Cause.page)
    assert isinstance(claim, Claim)
    for step in (State.submitted, State.running, state):
        if claim.state is not step:
            claim = made.trigger.claims.move(claim, step, by="x", now=made.trigger.clock(), note="out of memory")
    return claim


def titles(inbox: Inbox) -> list[str]:
    return [title.removeprefix(f"{MODEL}: ") for _, title, *_ in inbox.taken]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (State.succeeded, ["compression has started", "compression has finished"]),
        (State.failed, ["compression has started", "compression has failed"]),
        (State.lost, ["compression has started", "compression has failed"]),
        (State.cancelled, ["compression has started"]),
    ],
)
def test_a_run_that_starts_and_ends_is_told_of_once(make_settings: Any, state: State, said: list[str]) -> None:
    made = scene(noticed(make_settings_once(make_settings)))
    inbox = Inbox(made.world)
    run_to(made, state)
    for _ in range(3):
        assert watch(made.replica, inbox.send) == []
    assert titles(inbox) == said
    if state is State.failed:
        assert "out of memory" in inbox.taken[-1][2]


def test_a_second_attempt_is_told_of_again(make_settings: Any) -> None:
    at = datetime(2026, 11, 29, tzinfo=UTC)
    question = Question(MODEL, "1", "a" * 64, None, "p", "local", "usual")
    steps = (State.claimed, State.submitted, State.failed, State.claimed, State.submitted, State.succeeded)
    events = tuple(Event(one, at, "x") for one in steps)
    claim = Claim(question.key, question, State.succeeded, "Ada", Cause.page, "", events, attempt=2)
    found = list(of_claims([claim], at - BEFORE, at))
    assert len({one.id for one in found}) == 4
    assert question.run_name(1) in str(found[1].text)
    assert question.run_name(2) in str(found[3].text)
    assert list(of_claims([claim], at - BEFORE, at + 2 * NEWS)) == [], "what is long ago is no news"
    assert list(of_claims([claim], at + BEFORE, at)) == [], "nor what was before the first notice"


def test_a_version_that_is_not_compressed_for_days_is_told_of_once(make_settings: Any) -> None:
    made = scene(noticed(make_settings_once(make_settings), stale_days=3))
    inbox = Inbox(made.world)
    day = timedelta(days=1).total_seconds()
    for _ in range(10):
        watch(made.replica, inbox.send)
        made.world.time += day
    assert titles(inbox) == ["a version was not compressed"]
    assert inbox.taken[0][2] == f"version 1 of {MODEL} was not compressed for 3 days"
    made.registry.version = 2
    run_to(made, State.succeeded)
    for _ in range(10):
        watch(made.replica, inbox.send)
        made.world.time += day
    assert titles(inbox).count("a version was not compressed") == 1, "version 2 was compressed"


def test_drift_in_production_is_told_of_once_a_day(make_settings: Any) -> None:
    made = scene(noticed(make_settings_once(make_settings), page="https://trigger.example"))
    inbox = Inbox(made.world)
    today = made.trigger.clock().date()
    for number, right in enumerate((990, 900, 905)):
        day = today - timedelta(days=3 - number)
        rows = [
            Row(day=day, model=MODEL, right=990, rows=1000),
            Row(day=day, model=f"{MODEL}-compressed", right=right, rows=1000),
        ]
        append(made.trigger, rows, str(day))
        for _ in range(2):
            watch(made.replica, inbox.send)
    assert titles(inbox) == ["the accuracy drifts"] * 2
    assert "lost 0.0900 (" in inbox.taken[0][2]
    assert "alpha is 0.02" in inbox.taken[0][2]
    assert inbox.taken[0][2].endswith("https://trigger.example")


# In the language of the address

BILINGUAL = (NoticeAddress(name="mail", env="M"), NoticeAddress(name="feishu", env="F", language="zh"))


def told_in(inbox: Inbox, address: str) -> list[tuple[str, str]]:
    return [(title, text) for to, title, text, _ in inbox.taken if to == address]


@pytest.mark.parametrize(
    ("state", "title", "said"),
    [
        (State.submitted, "压缩已开始", "上的运行 {run}：已开始；发起人 Ada（页面）"),
        (State.succeeded, "压缩已完成", "上的运行 {run}：已完成；可与原模型对比后上线"),
        (State.failed, "压缩失败", "上的运行 {run}：失败；原因：out of memory"),
        (State.lost, "压缩失败", "上的运行 {run}：已丢失，引擎中已找不到该运行；原因：out of memory"),
    ],
)
def test_each_address_is_told_of_a_run_in_its_language(make_settings: Any, state: State, title: str, said: str) -> None:
    made = scene(noticed(make_settings_once(make_settings), *BILINGUAL))
    inbox = Inbox(made.world)
    claim = run_to(made, state)
    watch(made.replica, inbox.send)
    assert told_in(inbox, "feishu")[-1] == (
        f"{MODEL}：{title}",
        f"{MODEL} 版本 1，方案 {claim.question.plan_name}，{claim.question.pipeline} {said.format(run=claim.run)}",
    )
    assert told_in(inbox, "mail")[-1][1].startswith(f"version 1 of {MODEL}, plan ")


def test_a_version_that_waits_and_drift_are_told_in_the_language_of_the_address(make_settings: Any) -> None:
    made = scene(noticed(make_settings_once(make_settings), BILINGUAL[1], page="https://trigger.example"))
    inbox = Inbox(made.world)
    for name, right in ((MODEL, 990), (f"{MODEL}-compressed", 900)):
        day = made.trigger.clock().date()
        append(made.trigger, [Row(day=day, model=name, right=right, rows=1000)], name)
    watch(made.replica, inbox.send)
    made.world.time += timedelta(days=7.1).total_seconds()
    watch(made.replica, inbox.send)
    drift, stale = told_in(inbox, "feishu")
    assert drift[0] == f"{MODEL}：线上准确率漂移"
    assert f"{day}，{MODEL}-compressed 的线上准确率比原模型低 0.0900（置信区间 " in drift[1]
    assert "；压缩模型 1000 行，原模型 1000 行）；alpha 为 0.02\nhttps://trigger.example" in drift[1]
    assert stale == (f"{MODEL}：有版本尚未压缩", f"{MODEL} 版本 1 已有 7 天未压缩\nhttps://trigger.example")


def test_a_second_try_says_so_in_the_language_of_the_address(make_settings: Any) -> None:
    made = scene(noticed(make_settings_once(make_settings), BILINGUAL[1]))
    inbox = Inbox(made.world, refuses=1)
    made.world.run(lambda: notify(made.trigger, NEWS_ITEM))
    for _ in range(2):
        made.world.run(lambda: deliver(made.trigger, inbox.send))
        made.world.time += LAPSE.total_seconds()
    assert told_in(inbox, "feishu")[0][1].endswith("\n（此前已尝试发送，您可能已收到过本通知。）")


def test_a_notice_from_before_the_address_had_its_language_is_english_as_a_whole(make_settings: Any) -> None:
    made = scene(noticed(make_settings_once(make_settings)))
    notify(made.trigger, NEWS_ITEM)
    kept = b"".join(one.data for name, one in made.objects.kept.items() if name.startswith("notices/"))
    assert b"others" not in kept, "who has no other language keeps nothing more"
    changed = noticed(made.trigger.settings, NoticeAddress(name="mail", env="MAIL", language="zh"))
    inbox = Inbox(made.world)
    deliver(replace(made.trigger, settings=changed), inbox.send)
    assert told_in(inbox, "mail") == [(f"{MODEL}: compression has failed", "the run has failed: x")]


def test_without_an_address_nothing_is_noted(make_settings: Any) -> None:
    made = scene(make_settings_once(make_settings))
    run_to(made, State.failed)
    assert watch(made.trigger, lambda *_: True) == []
    assert not [name for name in made.objects.kept if name.startswith("notices/")]


def test_events_from_before_the_first_notice_are_no_news(make_settings: Any) -> None:
    made = scene(noticed(make_settings_once(make_settings)))
    inbox = Inbox(made.world)
    run_to(made, State.failed)
    made.world.time += 2 * BEFORE.total_seconds()
    watch(made.trigger, inbox.send)
    assert titles(inbox) == []


def test_notices_are_forgotten_after_a_while_and_versions_never(make_settings: Any) -> None:
    made = scene(noticed(make_settings_once(make_settings)))
    inbox = Inbox(made.world)
    note(made.trigger, MODEL, [NEWS_ITEM, Notice(NoticeKind.stale, MODEL, words("old"), event="1")])
    deliver(made.trigger, inbox.send)
    made.world.time += 2 * KEPT.total_seconds()
    note(made.trigger, MODEL, [Notice(NoticeKind.drift, MODEL, words("new"), event="2")])
    assert list(read_box(made.trigger.objects, MODEL, made.trigger.clock())[0].notices) == ["stale:1", "drift:2"]


# Sending


def real(base: TriggerSettings, folder: Path) -> Trigger:
    """A trigger with a store in a folder and this machine's clock."""
    made = scene(base)
    objects = open_store(str(folder / "store")).objects
    return replace(made.trigger, objects=objects, claims=Claims(objects), clock=lambda: datetime.now(UTC))


def test_a_message_that_takes_long_holds_nothing_up(make_settings: Any, tmp_path: Path) -> None:
    trigger = real(noticed(make_settings(), seconds=0.2), tmp_path)
    note(trigger, MODEL, [NEWS_ITEM])
    go_on, sent = threading.Event(), threading.Event()

    def send(address: NoticeAddress, title: str, text: str) -> bool:
        go_on.wait(60)
        sent.set()
        return True

    began = time.monotonic()
    assert watch(trigger, send) == []
    assert watch(trigger, send) == [], "a second round does not send beside the first"
    assert time.monotonic() - began < 30
    assert not sent.is_set()
    go_on.set()
    assert sent.wait(60)


class Receiver(BaseHTTPRequestHandler):
    """Keeps what it gets; refuses below /refused."""

    got: list[tuple[str, str, dict[str, Any]]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).got.append((self.path, self.headers.get("Authorization", ""), body))
        self.send_response(500 if self.path.startswith("/refused") else 200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[tuple[int, list[tuple[str, str, dict[str, Any]]]]]:
    """A real web server: its port, and what has come."""
    Receiver.got = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=lambda: server.serve_forever(0.05), daemon=True).start()
    yield server.server_port, Receiver.got
    server.shutdown()
    server.server_close()


def test_apprise_brings_the_notice_and_nobody_prints_the_address(
    receiver: tuple[int, list[tuple[str, str, dict[str, Any]]]],
    make_settings: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    port, got = receiver
    caplog.set_level(logging.DEBUG)
    (tmp_path / "good").write_text(f"json://ada:{PASSWORD}@127.0.0.1:{port}/hook\n", "utf-8")
    monkeypatch.setenv("REFUSED", f"json://ada:{PASSWORD}@127.0.0.1:{port}/refused/hook")
    monkeypatch.setenv("CLOSED", f"json://ada:{PASSWORD}@127.0.0.1:9/hook")
    monkeypatch.setenv("STRANGE", f"nonsense://ada:{PASSWORD}@127.0.0.1/hook")
    addresses = [
        NoticeAddress(name="good", file=tmp_path / "good"),
        *(NoticeAddress(name=name.lower(), env=name) for name in ("REFUSED", "CLOSED", "STRANGE", "EMPTY")),
    ]
    trigger = real(noticed(make_settings(), *addresses), tmp_path)
    notify(trigger, replace(NEWS_ITEM, link="https://kubeflow.example/run"))
    faults = deliver(trigger, send_with_apprise)
    assert [fault.removeprefix("a notice to ").split()[0] for fault in faults] == [
        "refused",
        "closed",
        "strange",
        "empty",
    ]
    assert "no address that apprise knows" in faults[2]
    assert "there is no address" in faults[3]
    _, login, body = next(one for one in got if one[0] == "/hook")
    assert login.startswith("Basic ")
    assert (body["title"], body["message"]) == (
        f"{MODEL}: compression has failed",
        "the run has failed: x\nhttps://kubeflow.example/run",
    )
    printed = capfd.readouterr()
    kept = b"".join(found.data for entry in trigger.objects.entries("") if (found := trigger.objects.read(entry.name)))
    for text in (printed.out, printed.err, caplog.text, *faults, repr(trigger.settings), kept.decode("utf-8")):
        assert PASSWORD not in text


def test_an_address_is_read_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "mail"
    address = NoticeAddress(name="mail", file=file)
    for wrong, said in ((None, "cannot be read"), (b"", "no address"), (b"a\nb", "more than one"), (b"\xff", "UTF-8")):
        if wrong is not None:
            file.write_bytes(wrong)
        with pytest.raises(UserError, match=said):
            secret_of(address)
    for text in ("json://one/", "json://two/"):
        file.write_text(f"{text}\n", "utf-8")
        assert secret_of(address) == text


def test_a_file_that_is_no_address_is_said_without_its_text(tmp_path: Path) -> None:
    (tmp_path / "mail").write_text(f"strange://{PASSWORD}", "utf-8")
    with pytest.raises(UserError) as caught:
        send_with_apprise(NoticeAddress(name="mail", file=tmp_path / "mail"), "t", "t")
    assert str(caught.value) == f"{tmp_path / 'mail'}: this is no address that apprise knows"


# Settings


def test_the_settings_name_files_from_their_own_folder_and_refuse_secrets(make_settings: Any, tmp_path: Path) -> None:
    from support.promotion_work import settings_file

    def read(*addresses: dict[str, Any]) -> TriggerSettings:
        return read_settings(settings_file(tmp_path, MODEL, "http://m", {"notices": {"addresses": list(addresses)}}))

    assert read({"name": "mail", "file": "mail"}).notices.addresses[0].file == tmp_path / "mail"
    for wrong, said in (
        ([{"name": "mail", "url": f"mailtos://ada:{PASSWORD}@host"}], "not permitted"),
        ([{"name": "mail"}], "takes either"),
        ([{"name": "mail", "env": "A", "language": "zh-CN"}], "language"),
        ([{"name": "mail", "env": "A"}, {"name": "mail", "env": "B"}], "two addresses with the name mail"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            read(*wrong)
        assert PASSWORD not in str(caught.value)
