"""A run that the trigger has ordered compares its result with its original; promotion and the page find that."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.results import fabricated
from support.trigger_page import (
    ENDED,
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
    compare_in_store,
    on_kubeflow,
    page_settings,
    pair_of,
    without_comparison,
    words_of,
)
from support.trigger_server import Running, running, until

from lmmpress.engine.kept import keep_result, note_uncompared
from lmmpress.errors import AwayError
from lmmpress.trigger import aliases, run_comparison
from lmmpress.trigger.claims import Claim, State
from lmmpress.trigger.comparisons import of_pair, part_to_keep
from lmmpress.trigger.made_from import Made
from lmmpress.trigger.progress import progress_of
from lmmpress.trigger.run_comparison import take_comparison
from lmmpress.trigger.trigger import Trigger

AS_VIEWER = PROXY | {"X-Auth-Request-Groups": VIEWERS}
FINAL = f"{4:064x}"
"""The checkpoint of the last step that was accepted after the decisions ENDED."""


class OfRun(Pointing):
    """A registry whose versions are the result of the run."""

    def about(self, model: str, version: str) -> aliases.Registered | None:
        return aliases.Registered(version, True, FINAL, "a" * 64)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    lineage = Lineage({("antgmm-compressed", "compressed"): Made("5", NOW, "5")})
    settings = page_settings(tmp_path)
    registry = Registered({"antgmm": (5, timedelta(days=12))})
    with running(settings, registry, made_from=lineage, aliases=OfRun(lineage)) as found:
        yield found


def ended(trigger: Trigger, state: State = State.succeeded) -> Claim:
    """A run of engine local whose stages have ended."""
    claim = claimed(trigger, "antgmm", "5", state, began=NOW - timedelta(days=1))
    begin_in_folder(trigger, claim, ENDED, ended=True)
    return claim


def compared_pairs(trigger: Trigger, claim: Claim) -> list[Any]:
    progress = progress_of(trigger, claim)
    assert progress is not None
    return of_pair(trigger.objects, *pair_of(progress))


def record_of(trigger: Trigger, claim: Claim) -> Path:
    """The file of the comparison that a run has kept."""
    progress = progress_of(trigger, claim)
    assert progress is not None
    (record,) = (Path(progress.store.root_address.removeprefix("file://")) / "records").glob("compared-*")
    return record


# What the trigger orders, and what it takes


def test_runs_compare_what_the_rule_of_promotion_asks_for(server: Running, tmp_path: Path) -> None:
    trigger = server.service.trigger
    question = trigger.question("antgmm")
    assert trigger.order(question).plan.compare
    without = Trigger(without_comparison(trigger.settings), *[getattr(trigger, name) for name in _REST])
    assert not without.order(question).plan.compare
    assert without.question("antgmm").key == question.key, "the question is the same"
    assert without.order(question).as_asked


_REST = ("objects", "claims", "registry", "engines", "clock")


def test_the_comparison_of_a_run_is_taken_once_in_its_name(server: Running) -> None:
    trigger = server.service.trigger
    claim = ended(trigger)
    found = compare_in_store(trigger, claim)
    for _ in range(2):
        assert take_comparison(trigger, claim) == "compared with its original: 0.0100 lost on 1000 rows"
    (kept,) = compared_pairs(trigger, claim)
    assert (kept.by, kept.comparison) == (claim.run, part_to_keep(found))
    assert kept.comparison.by_task["<i>advert</i>"].drop == pytest.approx(0.01)


def test_it_is_there_when_the_claim_says_that_the_run_has_succeeded(server: Running) -> None:
    trigger = server.service.trigger
    person = Browser(server.address, dict(PROXY))
    key = person.post("/models/antgmm/fire", {"form": person.form_token("/")}).headers["location"].split("/")[2]
    key = key.partition("?")[0]
    until(lambda: server.service.claim(key).sent)
    claim = server.service.claim(key)
    begin_in_folder(trigger, claim, ENDED, ended=True)
    compare_in_store(trigger, claim)
    server.runs.phases[claim.run] = "succeeded"

    def succeeded() -> bool:
        server.service.carry_on_soon(key)
        return server.service.claim(key).state is State.succeeded

    until(succeeded)
    assert server.service.claim(key).note.endswith("compared with its original: 0.0100 lost on 1000 rows")
    assert len(compared_pairs(trigger, claim)) == 1


def test_a_run_that_could_not_be_compared_says_why(server: Running) -> None:
    trigger = server.service.trigger
    claim = ended(trigger)
    assert take_comparison(trigger, claim) == "it was not compared with its original"
    progress = progress_of(trigger, claim)
    assert progress is not None
    note_uncompared(progress.store, progress.key, "the rows have changed")
    assert take_comparison(trigger, claim) == "it was not compared with its original: the rows have changed"
    assert compared_pairs(trigger, claim) == []


@pytest.mark.parametrize("pair", [{"a": "e" * 64}, {"b": "e" * 64}])
def test_a_run_does_not_speak_for_another_pair(server: Running, pair: dict[str, str]) -> None:
    trigger = server.service.trigger
    claim = ended(trigger)
    compare_in_store(trigger, claim, **pair)
    assert "is of another pair" in take_comparison(trigger, claim)
    assert list(trigger.objects.entries("comparisons/")) == []
    assert "is of another pair" in words_of(Browser(server.address, AS_VIEWER).text(f"/runs/{claim.key}"))
    assert Browser(server.address, AS_VIEWER).get(f"/runs/{claim.key}/comparison").status == 503


def test_a_store_that_is_away_is_asked_again_and_one_that_cannot_be_read_holds_nothing_up(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    trigger = server.service.trigger
    claim = ended(trigger)
    compare_in_store(trigger, claim)

    def away(*arguments: Any) -> None:
        raise AwayError("the store gives no answer")

    with monkeypatch.context() as patched:
        patched.setattr(run_comparison, "kept_comparison", away)
        with pytest.raises(AwayError):
            take_comparison(trigger, claim)
    record = record_of(trigger, claim)
    whole = json.loads(record.read_text("utf-8"))
    for text in ("{", json.dumps(whole | {"pictures": ["é"]})):
        record.write_text(text, "utf-8")
        assert take_comparison(trigger, claim).startswith("its comparison cannot be taken: ")


def test_a_comparison_that_no_run_has_found_is_no_page_and_no_traceback(server: Running) -> None:
    trigger = server.service.trigger
    claim = ended(trigger)
    compare_in_store(trigger, claim)
    record = record_of(trigger, claim)
    whole = json.loads(record.read_text("utf-8"))
    whole["comparison"]["b"]["speed"] = None  # though the two took turns
    record.write_text(json.dumps(whole), "utf-8")
    answer = Browser(server.address, AS_VIEWER).get(f"/runs/{claim.key}/comparison")
    assert answer.status == 503
    assert "no run has its numbers" in words_of(answer.body.decode("utf-8"))


# On the page


def test_the_page_of_a_model_shows_it_and_lets_the_owner_promote_without_more(server: Running) -> None:
    trigger = server.service.trigger
    claim = ended(trigger)
    compare_in_store(trigger, claim)
    take_comparison(trigger, claim)
    person = Browser(server.address, dict(PROXY))
    page = person.text("/models/antgmm", accept_language="en")
    said = words_of(page)
    for words in (
        "How compressed version 5 compares with its original",
        "Equal answers 96.0 %",
        "2.50 times as many (turns: 2.25 to 2.75)",
        "<i>advert</i> 1 000 99.0 % 98.0 % 1.0 0.5 to 1.5",
        f"compared by run {claim.run}",
        "Put compressed version 5 into service",
    ):
        assert words in said
    assert "<i>advert" not in page
    assert f'href="/runs/{claim.key}/comparison"' in page
    assert "由运行" in words_of(person.text("/models/antgmm", accept_language="zh"))
    token = person.form_token("/models/antgmm")
    fields = {"form": token, "version": "5", "seen": "", "why": "for version 5"}
    assert person.post("/models/antgmm/promote", fields).headers["location"].endswith("done=promoted")


def test_the_page_of_a_run_shows_it_and_leads_to_the_whole_comparison(server: Running) -> None:
    trigger = server.service.trigger
    claim = ended(trigger)
    person = Browser(server.address, AS_VIEWER)
    assert person.get(f"/runs/{claim.key}/comparison").status == 404
    compare_in_store(trigger, claim)
    other = claimed(trigger, "antgmm", "4", State.running, began=NOW)
    page = person.text(f"/runs/{claim.key}", accept_language="en")
    assert "Compared with the original" in words_of(page)
    assert f'href="/runs/{claim.key}/comparison"' in page
    assert person.get(f"/runs/{other.key}/comparison").status == 404
    answer = person.get(f"/runs/{claim.key}/comparison")
    whole = answer.body.decode("utf-8")
    assert "Rows with different answers" in whole
    assert 'src="data:image/png;base64,' in whole
    assert "<script>" not in whole
    policy = answer.headers["content-security-policy"]
    assert re.fullmatch(r"default-src 'none'; style-src 'sha256-[^']+'; img-src data:; .*; sandbox", policy)
    assert "unsafe" not in policy
    assert Browser(server.address).get(f"/runs/{claim.key}/comparison").status in (303, 401)


def test_the_page_of_a_run_says_why_it_was_not_compared(server: Running) -> None:
    trigger = server.service.trigger
    claim = ended(trigger)
    progress = progress_of(trigger, claim)
    assert progress is not None
    note_uncompared(progress.store, progress.key, "<u>no memory</u>")
    page = Browser(server.address, AS_VIEWER).text(f"/runs/{claim.key}", accept_language="en")
    assert "It was not compared with the original: <u>no memory</u>" in words_of(page)
    assert "<u>no" not in page


def test_a_run_on_a_cluster_has_its_report_and_comparison_from_its_store(tmp_path: Path) -> None:
    plan = PLAN | {"store": str(tmp_path / "runs-store")}
    settings = on_kubeflow(page_settings(tmp_path), tmp_path, "antgmm", plan)
    with running(settings, Registered({"antgmm": (5, timedelta(1))}), made_from=Lineage()) as server:
        trigger = server.service.trigger
        claim = claimed(trigger, "antgmm", "5", State.succeeded, began=NOW - timedelta(days=1))
        begin_on_kubeflow(trigger, claim, ENDED)
        person = Browser(server.address, AS_VIEWER)
        assert person.get(f"/runs/{claim.key}/report").status == 404
        progress = progress_of(trigger, claim)
        assert progress is not None
        keep_result(progress.store, progress.key, fabricated())
        compare_in_store(trigger, claim)
        assert take_comparison(trigger, claim).startswith("compared with its original")
        assert person.get(f"/runs/{claim.key}/comparison").status == 200
        answer = person.get(f"/runs/{claim.key}/report")
        assert "Original and compressed" in answer.body.decode("utf-8")
        assert "sandbox" in answer.headers["content-security-policy"]
        page = words_of(person.text(f"/runs/{claim.key}", accept_language="en"))
        assert "Open the report" in page
        assert "Open the whole comparison" in page
