"""Exactly one run for each question, whatever is killed, lost, late or doubled.

The properties run in a world in memory (support/trigger_world.py) in which several processes are interleaved.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.trigger_world import MODEL, MadeRun, Scene, scene

from lmmpress.store.kinds import CLAIMS, RECONCILER
from lmmpress.store.objects import Found
from lmmpress.store.run_state import hold
from lmmpress.trigger.carry_on import REQUEST, WINDOW, carry_on
from lmmpress.trigger.claims import AGAIN, Cause, Claim, Sent, State
from lmmpress.trigger.engines import interface
from lmmpress.trigger.engines.interface import Order, Seen
from lmmpress.trigger.fire import Refused, cancel, fire, retry
from lmmpress.trigger.reconcile import Reconciled, reconcile
from lmmpress.trigger.settings import TriggerSettings

KINDS = (
    "deliver",
    "press",
    *("round", "carry") * 4,  # what may go wrong goes wrong while several of these are at work
    "release",
    "back",
    "registry",
    "engine",
    "progress",
    "wait",
    "wait",
    "cancel",
    "retry",
    "finish",
)


@dataclass(frozen=True)
class Event:
    """Something that happens; then as many turns of the processes at work."""

    kind: str
    turns: int


TURNS = (0, 2, 5, 10, 20, 40, 80)
EVENTS = st.lists(st.builds(Event, st.sampled_from(KINDS), st.sampled_from(TURNS)), min_size=4, max_size=20)
SEEDS = st.integers(0, 2**32 - 1)


class Played:
    """An order of events in a world, and what came of it."""

    def __init__(self, made: Scene) -> None:
        self.scene, self.world = made, made.world
        self.claimed: set[str] = set()

    def happen(self, event: Event) -> None:
        registry, engine, replica = self.scene.registry, self.scene.engine, self.scene.replica
        match event.kind:
            case "deliver":
                self.world.start(lambda: self._note(fire(replica, MODEL, by="mlflow", cause=Cause.webhook)))
            case "press":
                self.world.start(lambda: self._note(fire(replica, MODEL, by="ann", cause=Cause.page, why="new")))
            case "round":
                self.world.start(lambda: reconcile(replica))
            case "carry":
                self.world.start(lambda: [carry_on(replica, one, "a shell") for one in replica.claims.all(MODEL)])
            case "release":
                registry.newest += 1
                registry.version = registry.newest
            case "back":
                registry.version = max(1, registry.version - 1)
            case "registry":
                registry.up = not registry.up
            case "engine":
                engine.up = not engine.up
            case "progress":
                engine.progress(event.turns)
            case "wait":
                self.world.time += event.turns * 10
            case "cancel":
                self.world.start(lambda: [cancel(replica, key, by="ann", why="no") for key in self._keys()[-1:]])
            case "retry":
                self.world.start(lambda: [retry(replica, key, by="ann", why="again") for key in self._keys()[-1:]])
            case "finish":
                self.world.settle()
        for _ in range(event.turns):
            self.world.turn()

    def _keys(self) -> list[str]:
        return [claim.key for claim in self.scene.replica.claims.all(MODEL)]

    def _note(self, answer: Claim | Refused) -> None:
        if isinstance(answer, Claim):
            self.claimed.add(answer.key)

    def calm_down(self) -> list[Claim]:
        """All that is at work ends, and nothing goes wrong any more: the claims after some rounds of the reconciler, of
        which the last one changes nothing."""
        self.world.settle()
        self.world.calm = True
        self.scene.registry.up = self.scene.engine.up = True
        claims = None
        for _ in range(12):
            before = claims
            self.world.time += 400
            done = self.world.run(lambda: reconcile(self.scene.replica))
            assert not done.faults, done.faults
            for number in range(len(self.scene.engine.runs)):
                self.scene.engine.progress(2 * number)
            claims = self.scene.trigger.claims.all(MODEL)
            if claims == before and not any(claim.is_open for claim in claims):
                break
        return claims or []


def play(made: Scene, events: list[Event]) -> None:
    """Play an order of events; then check that every question has had one run."""
    played = Played(made)
    for event in (Event("deliver", 0), *events):
        played.happen(event)
    check(played, played.calm_down())


def check(played: Played, claims: list[Claim]) -> None:
    runs = played.scene.engine.runs
    names = [one.order.run for one in runs]
    assert len(names) == len(set(names)), "no question has two runs of one attempt"
    known = {claim.question.run_name(attempt) for claim in claims for attempt in range(1, claim.attempt + 1)}
    assert set(names) <= known, "no run without a claim"
    assert played.claimed <= {claim.key for claim in claims}, "no claim is lost"
    assert str(played.scene.registry.version) in {claim.question.version for claim in claims}, "the release is answered"
    for claim in claims:
        assert not claim.is_open, claim
        assert claim.sending is None or claim.state is State.cancelled
        if claim.state in (State.succeeded, State.failed):
            assert claim.run in names
        path = [event.state for event in claim.events]
        for before, after in pairwise(path):
            assert before is not State.succeeded, path
            assert before not in AGAIN or after is State.claimed, path
    assert all(one.phase not in ("waiting", "running") for one in runs), "no run is forgotten"


SLOWLY = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@pytest.fixture(scope="module")
def watching(make_settings: Callable[..., TriggerSettings]) -> TriggerSettings:
    return make_settings()


@settings(max_examples=100, **SLOWLY)  # type: ignore[arg-type]
@given(events=EVENTS, seed=SEEDS, settles=st.sampled_from([60.0, 0.0]))
def test_a_question_has_one_run(watching: TriggerSettings, events: list[Event], seed: int, settles: float) -> None:
    play(scene(watching, seed, settles), events)


@pytest.mark.long
@settings(max_examples=10_000, phases=[Phase.generate, Phase.shrink], **SLOWLY)  # type: ignore[arg-type]
@given(events=EVENTS, seed=SEEDS, settles=st.sampled_from([60.0, 0.0]))
def test_a_question_has_one_run_in_ten_thousand_orders(
    watching: TriggerSettings, events: list[Event], seed: int, settles: float
) -> None:
    play(scene(watching, seed, settles), events)


@pytest.mark.parametrize("settles", [60.0, 0.0])
def test_a_process_may_be_killed_at_every_point(watching: TriggerSettings, settles: float) -> None:
    """Of a delivery, and of the rounds that submit its run and follow it to its end."""
    points = 0
    while True:
        points += 1
        made = scene(watching, settles=settles)
        made.world.kill_at = points
        played = Played(made)
        for event in (Event("deliver", 0), Event("finish", 0), *(Event("round", 0), Event("finish", 0)) * 2):
            played.happen(event)
        made.engine.progress(0)
        played.happen(Event("round", 0))
        killed = made.world.points >= points
        made.world.kill_at = None
        check(played, played.calm_down())
        if not killed:
            break
    assert points > 50, "there are as many points as that"


def stop_when(made: Scene, reached: Callable[[], bool]) -> None:
    """Let the processes go on until something holds."""
    while not reached():
        assert made.world.turn(), "it never holds"


def sent_note(made: Scene) -> bool:
    """Whether a process has noted that it sends."""
    return any(b'"sending":{' in found.data.replace(b" ", b"") for found in made.objects.kept.values())


@pytest.fixture
def claimed(watching: TriggerSettings) -> Scene:
    """A world with a claim that is not submitted."""
    made = scene(watching)
    made.world.run(lambda: fire(made.replica, MODEL, by="mlflow", cause=Cause.webhook))
    return made


def rounds(made: Scene, seconds: int, each: int = 10) -> None:
    """The reconciler's rounds of another machine for so many seconds."""
    for _ in range(0, seconds, each):
        made.world.run(lambda: [carry_on(made.replica, one, "b") for one in made.replica.claims.all(MODEL)])
        made.world.time += each


