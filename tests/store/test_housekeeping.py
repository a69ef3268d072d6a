"""Housekeeping of stores of each kind: listing, verifying, cleaning up, copying."""

import errno
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from shlex import quote

import pytest
from support.cli import refused, run_store
from support.decisions import decision
from support.files import contents, nameable
from support.store_worker import random_checkpoint

from lmmpress.errors import UserError
from lmmpress.store import Store, open_checkpoint, open_store
from lmmpress.store.housekeeping import collect_garbage, copy_store, discard_faults, list_store, verify_store
from lmmpress.store.objects import Blob

SIZES = {"model-vision.safetensors": 5000, "model-language.safetensors": 3000}


@pytest.fixture
def digests(store: Store, tmp_path: Path) -> list[str]:
    """A run of two steps, whose checkpoints share a file; the second was decided on."""
    first = random_checkpoint(tmp_path / "first", 0, SIZES)
    second = random_checkpoint(tmp_path / "second", 1, SIZES)
    (second / "model-vision.safetensors").write_bytes((first / "model-vision.safetensors").read_bytes())
    made = [store.add_checkpoint(first), store.add_checkpoint(second)]
    store.write_record("distill-1", {"checkpoint": made[1]})
    with store.run_state("a" * 64) as state:
        state.decide(0, decision(made[0], made[1]))
    return made


def overwrite(store: Store, blob: Blob, data: bytes) -> None:
    """Change a blob as a bad disk does."""
    if store.root_address.startswith("s3://"):
        from lmmpress.store.connection import connect

        bucket, _, prefix = store.root_address.removeprefix("s3://").partition("/")
        connect()._put_object(bucket, f"{prefix}/{blob.name}", data)
    else:
        path = Path(store.root_address) / blob.name
        path.unlink()
        path.write_bytes(data)


def add_unnamed(store: Store, tmp_path: Path, data: bytes = b"nobody names this") -> Blob:
    import hashlib

    (tmp_path / "unnamed").write_bytes(data)
    blob = Blob(hashlib.sha256(data).hexdigest(), len(data))
    store.objects.send(tmp_path / "unnamed", blob, lambda _: None)
    return blob


def test_ls_shows_what_a_run_holds(address: str, store: Store, digests: list[str], tmp_path: Path) -> None:
    other = store.add_checkpoint(random_checkpoint(tmp_path / "other", 7))
    held = json.loads(run_store("ls", address, "--json"))
    assert {checkpoint["digest"] for checkpoint in held["checkpoints"]} == {*digests, other}
    assert sum(checkpoint["own_bytes"] for checkpoint in held["checkpoints"]) == held["bytes"]
    assert held["runs"][0]["run_key"] == "a" * 64
    of_run = json.loads(run_store("ls", address, "--json", "--run", "aaaa"))
    assert {checkpoint["digest"] for checkpoint in of_run["checkpoints"]} == set(digests)
    table = run_store("ls", address)
    assert "ffn 1" in table
    assert digests[1][:12] in table
    with pytest.raises(UserError, match="holds no run bbbb"):
        run_store("ls", address, "--run", "bbbb")


def test_reading_a_folder_that_is_not_a_store_makes_none(tmp_path: Path, new_bucket: Callable[[], str]) -> None:
    model = random_checkpoint(tmp_path / "model", 0)
    before = contents(model)
    for address in (str(tmp_path / "nothing"), str(model), new_bucket()):
        with pytest.raises(UserError, match="there is no store"):
            run_store("ls", address)
    assert not (tmp_path / "nothing").exists()
    assert contents(model) == before


def test_verify_finds_nothing_wrong_with_a_whole_store(address: str, store: Store, digests: list[str]) -> None:
    assert verify_store(store) == []
    assert "every file matches its name" in run_store("verify", address)


