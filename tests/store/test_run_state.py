"""The state of a run in a store: decisions, leases, and processes that race for them."""

import subprocess
import sys
import time

import pytest

from lmmpress.errors import UserError
from lmmpress.store import Store, open_store
from lmmpress.store.run_state import hold, is_live, read_state


def test_decisions_are_only_ever_added(store: Store) -> None:
    with store.run_state("key") as state:
        assert state.history() == []
        assert state.decide(0, {"step": "a"}) == {"step": "a"}
        assert state.decide(0, {"step": "b"}) == {"step": "a"}
        with pytest.raises(UserError, match="has 1 steps, not 5"):
            state.decide(5, {"step": "c"})
    with open_store(store.root_address).run_state("key") as state:
        assert state.history() == [{"step": "a"}]


def test_a_run_is_held_by_one_process(store: Store) -> None:
    with store.run_state("key"):
        with pytest.raises(UserError, match="another process works on this run"), store.run_state("key"):
            pass
        with store.run_state("another"):
            pass
    with store.run_state("key"):
        pass


HOLDER = (
    "import sys, time\n"
    "from lmmpress.store import open_store\n"
    "from lmmpress.store.run_state import hold\n"
    "with hold(open_store(sys.argv[1]).objects, 'runs/key.json', float(sys.argv[2])) as state:\n"
    "    print('held', flush=True)\n"
    "    for line in sys.stdin:\n"
    "        try:\n"
    "            print(state.decide(int(line), {'by': 'child'})['by'], flush=True)\n"
    "        except Exception as error:\n"
    "            print(error, flush=True)\n"
)


def holder(address: str, seconds: float) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, address, str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_lease_of_a_killed_local_process_is_taken_over_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = holder(store.root_address, 1000)
    process.kill()
    process.wait()
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail(f"it waits {seconds} s"))
    with store.run_state("key"):
        pass


def test_a_silent_holder_elsewhere_is_replaced_after_its_lease_ran_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another machine a stopped process looks like a dead one. When it continues, it has lost the run."""
    process = holder(store.root_address, 3)
    process.send_signal(19)  # SIGSTOP
    monkeypatch.setattr("lmmpress.store.run_state._host", lambda: "another machine")
    with hold(store.objects, "runs/key.json", 3) as state:
        assert state.decide(0, {"by": "parent"}) == {"by": "parent"}
        process.send_signal(18)  # SIGCONT
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("1\n")
        process.stdin.flush()
        assert "has taken over this run" in process.stdout.readline()
        process.stdin.close()
        process.wait()
        assert state.history() == [{"by": "parent"}]


def test_a_holder_elsewhere_that_renews_its_lease_is_not_replaced(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = holder(store.root_address, 9)  # on a busy machine it is not heard of each second
    monkeypatch.setattr("lmmpress.store.run_state._host", lambda: "another machine")
    with pytest.raises(UserError, match="another process works on this run"), hold(store.objects, "runs/key.json", 9):
        pass
    process.kill()
    process.wait()


def test_leases_run_out_by_the_stores_clock(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with hold(store.objects, "runs/key.json", 60):
        monkeypatch.setattr("lmmpress.store.run_state._host", lambda: "another machine")
        for skew in (-86400, 0, 86400):
            true = time.time
            monkeypatch.setattr("time.time", lambda skew=skew, true=true: true() + skew)
            assert is_live(store.objects, read_state(store.objects, "runs/key.json"))
            monkeypatch.undo()
            monkeypatch.setattr("lmmpress.store.run_state._host", lambda: "another machine")
        monkeypatch.undo()


RACER = (
    "import sys\n"
    "from lmmpress.store import open_store\n"
    "from lmmpress.store.run_state import RunState, read_state\n"
    "objects = open_store(sys.argv[1]).objects\n"
    "lease = read_state(objects, 'runs/key.json').stored.lease\n"
    "state = RunState(objects, 'runs/key.json', lease)\n"
    "print('ready', flush=True)\n"
    "sys.stdin.readline()\n"
    "for number in range(int(sys.argv[3])):\n"
    "    print(state.decide(number, {'by': sys.argv[2]})['by'], flush=True)\n"
)


def test_exactly_one_of_eight_racing_processes_decides_a_step(store: Store) -> None:
    """The worst case: all processes think that they hold the lease. Compare-and-swap alone must let one win."""
    rounds = 5
    with store.run_state("key") as state:
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", RACER, store.root_address, str(number), str(rounds)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
            )
            for number in range(8)
        ]
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        told_to = [racer.communicate()[0].split() for racer in racers]
        decided = [decision["by"] for decision in state.history()]
    assert len(decided) == rounds
    assert all(answers == decided for answers in told_to), "everybody was told the same decisions"
