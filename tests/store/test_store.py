"""What a store of each kind promises: in a directory, and in a bucket on a real server."""

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
from support.store_worker import random_checkpoint, write_step

from lmmpress.errors import UserError
from lmmpress.files.digest import digest_checkpoint
from lmmpress.printing.terminal import Terminal
from lmmpress.progress import listening, transfer
from lmmpress.progress.terminal import on_terminal
from lmmpress.store import Store, open_store
from lmmpress.store.objects import Blob, ChangedError
from lmmpress.store.run_state import read_state


def test_a_checkpoint_comes_back_as_it_went_in_under_the_name_of_its_content(store: Store, tmp_path: Path) -> None:
    made = random_checkpoint(tmp_path / "made", 0)
    digest = store.add_checkpoint(made)
    assert digest == digest_checkpoint(made)
    assert contents(store.checkpoint(digest)) == contents(made)
    assert contents(open_store(store.root_address).checkpoint(digest)) == contents(made)


def test_a_checkpoint_made_in_scratch_is_moved_into_the_store(store: Store, tmp_path: Path) -> None:
    with store.scratch() as folder:
        made = random_checkpoint(folder / "made", 0)
        expected, digest = contents(made), store.add_checkpoint(made)
    assert contents(store.checkpoint(digest)) == expected


def test_files_of_the_user_are_copied_and_not_moved(store: Store, tmp_path: Path) -> None:
    """A checkpoint from outside is copied: later writes to the original change nothing in the store."""
    made = random_checkpoint(tmp_path / "made", 0)
    digest = store.add_checkpoint(made)
    expected = contents(made)
    with (made / "model.safetensors").open("r+b") as file:
        file.write(b"changed")
    assert contents(store.checkpoint(digest)) == expected


def test_a_file_that_two_checkpoints_share_is_stored_once(store: Store, tmp_path: Path) -> None:
    sizes = {"model-vision.safetensors": 5000, "model-language.safetensors": 3000}
    first = random_checkpoint(tmp_path / "first", 0, sizes)
    second = random_checkpoint(tmp_path / "second", 1, sizes)
    (second / "model-vision.safetensors").write_bytes((first / "model-vision.safetensors").read_bytes())
    for made in (first, second):
        store.add_checkpoint(made)
    assert sorted(entry.size for entry in store.objects.entries("blobs/"))[-3:] == [3000, 3000, 5000]


def test_a_missing_object_is_a_one_line_error(store: Store) -> None:
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
    digest = store.add_checkpoint(random_checkpoint(tmp_path / "made", 0))
    found = store.objects.read(f"checkpoints/{digest}.json")
    assert found is not None
    store.objects.write(f"checkpoints/{'1' * 64}.json", found.data, None)
    with pytest.raises(UserError, match="another checkpoint"):
        store.checkpoint("1" * 64)


def test_a_damaged_blob_is_never_handed_out(tmp_path: Path, new_bucket: Callable[[], str]) -> None:
    """The changed blob has the same size, so that only its bytes differ. A directory reports it; a cache fetches it
    again."""
    made = random_checkpoint(tmp_path / "made", 0)
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
    made = random_checkpoint(tmp_path / "made", 0, {f"model-{number:02}.safetensors": 1000 for number in range(40)})
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
    digest = store.add_checkpoint(random_checkpoint(tmp_path / "made", 0))
    blob = store.manifest(digest).files["model.safetensors"].blob
    store.objects.delete(blob.name)
    monkeypatch.setenv("LMMPRESS_CACHE", str(tmp_path / "another cache"))
    emptied = open_store(store.root_address)
    with pytest.raises(UserError, match=rf"model\.safetensors: blob {blob.sha256[:12]} is missing"):
        emptied.checkpoint(digest)


def test_after_a_hundred_kills_every_checkpoint_that_a_state_names_is_whole(
    store: Store, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """kill -9 of the writer at random points: what was reported as accepted is never missing afterwards."""
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
    made = random_checkpoint(tmp_path / "made", 0, {f"model-{number}.safetensors": 100_000 for number in range(6)})
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
    file = io.StringIO()
    shown = Terminal(file=file, force_terminal=True, width=120, get_time=lambda: now)
    with listening(on_terminal(shown)), transfer("sending", 2 * 10**9) as advance:
        for _ in range(4):
            now += 1
            advance(25 * 10**7)
    written = file.getvalue()
    assert "1.0/2.0 GB" in written
    assert "250.0 MB/s" in written
    assert "left" in written
    assert "0:00:04" in written


def test_the_store_imports_no_torch() -> None:
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
def test_a_lock_file_that_is_a_link_is_refused_and_its_target_stays(tmp_path: Path, name: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("bytes of somebody", "utf-8")
    link = tmp_path / "store" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(precious)
    store = open_store(str(tmp_path / "store"))
    with pytest.raises(UserError, match="is a link, where a store has a file of its own; remove it"), store.scratch():
        store.write_record("a", {"b": 1})
    assert precious.read_text("utf-8") == "bytes of somebody"


def test_a_record_that_could_not_be_read_again_is_not_written(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmmpress.store.store.SMALL", 100)
    with pytest.raises(UserError, match="at most 100 are read; measure on fewer rows"):
        store.write_record("large", {"rows": list(range(50))})
    assert store.read_record("large") is None