def test_verify_names_every_fault_and_what_needs_it(store: Store, address: str, digests: list[str]) -> None:
    files = store.manifest(digests[1]).files
    shared, own, config = (
        files[name].blob for name in ("model-vision.safetensors", "model-language.safetensors", "config.json")
    )
    overwrite(store, shared, b"x" * 5000)
    overwrite(store, own, b"short")
    store.objects.delete(config.name)
    store.objects.write(f"checkpoints/{'1' * 64}.json", b"{]", None)
    faults = {fault.name: fault for fault in verify_store(store)}
    assert set(faults) == {shared.name, own.name, config.name, f"checkpoints/{'1' * 64}.json"}
    assert set(faults[shared.name].needed_by) == {f"checkpoints/{digest}.json" for digest in digests}
    assert faults[own.name].fault == "5 bytes of 3000"
    assert faults[config.name].fault == "is missing"
    with pytest.raises(UserError, match="4 faults; --discard removes"):
        run_store("verify", address)


def test_a_store_makes_anew_what_was_discarded_as_damaged(
    store: Store, address: str, digests: list[str], tmp_path: Path
) -> None:
    overwrite(store, store.manifest(digests[1]).files["model-language.safetensors"].blob, b"x" * 3000)
    discarded = json.loads(run_store("verify", address, "--discard", "--json"))["discarded"]
    assert f"checkpoints/{digests[1]}.json" in discarded
    assert "records/distill-1.json" in discarded
    assert f"runs/{'a' * 64}.json" in discarded
    assert verify_store(store) == []
    assert store.read_record("distill-1") is None
    assert contents(store.checkpoint(digests[0])) == contents(tmp_path / "first")
    assert store.add_checkpoint(tmp_path / "second") == digests[1]
    assert verify_store(store) == []


def test_unreadable_objects_and_broken_references_are_found_and_discarded(
    store: Store, digests: list[str], tmp_path: Path
) -> None:
    """An invalid record, an invalid state, and a record whose checkpoint was removed."""
    store.write_record("prune-1", {"checkpoint": "9" * 64})
    store.objects.write("records/broken.json", b"{]", None)
    store.objects.write("runs/broken.json", b"[]", None)
    discarded = discard_faults(store)
    found, removed, aside = discarded.faults, discarded.removed, discarded.set_aside
    wrong = {"records/broken.json", "runs/broken.json", f"checkpoints/{'9' * 64}.json"}
    assert {fault.name for fault in found} == wrong
    assert set(removed) == wrong | {"records/prune-1.json"}
    assert set(aside) == {"records/broken.json", "runs/broken.json"}
    kept = store.objects.read(aside["records/broken.json"])
    assert kept is not None
    assert kept.data == b"{]", "set aside as it was, in case somebody can read it"
    assert verify_store(store) == []
    assert list_store(store).runs[0].steps, "the other run is untouched"