def test_a_process_that_was_halted_too_long_asks_for_no_run(claimed: Scene) -> None:
    halted = claimed.world.start(lambda: reconcile(claimed.replica))
    stop_when(claimed, lambda: sent_note(claimed))
    claimed.world.time += WINDOW + 1
    stop_when(claimed, lambda: halted.ended)
    assert claimed.engine.asked == 0
    rounds(claimed, 1000, 50)
    assert len(claimed.engine.runs) == 1


def test_the_slowest_request_and_the_slowest_list_make_no_second_run(claimed: Scene) -> None:
    """The request is sent at the last moment, takes as long as it may, and shows as late as it may; its process is
    killed meanwhile."""
    claimed.engine.lag = claimed.engine.settles
    killed = claimed.world.start(lambda: carry_on(claimed.replica, claimed.replica.claims.all(MODEL)[0], "a"))
    stop_when(claimed, lambda: sent_note(claimed))
    claimed.world.time += WINDOW
    stop_when(claimed, lambda: claimed.engine.asked == 1)
    claimed.world.processes.remove(killed)  # halted, while others work
    rounds(claimed, int(REQUEST))
    claimed.world.processes.append(killed)
    others = len(claimed.engine.runs)
    stop_when(claimed, lambda: len(claimed.engine.runs) > others)
    killed.killed = True
    claimed.world.settle()
    rounds(claimed, 1000)
    assert len(claimed.engine.runs) == 1
    assert claimed.trigger.claims.all(MODEL)[0].state is State.submitted


