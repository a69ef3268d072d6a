"""What every store promises, wherever it lies: a directory, and a bucket of a real server."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from support.files import contents
from support.paths import TESTS
from support.store_worker import make_checkpoint, write_step

from lmmpress.errors import UserError
from lmmpress.files.digest import digest_checkpoint
from lmmpress.printing.terminal import Terminal
from lmmpress.progress import listening, transfer
from lmmpress.progress.terminal import on_terminal
from lmmpress.store import Store, open_store
from lmmpress.store.objects import Blob, ChangedError
from lmmpress.store.state import hold, is_live, read_state


@pytest.fixture(params=["directory", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path, new_bucket: Callable[[], str]) -> str:
    """The address of an empty store of each kind."""
    return str(tmp_path / "store") if request.param == "directory" else new_bucket()


@pytest.fixture
def store(place: str) -> Store:
    return open_store(place)


def test_a_checkpoint_comes_back_as_it_went_in_under_the_name_of_its_content(store: Store, tmp_path: Path) -> None:
    made = make_checkpoint(tmp_path / "made", 0)
    digest = store.add_checkpoint(made)
    assert digest == digest_checkpoint(made)
    assert contents(store.checkpoint(digest)) == contents(made)
    assert contents(open_store(store.root_address).checkpoint(digest)) == contents(made)


def test_a_checkpoint_made_in_scratch_is_taken_over(store: Store, tmp_path: Path) -> None:
    with store.scratch() as folder:
        made = make_checkpoint(folder / "made", 0)
        expected, digest = contents(made), store.add_checkpoint(made)
    assert contents(store.checkpoint(digest)) == expected


def test_the_users_own_files_stay_his(store: Store, tmp_path: Path) -> None:
    """What is taken in from elsewhere is a copy: writing to the original later changes nothing in the store."""
    made = make_checkpoint(tmp_path / "made", 0)
    digest = store.add_checkpoint(made)
    expected = contents(made)
    with (made / "model.safetensors").open("r+b") as file:
        file.write(b"changed")
    assert contents(store.checkpoint(digest)) == expected


def test_a_file_that_two_checkpoints_share_is_stored_once(store: Store, tmp_path: Path) -> None:
    sizes = {"model-vision.safetensors": 5000, "model-language.safetensors": 3000}
    first = make_checkpoint(tmp_path / "first", 0, sizes)
    second = make_checkpoint(tmp_path / "second", 1, sizes)
    (second / "model-vision.safetensors").write_bytes((first / "model-vision.safetensors").read_bytes())
    for made in (first, second):
        store.add_checkpoint(made)
    assert sorted(entry.size for entry in store.objects.entries("blobs/"))[-3:] == [3000, 3000, 5000]


def test_what_is_not_there_is_said_in_one_line(store: Store) -> None:
    with pytest.raises(UserError, match="holds no checkpoint 0123"):
        store.checkpoint("0123" * 16)
    assert store.read_record("nothing") is None
    assert store.read_tensors("nothing") is None


def test_records_are_written_once(store: Store) -> None:
    assert store.write_record("part-1", {"value": 1}) == {"value": 1}
    assert store.write_record("part-1", {"value": 2}) == {"value": 1}
    assert store.read_record("part-1") == {"value": 1}


def test_tensors_come_back(store: Store) -> None:
    made = {"scores": torch.randn(4, 3, dtype=torch.float64), "none": torch.zeros(0)}
    store.write_tensors("scores-1", made)
    found = open_store(store.root_address).read_tensors("scores-1")
    assert found is not None
    assert all(torch.equal(found[name], value) for name, value in made.items())


def test_small_objects_are_written_by_compare_and_swap(store: Store) -> None:
    objects = store.objects
    objects.write("runs/a.json", b"one", None)
    with pytest.raises(ChangedError):
        objects.write("runs/a.json", b"other", None)
    first = objects.read("runs/a.json")
    assert first is not None
    assert first.data == b"one"
    objects.write("runs/a.json", b"two", first.tag)
    with pytest.raises(ChangedError):
        objects.write("runs/a.json", b"late", first.tag)
    with pytest.raises(ChangedError):
        objects.write("runs/b.json", b"x", first.tag)
    second = objects.read("runs/a.json")
    assert second is not None
    assert second.data == b"two"
    objects.delete("runs/a.json")
    objects.delete("runs/a.json")
    assert objects.read("runs/a.json") is None


def test_objects_are_listed_by_how_their_names_begin(store: Store) -> None:
    for name in ("runs/a.json", "runs/b.json", "records/a.json"):
        store.objects.write(name, b"12345", None)
    assert [(entry.name, entry.size) for entry in store.objects.entries("runs/")] == [
        ("runs/a.json", 5),
        ("runs/b.json", 5),
    ]
    now = store.objects.now()
    assert all(abs(now - entry.modified) < 5 for entry in store.objects.entries("r"))


def test_a_manifest_that_leads_out_of_its_folder_is_refused(store: Store) -> None:
    file = {"sha256": "0" * 64, "size": 0}
    for name in ("../evil", "/etc/passwd", "a/../../b", "a\\..\\b", "", "a//b", "a\0b"):
        store.objects.write(f"checkpoints/{'1' * 64}.json", json.dumps({"files": {name: file}}).encode(), None)
        with pytest.raises(UserError, match="is no manifest"):
            store.checkpoint("1" * 64)
        store.objects.delete(f"checkpoints/{'1' * 64}.json")


def test_a_manifest_under_another_name_is_refused(store: Store, tmp_path: Path) -> None:
    digest = store.add_checkpoint(make_checkpoint(tmp_path / "made", 0))
    found = store.objects.read(f"checkpoints/{digest}.json")
    assert found is not None
    store.objects.write(f"checkpoints/{'1' * 64}.json", found.data, None)
    with pytest.raises(UserError, match="another checkpoint"):
        store.checkpoint("1" * 64)


def test_a_blob_that_the_disk_has_changed_is_never_handed_out(tmp_path: Path, new_bucket: Callable[[], str]) -> None:
    """Of the same size, so that only its bytes tell; a directory says so, a cache fetches it again."""
    made = make_checkpoint(tmp_path / "made", 0)
    for address, folder in ((str(tmp_path / "store"), tmp_path / "store"), (new_bucket(), tmp_path / "cache")):
        digest = open_store(address).add_checkpoint(made)
        sha256 = open_store(address).manifest(digest).files["model.safetensors"].sha256
        path = folder / "blobs" / sha256[:2] / sha256
        path.chmod(0o644)
        path.write_bytes(bytes(3000))
        if folder.name == "store":
            with pytest.raises(UserError, match=r"model\.safetensors: blob .* is damaged"):
                open_store(address).checkpoint(digest)
        else:
            assert contents(open_store(address).checkpoint(digest)) == contents(made)


def test_interrupting_a_transfer_sends_nothing_more(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_checkpoint(tmp_path / "made", 0, {f"model-{number:02}.safetensors": 1000 for number in range(40)})
    sent: list[Blob] = []
    send = store.objects.send

    def stopping(path: Path, blob: Blob, advance: Callable[[int], None]) -> None:
        sent.append(blob)
        if len(sent) == 6:
            raise KeyboardInterrupt
        send(path, blob, advance)

    monkeypatch.setattr(store.objects, "send", stopping)
    with pytest.raises(KeyboardInterrupt):
        store.add_checkpoint(made)
    assert len(sent) < 20
    assert list(store.objects.entries("checkpoints/")) == []


def test_a_blob_that_is_missing_is_named_with_its_file(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = store.add_checkpoint(make_checkpoint(tmp_path / "made", 0))
    blob = store.manifest(digest).files["model.safetensors"].blob
    store.objects.delete(blob.name)
    monkeypatch.setenv("LMMPRESS_CACHE", str(tmp_path / "another cache"))
    emptied = open_store(store.root_address)
    with pytest.raises(UserError, match=rf"model\.safetensors: blob {blob.sha256[:12]} is missing"):
        emptied.checkpoint(digest)


# Runs


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
    "from lmmpress.store.state import hold\n"
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


def test_the_lease_of_a_killed_process_of_this_machine_is_taken_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = holder(store.root_address, 1000)
    process.kill()
    process.wait()
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail(f"it waits {seconds} s"))
    with store.run_state("key"):
        pass


def test_a_silent_holder_elsewhere_is_waited_for_and_then_replaced(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped process looks from another machine as a dead one does. When it wakes it has lost the run for good."""
    process = holder(store.root_address, 3)
    process.send_signal(19)  # SIGSTOP
    monkeypatch.setattr("lmmpress.store.state._host", lambda: "another machine")
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


