"""Hints and acts in the store: written once, whatever is delivered again or damaged."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lmmpress.store import open_store
from lmmpress.store.objects import Objects
from lmmpress.trigger.acts import Act, record, recorded
from lmmpress.trigger.check import check_store
from lmmpress.trigger.claims import Claims
from lmmpress.trigger.hints import KEPT, Hint, forget, hinted, note

HINT = Hint("d-1", "0" * 64, "antgmm", "2")


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return open_store(str(tmp_path / "store")).objects


def make_old(folder: Path, seconds: float) -> None:
    for path in folder.glob("*.json"):
        state = path.stat()
        os.utime(path, (state.st_atime, state.st_mtime - seconds))


def test_a_hint_is_noted_once(objects: Objects) -> None:
    assert note(objects, HINT) == "new"
    assert note(objects, HINT) == "repeated"
    assert list(hinted(objects)) == [HINT]


def test_the_id_of_a_delivery_cannot_come_with_another_body(objects: Objects) -> None:
    note(objects, HINT)
    assert note(objects, replace(HINT, sha256="1" * 64, model="other")) == "other"
    assert list(hinted(objects)) == [HINT]


def test_any_id_can_be_noted(objects: Objects) -> None:
    for identifier in ("../../etc/passwd", "a/b", "." * 200, "*"):
        assert note(objects, replace(HINT, delivery=identifier)) == "new"
    assert len(list(hinted(objects))) == 4


def test_hints_are_forgotten_when_no_delivery_of_their_time_counts_any_more(objects: Objects, tmp_path: Path) -> None:
    note(objects, HINT)
    assert forget(objects) == 0
    make_old(tmp_path / "store" / "hints", KEPT + 1)
    note(objects, replace(HINT, delivery="d-2"))
    assert forget(objects) == 1
    assert [hint.delivery for hint in hinted(objects)] == ["d-2"]


def test_a_damaged_hint_is_left_out(objects: Objects, tmp_path: Path) -> None:
    note(objects, HINT)
    for path in (tmp_path / "store" / "hints").glob("*.json"):
        path.write_text("{", "utf-8")
    assert list(hinted(objects)) == []
    assert note(objects, HINT) == "other"


def test_the_probe_of_a_check_that_was_killed_stops_nothing(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "delete", lambda name: None)
    assert [one.status for one in check_store(objects)] == ["ok"]
    monkeypatch.undo()
    assert Claims(objects).all() == []
    assert list(hinted(objects)) == []
    make_old(tmp_path / "store" / "hints", KEPT + 1)
    assert forget(objects) == 1


def test_acts_are_kept_in_order_and_by_day(objects: Objects) -> None:
    acts = [Act(at=at, by="mei", role="operator", what="fire", model="antgmm", why="v2") for at in (86_401.5, 5.0, 6.0)]
    for act in acts:
        record(objects, act)
    assert [act.at for act in recorded(objects)] == [5.0, 6.0, 86_401.5]
    assert [act.at for act in recorded(objects, "1970-01-02")] == [86_401.5]
    assert acts[0].when == "1970-01-02T00:00:01Z"


def test_an_act_holds_no_credentials_and_no_control_characters(objects: Objects) -> None:
    record(objects, Act(at=1.0, by="mei", role="operator", what="fire", why="see https://u:pa55@host\n\x1b[2Jnext"))
    (act,) = recorded(objects)
    assert "pa55" not in act.why
    assert act.why.isprintable()


@pytest.mark.parametrize("spoil", [lambda path: path.write_text("{}", "utf-8"), lambda path: path.write_bytes(b"\xff")])
def test_a_damaged_act_is_left_out(objects: Objects, tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    record(objects, Act(at=1.0, by="mei", role="operator", what="fire"))
    for path in (tmp_path / "store" / "acts").glob("*.json"):
        spoil(path)
    assert list(recorded(objects)) == []