@pytest.mark.parametrize("settles", [60.0, 0.0])
def test_a_run_that_is_just_being_sent_is_cancelled_once_it_is_there(claimed: Scene, settles: float) -> None:
    claimed.engine.settles = settles
    slow = claimed.world.start(lambda: carry_on(claimed.replica, claimed.replica.claims.all(MODEL)[0], "a"))
    stop_when(claimed, lambda: claimed.engine.asked == 1)
    claimed.world.processes.remove(slow)
    claimed.world.run(lambda: cancel(claimed.replica, claimed.replica.claims.all(MODEL)[0].key, by="ann", why="no"))
    rounds(claimed, 100)
    assert claimed.trigger.claims.all(MODEL)[0].state is State.claimed, "the request may still arrive"
    claimed.world.processes.append(slow)
    claimed.world.settle()
    rounds(claimed, 500)
    assert [one.phase for one in claimed.engine.runs] == ["cancelled"]
    assert claimed.trigger.claims.all(MODEL)[0].state is State.cancelled


@pytest.mark.parametrize("phase", ["cancelled", "failed", "dead"])
def test_a_run_that_ends_since_a_person_wanted_it_is_cancelled_whatever_its_engine_calls_that(
    claimed: Scene, phase: interface.Phase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubeflow 2.17 on Argo 4.0 ends it as FAILED."""
    rounds(claimed, 10)
    monkeypatch.setattr(claimed.engine, "look", lambda order, sent: Seen(phase, "as the engine says"))
    key = claimed.trigger.claims.all(MODEL)[0].key
    claimed.world.run(lambda: cancel(claimed.replica, key, by="ann", why="wrong data"))
    rounds(claimed, 10)
    claim = claimed.trigger.claims.all(MODEL)[0]
    assert (claim.state, claim.note) == (State.cancelled, "wrong data")


def test_of_two_reconcilers_one_works_and_the_other_says_so_at_once(claimed: Scene) -> None:
    with hold(claimed.replica.objects, RECONCILER):
        assert claimed.world.run(lambda: reconcile(claimed.replica)) == Reconciled(elsewhere=True)
    assert claimed.engine.asked == 0
    assert [one.state for one in claimed.world.run(lambda: reconcile(claimed.replica)).moved] == [State.submitted]


def test_a_damaged_record_of_one_model_does_not_stop_the_others(claimed: Scene) -> None:
    claimed.objects.kept[CLAIMS.name("0" * 12)] = Found(b"{}", "1", claimed.world.time)
    done = claimed.world.run(lambda: reconcile(claimed.replica))
    assert [one.state for one in done.moved] == [State.submitted]
    (fault,) = done.faults
    assert "holds no claims that this lmmpress can read" in fault


def test_a_plan_that_was_changed_before_its_run_was_submitted_asks_another_question(claimed: Scene) -> None:
    file = Path(claimed.trigger.settings.models[MODEL].plans["usual"].plan)
    before = file.read_text("utf-8")
    try:
        file.write_text(before + "seed: 7\n", "utf-8")
        for _ in range(2):
            claimed.world.run(lambda: reconcile(claimed.replica))
    finally:
        file.write_text(before, "utf-8")
    old, new = claimed.trigger.claims.all(MODEL)
    assert (old.state, new.state) == (State.cancelled, State.submitted)
    assert old.note == "the plan was changed before the run was submitted, so the question is another one now"
    assert [one.order.run for one in claimed.engine.runs] == [new.run]


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_run_that_was_asked_for_too_late_is_ended(
    claimed: Scene, cancelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes before the request (a login, the search for an experiment) may take longer than others wait."""
    create = claimed.engine.create
    asked: list[Order] = []

    def slow(order: Order) -> Sent:
        asked.append(order)
        claimed.world.point()
        return create(order)

    monkeypatch.setattr(claimed.engine, "create", slow)
    late = claimed.world.start(lambda: carry_on(claimed.replica, claimed.replica.claims.all(MODEL)[0], "a"))
    stop_when(claimed, lambda: bool(asked))
    monkeypatch.undo()
    claimed.world.processes.remove(late)
    if cancelled:
        key = claimed.replica.claims.all(MODEL)[0].key
        claimed.world.run(lambda: cancel(claimed.replica, key, by="ann", why="no"))
    rounds(claimed, 400)
    assert len(claimed.engine.runs) == (0 if cancelled else 1)
    claimed.world.processes.append(late)
    claimed.world.settle()
    assert [one.phase for one in claimed.engine.runs] == (["cancelled"] if cancelled else ["waiting", "cancelled"])


def test_were_there_two_runs_of_one_name_the_younger_is_cancelled_and_that_is_said(claimed: Scene) -> None:
    order = claimed.trigger.order(claimed.trigger.claims.all(MODEL)[0].question)
    claimed.engine.runs = [MadeRun(order, "r-0", "running", 0), MadeRun(order, "r-1", "running", 0)]
    rounds(claimed, 10)
    claim = claimed.trigger.claims.all(MODEL)[0]
    assert [one.phase for one in claimed.engine.runs] == ["running", "cancelled"]
    assert claim.sent is not None
    assert claim.sent.id == "r-0"
    assert "1 more runs of this name were there, and are cancelled" in [event.note for event in claim.events]


def test_a_run_that_the_engine_forgets_is_lost_and_found_again(claimed: Scene) -> None:
    rounds(claimed, 10)
    forgotten = claimed.engine.runs.pop()
    rounds(claimed, 500)
    assert claimed.trigger.claims.all(MODEL)[0].is_open, "not at once"
    rounds(claimed, 300)
    claim = claimed.trigger.claims.all(MODEL)[0]
    assert claim.state is State.lost
    assert claim.note == "local no longer knows the run"
    claimed.engine.runs = [forgotten]
    forgotten.phase = "running"
    claimed.world.run(lambda: reconcile(claimed.replica))
    claimed.world.run(lambda: reconcile(claimed.replica))
    assert claimed.trigger.claims.all(MODEL)[0].state is State.running