def test_a_holder_elsewhere_that_is_heard_of_is_not_replaced(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    process = holder(store.root_address, 9)  # on a busy machine it is not heard of each second
    monkeypatch.setattr("lmmpress.store.state._host", lambda: "another machine")
    with pytest.raises(UserError, match="another process works on this run"), hold(store.objects, "runs/key.json", 9):
        pass
    process.kill()
    process.wait()


def test_leases_run_out_by_the_stores_clock_whatever_this_machines_says(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hold(store.objects, "runs/key.json", 60):
        monkeypatch.setattr("lmmpress.store.state._host", lambda: "another machine")
        for skew in (-86400, 0, 86400):
            true = time.time
            monkeypatch.setattr("time.time", lambda skew=skew, true=true: true() + skew)
            assert is_live(store.objects, read_state(store.objects, "runs/key.json"))
            monkeypatch.undo()
            monkeypatch.setattr("lmmpress.store.state._host", lambda: "another machine")
        monkeypatch.undo()


RACER = (
    "import sys\n"
    "from lmmpress.store import open_store\n"
    "from lmmpress.store.state import RunState, read_state\n"
    "objects = open_store(sys.argv[1]).objects\n"
    "lease = read_state(objects, 'runs/key.json').stored.lease\n"
    "state = RunState(objects, 'runs/key.json', lease)\n"
    "print('ready', flush=True)\n"
    "sys.stdin.readline()\n"
    "for number in range(int(sys.argv[3])):\n"
    "    print(state.decide(number, {'by': sys.argv[2]})['by'], flush=True)\n"
)


def test_of_eight_processes_that_race_for_a_step_exactly_one_decides(store: Store) -> None:
    """The worst case: all believe that the lease is theirs. Compare-and-swap alone must keep them apart."""
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


# Crashes


def test_after_a_hundred_kills_every_checkpoint_that_a_state_names_is_whole(
    store: Store, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """kill -9 of the writer at random points; what it was told to be accepted is never missing afterwards."""
    chance = random.Random(0)
    worker = subprocess.Popen(
        [sys.executable, str(TESTS / "support" / "store_worker.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    accepted = before_the_first = unheard = 0
    history: list[dict[str, str]] = []
    reach = 0.0
    for number in range(102):
        begun = time.monotonic()
        worker.stdin.write(f"{store.root_address}\n")
        worker.stdin.flush()
        kind, pid = worker.stdout.readline().split()
        while kind == "accepted":  # the child is faster than who forked it
            accepted = max(accepted, int(pid))
            kind, pid = worker.stdout.readline().split()
        told = 0
        if number < 2:  # how far the kills that follow shall reach: a little past the first decision
            told = int(worker.stdout.readline().split()[1])
            reach = 1.3 * (time.monotonic() - begun)
        time.sleep(chance.random() * reach)
        os.kill(int(pid), signal.SIGKILL)
        while (line := worker.stdout.readline()) != "ended\n":
            told = int(line.split()[1])
        accepted = max(accepted, told)
        history = read_state(store.objects, "runs/key.json").stored.history
        assert len(history) >= accepted, "an accepted step is missing"
        before_the_first += told == 0
        unheard += len(history) > accepted
        accepted = len(history)
    worker.stdin.close()
    worker.wait()
    for name, value in (("accepted", accepted), ("before_the_first", before_the_first), ("unheard", unheard)):
        record_property(name, value)
    assert accepted > 2, "some got as far as a decision"
    assert len({entry["checkpoint"] for entry in history}) == len(history)
    for entry in history:
        for file in store.manifest(entry["checkpoint"]).files.values():
            store.objects.check(file.blob)
    whole = write_step(tmp_path / "last", len(history) - 1)
    assert contents(store.checkpoint(history[-1]["checkpoint"])) == contents(whole)
    # and what the killed left half-written is gone
    assert len([path for path in store.objects.workspace.glob("own-*") if path.is_dir()]) <= 2


def test_two_processes_may_add_the_same_checkpoint_at_once(store: Store, tmp_path: Path) -> None:
    made = make_checkpoint(tmp_path / "made", 0, {f"model-{number}.safetensors": 100_000 for number in range(6)})
    with ThreadPoolExecutor(4) as adders:
        digests = set(adders.map(lambda _: open_store(store.root_address).add_checkpoint(made), range(8)))
    assert len(digests) == 1
    assert contents(store.checkpoint(digests.pop())) == contents(made)


def test_an_address_with_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(UserError) as caught:
        open_store("s3://name:password@bucket/prefix")
    assert "password@" not in str(caught.value)


def test_only_directories_and_buckets_are_stores(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a store is a directory or s3://bucket/prefix"):
        open_store("ftp://host/dir")
    (tmp_path / "file").write_text("x", "utf-8")
    with pytest.raises(UserError, match="there is a file of that name"):
        open_store(str(tmp_path / "file"))


def test_long_transfers_show_bytes_rate_and_time_left() -> None:
    now = 0.0
    shown = Terminal(file=io.StringIO(), force_terminal=True, width=120, get_time=lambda: now)
    with listening(on_terminal(shown)), transfer("sending", 2 * 10**9) as advance:
        for _ in range(4):
            now += 1
            advance(25 * 10**7)
    written = shown.file.getvalue()
    assert "1.0/2.0 GB" in written
    assert "250.0 MB/s" in written
    assert "left" in written
    assert "0:00:04" in written


def test_nothing_of_the_store_needs_torch() -> None:
    """A pod that only moves checkpoints stays small."""
    modules = "lmmpress.store.address, lmmpress.store.housekeeping, lmmpress.store.bucket"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True
        ).stdout
        == "False\n"
    )


def test_a_blob_is_known_by_its_bytes() -> None:
    assert Blob("ab" + "0" * 62, 1).name == f"blobs/ab/ab{'0' * 62}"


@pytest.mark.parametrize("name", ["lock", "work/opening.lock", "work/own-0.lock"])
def test_a_link_in_the_place_of_a_lock_is_refused_and_what_it_leads_to_stays(tmp_path: Path, name: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("bytes of somebody", "utf-8")
    link = tmp_path / "store" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(precious)
    store = open_store(str(tmp_path / "store"))
    with pytest.raises(UserError, match="is a link, where a store has a file of its own; remove it"), store.scratch():
        store.write_record("a", {"b": 1})
    assert precious.read_text("utf-8") == "bytes of somebody"