def test_a_history_from_elsewhere_cannot_lead_out_of_the_store(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    victim = tmp_path / "victim.json"
    victim.write_text("{}", "utf-8")
    with store.run_state("a") as state:
        state.decide(0, {"checkpoint": "../../victim", "parent": ["no digest"]})
    assert [fault.name for fault in verify_store(store)] == ["runs/a.json"]
    assert list_store(store).checkpoints == []
    discard_faults(store)
    assert victim.exists()
    for name in ("../victim.json", "/etc/passwd", "runs/../../victim.json"):
        with pytest.raises(UserError, match="outside of the store"):
            store.objects.delete(name)


def test_a_directory_of_training_checkpoints_is_not_a_store(tmp_path: Path) -> None:
    """Other programs also write folders named runs or checkpoints."""
    model = random_checkpoint(tmp_path / "model", 0)
    expected = contents(model)
    (model / "runs").mkdir()
    (model / "runs" / "events").write_text("x", "utf-8")
    said, _, told = run_store("cp", str(model), str(tmp_path / "store"), "--json").partition("\n")
    assert said == f"left out of {model}: runs/ (no part of a checkpoint)"
    assert contents(open_checkpoint(json.loads(told)["addresses"][0])) == expected


def test_nothing_is_discarded_while_a_run_is_worked_on(store: Store, digests: list[str]) -> None:
    store.objects.delete(store.manifest(digests[1]).files["config.json"].blob.name)
    with store.run_state("b"), pytest.raises(UserError, match="nothing is removed"):
        discard_faults(store)
    assert store.manifest(digests[1])


def test_gc_removes_only_what_nothing_refers_to(store: Store, address: str, digests: list[str], tmp_path: Path) -> None:
    unnamed = add_unnamed(store, tmp_path)
    assert "0 files" in run_store("gc", address), "it is younger than the grace period"
    told = json.loads(run_store("gc", address, "--grace", "0", "--dry-run", "--json"))
    assert (told["names"], told["removed"]) == ([unnamed.name], False)
    assert store.objects.holds(unnamed)
    assert json.loads(run_store("gc", address, "--grace", "0", "--json"))["names"] == [unnamed.name]
    assert not store.objects.holds(unnamed)
    assert verify_store(store) == []
    for digest, made in zip(digests, ("first", "second"), strict=True):
        assert contents(open_store(address).checkpoint(digest)) == contents(tmp_path / made)


def test_gc_keeps_tensors(store: Store, digests: list[str]) -> None:
    import torch

    store.write_tensors("scores", {"a": torch.ones(3)})
    assert collect_garbage(store, 0, dry_run=False).entries == []
    assert store.read_tensors("scores") is not None


def test_gc_removes_nothing_while_a_run_is_worked_on(store: Store, digests: list[str], tmp_path: Path) -> None:
    unnamed = add_unnamed(store, tmp_path)
    with store.run_state("b"), pytest.raises(UserError, match=r"works on runs/b\.json; nothing is removed"):
        collect_garbage(store, 0, dry_run=False)
    assert store.objects.holds(unnamed)


def test_no_run_begins_while_gc_is_at_work(store: Store, digests: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    refused = []

    def begin_meanwhile(*_: object) -> None:
        with pytest.raises(UserError, match="is being cleaned up"), open_store(store.root_address).run_state("b"):
            pass
        refused.append(True)

    monkeypatch.setattr("lmmpress.store.housekeeping.garbage.refuse_while_anyone_works", begin_meanwhile)
    collect_garbage(store, 0, dry_run=False)
    assert refused
    with store.run_state("b"):
        pass


def test_gc_removes_nothing_where_a_manifest_cannot_be_read(store: Store, digests: list[str], tmp_path: Path) -> None:
    unnamed = add_unnamed(store, tmp_path)
    store.objects.write(f"checkpoints/{'1' * 64}.json", b"{]", None)
    with pytest.raises(UserError, match="nothing is removed"):
        collect_garbage(store, 0, dry_run=False)
    assert store.objects.holds(unnamed)


def test_gc_finds_unfinished_uploads(new_bucket: Callable[[], str]) -> None:
    from lmmpress.store.connection import connect

    address = new_bucket()
    store = open_store(address)
    store.write_record("x", {})
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    upload = connect()._create_multipart_upload(bucket, f"{prefix}/blobs/ab/{'ab' * 32}", {})
    connect()._upload_part(bucket, f"{prefix}/blobs/ab/{'ab' * 32}", b"x" * 100, None, upload, 1)
    assert collect_garbage(store, 3600, dry_run=False).spared == 1
    assert len(collect_garbage(store, 0, dry_run=False).entries) == 1
    assert list(store.objects.leftovers()) == []


def test_a_store_is_copied_whole_and_only_once(
    address: str, store: Store, digests: list[str], tmp_path: Path, new_bucket: Callable[[], str]
) -> None:
    """From a directory to a bucket and back again: nothing is lost on the way."""
    targets = [new_bucket() if not address.startswith("s3://") else str(tmp_path / "copy"), str(tmp_path / "back")]
    sources = [address, targets[0]]
    for source, target in zip(sources, targets, strict=True):
        first = json.loads(run_store("cp", source, target, "--json"))
        again = json.loads(run_store("cp", source, target, "--json"))
        assert first["sent"] > 8000
        assert (again["sent"], again["there"]) == (0, first["sent"] + first["there"])
    back = open_store(targets[1])
    assert verify_store(back) == []
    assert list_store(back) == list_store(store)
    assert back.read_record("distill-1") == store.read_record("distill-1")
    assert contents(back.checkpoint(digests[1])) == contents(tmp_path / "second")


def test_a_copy_adds_decisions_and_never_replaces_them(store: Store, digests: list[str], tmp_path: Path) -> None:
    target = open_store(str(tmp_path / "target"))
    copy_store(store, target)
    with target.run_state("a" * 64) as state:
        state.decide(1, {"parent": digests[1], "checkpoint": None})
    copy_store(store, target)
    assert len(list_store(target).runs[0].steps) == 2
    with store.run_state("a" * 64) as state:
        state.decide(1, {"parent": digests[1], "checkpoint": digests[0]})
    with pytest.raises(UserError, match="has other decisions"):
        copy_store(store, target)


TOLD = ["claims/m.json", "acts/2026-1.json", "serving/m.json", "comparisons/a-b-1.json", "online/m-1.json"]


def test_what_the_trigger_has_written_down_is_copied_where_that_is_asked_for(
    address: str, store: Store, digests: list[str], tmp_path: Path
) -> None:
    target = str(tmp_path / "target")
    for name in [*TOLD, "notices/m.json", "hints/1.json", "pins/m.json", "reconciler.json"]:
        store.objects.write(name, b"{}", None)
    assert json.loads(run_store("cp", address, target, "--json"))["of_the_trigger"] == 0
    copy = open_store(target).objects
    assert copy.read("claims/m.json") is None
    assert "6 objects of the trigger" in run_store("cp", address, target, "--with-trigger")
    found = [
        entry.name for kind in ("claims", "acts", "hints", "pins", "notices") for entry in copy.entries(f"{kind}/")
    ]
    assert found == ["claims/m.json", "acts/2026-1.json", "notices/m.json"], "what is of this store alone stays"
    assert "0 objects of the trigger" in run_store("cp", address, target, "--with-trigger")

    time.sleep(1.1)  # a bucket's times are in whole seconds
    changed = store.objects.read("claims/m.json")
    assert changed is not None
    store.objects.write("claims/m.json", b'{"a": 1}', changed.tag)
    assert "1 objects of the trigger" in run_store("cp", address, target, "--with-trigger"), "a newer one replaces"


def test_an_older_object_of_the_trigger_replaces_none(
    address: str, store: Store, digests: list[str], tmp_path: Path
) -> None:
    store.objects.write("claims/m.json", b"{}", None)
    target = open_store(str(tmp_path / "target"))
    time.sleep(1.1)
    target.objects.write("claims/m.json", b'{"a": 1}', None)
    said = refused("store", "cp", address, tmp_path / "target", "--with-trigger")
    assert f"has a newer claims/m.json than {address}, so nothing was copied" in said
    assert list(target.objects.entries("checkpoints/")) == []


def test_a_single_checkpoint_is_copied_from_wherever_it_lies(
    address: str, store: Store, digests: list[str], tmp_path: Path
) -> None:
    target = str(tmp_path / "target")
    (copied,) = json.loads(run_store("cp", f"{address}/checkpoints/{digests[1]}", target, "--json"))["addresses"]
    assert contents(open_checkpoint(copied)) == contents(tmp_path / "second")
    told = json.loads(run_store("cp", str(random_checkpoint(tmp_path / "plain", 3)), address, "--json"))
    assert contents(open_checkpoint(told["addresses"][0])) == contents(tmp_path / "plain")


def test_a_damaged_blob_is_not_copied(store: Store, digests: list[str], tmp_path: Path) -> None:
    overwrite(store, store.manifest(digests[0]).files["model-vision.safetensors"].blob, b"short")
    fresh = open_store(store.root_address)
    target = open_store(str(tmp_path / "target"))
    if store.root_address.startswith("s3://"):
        import shutil

        from lmmpress.store.cache_settings import cache_folder

        shutil.rmtree(cache_folder())
        fresh = open_store(store.root_address)
    with pytest.raises(UserError, match="is damaged"):
        copy_store(fresh, target)
    assert list(target.objects.entries("checkpoints/")) == [], "no manifest without its blobs"


def test_a_folder_that_is_not_a_checkpoint_is_not_copied_and_no_store_is_made(tmp_path: Path) -> None:
    pictures, unfinished = tmp_path / "pictures", tmp_path / "unfinished"
    pictures.mkdir()
    (pictures / "0.png").write_bytes(b"x")
    unfinished.mkdir()
    (unfinished / "config.json").write_text("{}", "utf-8")
    for source, message in (
        (tmp_path / "NOSUCH", "there is no checkpoint"),
        ("/etc/passwd", "there is no checkpoint"),
        (pictures, "is no checkpoint: it has no config.json"),
        (unfinished, "is no checkpoint: it has no safetensors weights"),
        (f"{tmp_path}/nothing/checkpoints/{'0' * 64}", "there is no checkpoint"),
    ):
        with pytest.raises(UserError, match=message):
            run_store("cp", str(source), str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_no_store_is_made_inside_a_checkpoint(address: str, tmp_path: Path) -> None:
    made, other = random_checkpoint(tmp_path / "made", 0), random_checkpoint(tmp_path / "other", 1)
    before = contents(other)
    with pytest.raises(UserError, match="is a checkpoint, and no store"):
        run_store("cp", str(made), str(other))
    assert contents(other) == before


@pytest.mark.parametrize(
    "name", nameable(["a b", "100%25 done", "run?x=1", "hash#tag", "空 ü", "[x]*", ":name:", "-dash", "a\nb"])
)
def test_a_path_may_have_any_characters(tmp_path: Path, name: str) -> None:
    made = random_checkpoint(tmp_path / "made", 0)
    address = str(tmp_path / name / "store")
    (copied,) = json.loads(run_store("cp", str(made), address, "--json"))["addresses"]
    assert contents(open_checkpoint(copied)) == contents(made)
    assert "every file matches" in run_store("verify", address)
    assert "0 files" in run_store("gc", address)
    assert {path.name for path in tmp_path.iterdir()} == {"made", name}


def test_a_store_on_a_disk_that_cannot_be_written_is_read(tmp_path: Path) -> None:
    """The child process gets a read-only mount, in its own mount namespace."""
    made = random_checkpoint(tmp_path / "made", 0)
    store = open_store(str(tmp_path / "store"))
    digest = store.add_checkpoint(made)
    with store.run_state("a" * 64) as state:
        state.decide(0, decision(digest, None))
    (tmp_path / "mount").mkdir()
    lmmpress = f"{quote(sys.executable)} -m lmmpress.cli store"
    script = (
        f"mount --bind {tmp_path}/store {tmp_path}/mount && mount -o remount,bind,ro {tmp_path}/mount || exit 77\n"
        f"{lmmpress} ls {tmp_path}/mount && {lmmpress} verify {tmp_path}/mount && "
        f"{lmmpress} cp {tmp_path}/mount {tmp_path}/copy && "
        f"{lmmpress} cp {tmp_path}/mount/checkpoints/{digest} {tmp_path}/one && ! {lmmpress} gc {tmp_path}/mount"
    )
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("this machine does not let users mount a folder of their own")
    assert done.returncode == 0, done.stderr
    assert digest[:12] in done.stdout
    assert "every file matches its name" in done.stdout
    assert done.stderr == f"error: {tmp_path}/mount/lock: Read-only file system\n"
    for target in ("copy", "one"):
        assert contents(open_store(str(tmp_path / target)).checkpoint(digest)) == contents(made)


def test_a_copy_that_fails_leaves_no_lease_and_nothing_half_written(
    store: Store, digests: list[str], tmp_path: Path
) -> None:
    """The disk of the target gets full at every possible write; with free space again, the same command finishes the
    copy."""
    count = 0
    while True:
        target = open_store(str(tmp_path / f"target-{count}"))
        full = Full(count)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lmmpress.store.directory._publish", full.publish)
            patch.setattr("lmmpress.store.directory.copy_checked", full.copy)
            if not full.stops(partial(copy_store, store, target)):
                break
        assert [fault for fault in verify_store(target) if fault.needed_by] == [], "no manifest without its blobs"
        assert not list((Path(target.root_address) / "work").glob("aside-*"))
        copy_store(store, target)
        assert verify_store(target) == []
        assert list(target.objects.entries("copies/")) == []
        count += 1
    assert count > 8


class Full:
    """A disk that is full after a number of writes."""

    def __init__(self, takes: int) -> None:
        self._left = takes

    def publish(self, source: Path, target: Path) -> None:
        self._take(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)

    def copy(self, source: Path, target: Path, blob: Blob, advance: Callable[[int], None]) -> None:
        try:
            self._take(target)
        except OSError:
            target.write_bytes(b"half")
            raise
        target.write_bytes(source.read_bytes())

    def stops(self, work: Callable[[], object]) -> bool:
        try:
            work()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return True
        return False

    def _take(self, target: Path) -> None:
        if self._left == 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        self._left -= 1
