"""Claims in a directory and in a bucket: written once, changed by compare-and-swap, checked when they are read."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from lmmpress.store import open_store
from lmmpress.store.housekeeping.garbage import collect_garbage
from lmmpress.store.kinds import CLAIMS
from lmmpress.store.objects import UnreadableError
from lmmpress.trigger.claims import Cause, Claim, Claims, ConflictError, State
from lmmpress.trigger.question import Question, model_key

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
QUESTION = Question("Ant GMM/中文", "8", "d" * 64, None, "p" * 64, "local", "usual")


@pytest.fixture(params=["directory", "bucket"])
def claims(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Claims:
    address = str(tmp_path_factory.mktemp("store") / "store")
    return Claims(
        open_store(request.getfixturevalue("bucket_address") if request.param == "bucket" else address).objects
    )


def create(claims: Claims, question: Question = QUESTION, by: str = "ann") -> Claim:
    made = claims.create(question, by=by, cause=Cause.page, why="new", now=NOW)
    assert isinstance(made, Claim)
    return made


def test_a_question_that_is_asked_by_many_at_once_has_one_claim(claims: Claims) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: create(Claims(claims.objects), by=f"p{number}"), range(16)))
    assert len(set(made)) == 1
    assert claims.all() == made[:1]
    assert Claims(claims.objects).get(made[0].key) == made[0]


def test_every_part_of_a_question_counts_but_the_name_of_its_plan() -> None:
    others: list[Callable[[Question], Question]] = [
        lambda one: replace(one, model="B"),
        lambda one: replace(one, version="9"),
        lambda one: replace(one, digest="e" * 64),
        lambda one: replace(one, data="f" * 64),
        lambda one: replace(one, plan="q" * 64),
        lambda one: replace(one, pipeline="argo"),
    ]
    assert len({QUESTION.key, *(change(QUESTION).key for change in others)}) == 7
    assert replace(QUESTION, plan_name="another").key == QUESTION.key


def test_a_runs_name_is_a_dns_label_whatever_the_model_is_called() -> None:
    assert QUESTION.run_name(1) == f"lmmpress-ant-gmm-8-{QUESTION.key[-40:-28]}-1"
    strange = replace(QUESTION, model="中文", version="v" * 40)
    assert strange.run_name(12).startswith("lmmpress-model-vvvvvvvv-")
    assert len(replace(QUESTION, model="x" * 200).run_name(1000)) <= 63


def test_a_change_is_refused_where_the_claim_was_changed_since(claims: Claims) -> None:
    claim, other = create(claims), create(claims, replace(QUESTION, version="9"))
    moved = claims.move(claim, State.submitted, by="a", now=NOW, note="there")
    assert (moved.state, moved.revision, moved.note) == (State.submitted, 1, "there")
    with pytest.raises(ConflictError):
        Claims(claims.objects).move(claim, State.cancelled, by="b", now=NOW)
    assert claims.move(other, State.failed, by="b", now=NOW).state is State.failed, "others of the model do not count"
    assert [one.state for one in claims.all(QUESTION.model)] == [State.submitted, State.failed]


def test_what_people_write_is_kept_in_one_short_line_without_secrets(claims: Claims) -> None:
    made = claims.create(
        QUESTION, by="ann\x1b[2J", cause=Cause.rest, why="x\npassword=hunter22222 " + "y" * 5000, now=NOW
    )
    assert isinstance(made, Claim)
    assert made.by == "ann [2J"
    assert "hunter" not in made.why
    assert len(made.why) <= 500


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"model": "Another", "claims": [], "format": 1}', b'{"format": 2}'])
def test_claims_that_cannot_be_read_are_one_line(claims: Claims, content: bytes) -> None:
    claims.objects.write(CLAIMS.name(model_key(QUESTION.model)), content, None)
    with pytest.raises(UnreadableError, match="claims"):
        create(claims)


@pytest.mark.parametrize(
    ("before", "after"),
    [(r'"events": \[.*?\]', '"events": []'), (r'("at": "[^"]*?)Z"', r'\1"')],
    ids=["no event", "a time without its zone"],
)
def test_a_claim_without_a_time_is_one_line(claims: Claims, before: str, after: str) -> None:
    create(claims)
    name = CLAIMS.name(model_key(QUESTION.model))
    found = claims.objects.read(name)
    assert found is not None
    changed = re.sub(before, after, found.data.decode(), flags=re.DOTALL)
    assert changed.encode() != found.data
    claims.objects.write(name, changed.encode(), found.tag)
    with pytest.raises(UnreadableError, match="claims"):
        claims.all()


@pytest.mark.parametrize("key", ["", "x", "../../etc/passwd", "a" * 300, "0" * 12, "0" * 12 + "-" + "0" * 40])
def test_a_key_of_a_stranger_finds_nothing(claims: Claims, key: str) -> None:
    create(claims)
    assert claims.get(key) is None


def test_housekeeping_leaves_claims_alone(claims: Claims) -> None:
    made = create(claims)
    collect_garbage(open_store(claims.objects.address), grace=0.0, dry_run=False)
    assert claims.all() == [made]
