"""Foreign stores: for any names and contents of objects, every command ends with an answer or a one-line error, and
nothing outside of the store is touched."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.certain import certain
from support.decisions import decision
from support.store_worker import random_checkpoint
from typer.testing import CliRunner

from lmmpress.cli.app import app
from lmmpress.errors import UserError
from lmmpress.store import Store, open_checkpoint, open_store
from lmmpress.store.housekeeping import collect_garbage, discard_faults, list_store, remove_run, verify_store
from lmmpress.store.objects import SMALL, Blob

KEY = "a" * 64
EVALUATION = f"evaluate-{'e' * 64}"
IMPORTANCE = f"importance-{'f' * 64}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound store with a run of one step, and a neighbouring folder that must not change."""
    folder = tmp_path_factory.mktemp("whole")
    store = open_store(str(folder / "store"))
    made = [store.add_checkpoint(random_checkpoint(folder / f"made-{number}", number)) for number in range(2)]
    with store.run_state(KEY) as state:
        state.decide(0, decision(made[0], made[1]))
    of = {"checkpoints": [made[1]], "data": ["d" * 64]}
    store.write_record(EVALUATION, {"right": "101", "seconds": 1.0, "of": of})
    store.write_record(f"run-{KEY}", {"teacher": made[0], "data": ["d" * 64], "taken_in": True})
    shutil.rmtree(folder / "store" / "work")
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for disks: these tests are not about power failures, and waiting would take most of their time."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def said(*arguments: str) -> str:
    """The output of a store command; an error must be one line."""
    done = CliRunner().invoke(app, ["store", *arguments])
    if isinstance(done.exception, UserError):
        assert len(done.exception.lines) == 1
        return str(done.exception)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert "\x1b" not in done.output
    return done.output


def look_after(folder: Path) -> None:
    """Run every command on a copy of the store in `folder`."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary)
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        around = [name for name in names(copy) if not name.startswith("store/")]
        address = str(copy / "store")
        for command in (("ls",), ("ls", "--json"), ("verify",), ("gc", "--grace", "0", "--dry-run"), ("rm", KEY[:8])):
            said(command[0], address, *command[1:])
        read_as_a_run_does(open_store(address))
        said("verify", address, "--discard", "--json")
        assert verify_store(open_store(address)) == [], "what was wrong is set aside"
        said("gc", address, "--grace", "0")
        read_as_a_run_does(open_store(address))
        with open_store(address).run_state(KEY):
            pass
        assert [name for name in names(copy) if not name.startswith("store/")] == around


def read_as_a_run_does(store: Store) -> None:
    reads: list[Callable[[], object]] = [
        lambda: store.history(KEY),
        lambda: store.read_record(EVALUATION),
        lambda: store.read_record(f"run-{KEY}"),
        lambda: store.read_tensors(IMPORTANCE),
    ]
    for entry in store.objects.entries("checkpoints/"):
        reads.append(partial(store.checkpoint, Path(entry.name).stem))
    for read in reads:
        with suppress(UserError):
            read()


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**31, 2**70, -1, 0, 10**400]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["../../out", "/etc/passwd", "a", "a/b", "\x1b[2J", "x" * 300, "0" * 64, "\u202e"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def changed(draw: st.DrawFn, sound: Any) -> Any:
    """A sound value with one part of it changed or removed."""
    if not isinstance(sound, dict | list) or not sound or draw(st.integers(0, 3)) == 0:
        return draw(VALUES)
    if isinstance(sound, list):
        place = draw(st.integers(0, len(sound) - 1))
        return [draw(changed(value)) if number == place else value for number, value in enumerate(sound)]
    key = draw(st.sampled_from(sorted(sound)))
    if draw(st.integers(0, 4)) == 0:
        return {name: value for name, value in sound.items() if name != key} | draw(
            st.dictionaries(st.text(max_size=8), VALUES, max_size=1)
        )
    return sound | {key: draw(changed(sound[key]))}


BYTES = st.one_of(
    st.binary(max_size=60),
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.sampled_from(
        [b"", b"[" * 100_000, b'{"a":' * 100_000, b'{"files": {"\\ud800": 1}}', b"\xff\xfe{}", b"NaN", b"{}"]
    ),
)
KINDS = ("runs", "records", "checkpoints", "tensors")


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(kind=st.sampled_from(KINDS), data=BYTES)
@example(kind="runs", data=b"[" * 100_000)
@example(kind="records", data=b"[" * 100_000)
@example(kind="records", data=b'{"a":' * 100_000)
@example(kind="checkpoints", data=b"[" * 100_000)
def test_objects_of_any_bytes_break_no_command(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, kind: str, data: bytes
) -> None:
    folder = Path(tempfile.mkdtemp(dir=tmp_path_factory.getbasetemp()))
    shutil.copytree(whole, folder, dirs_exist_ok=True)
    for name in (KEY, EVALUATION, IMPORTANCE, "strange"):
        (folder / "store" / kind).mkdir(exist_ok=True)
        (folder / "store" / kind / f"{name}.json").write_bytes(data)
    look_after(folder)
    shutil.rmtree(folder)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_nearly_sound_objects_break_no_command(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = Path(tempfile.mkdtemp(dir=tmp_path_factory.getbasetemp()))
    shutil.copytree(whole, folder, dirs_exist_ok=True)
    kind = data.draw(st.sampled_from(KINDS[:3]))
    path = sorted((folder / "store" / kind).iterdir())[-1]
    sound = json.loads(path.read_text("utf-8"))
    if kind == "runs":
        sound["lease"] = {"holder": "x", "host": "h b n", "pid": 5, "started": "1", "beat": 0, "seconds": 90.0}
    path.write_bytes(json.dumps(data.draw(changed(sound))).encode())
    if kind == "runs":
        os.utime(path, (0, 0))  # long ago, so that nobody waits for the lease where it is sound
    look_after(folder)
    shutil.rmtree(folder)


LEASE = {"holder": "x", "host": "elsewhere boot pid", "pid": 5, "started": "1", "beat": 0, "seconds": 90.0}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state.update(lease=LEASE | {"pid": 2**70}),
        lambda state: state.update(lease=LEASE | {"pid": 0}),
        lambda state: state.update(lease=LEASE | {"pid": -1}),
        lambda state: state.update(lease=LEASE | {"seconds": 1e300}),
        lambda state: state.update(lease=LEASE | {"seconds": -1}),
        lambda state: state.update(lease=LEASE | {"beat": 2**70}),
        lambda state: state["history"][0].update(accuracy="y"),
        lambda state: state["history"][0].update(index="x"),
        lambda state: state["history"][0].update(parent="../../victim"),
        lambda state: state["history"][0].update(checkpoint=[1]),
        lambda state: state["history"].append({}),
    ],
)
def test_a_damaged_run_is_named_and_set_aside_and_the_rest_goes_on(
    whole: Path, tmp_path: Path, spoil: Callable[[dict[str, Any]], None]
) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "store" / "runs" / f"{KEY}.json"
    state = json.loads(path.read_text("utf-8"))
    spoil(state)
    path.write_text(json.dumps(state), "utf-8")
    address = str(tmp_path / "store")
    assert KEY[:12] in said("ls", address), "as a run, or as what is damaged"
    assert f"runs/{KEY}.json" in {fault.name for fault in verify_store(open_store(address))}
    assert "0 files" in said("gc", address), "nobody works on it"
    with open_store(address).run_state("b" * 64):
        pass
    discarded = discard_faults(open_store(address))
    removed, aside = discarded.removed, discarded.set_aside
    assert removed == [f"runs/{KEY}.json"]
    assert json.loads((tmp_path / "store" / aside[removed[0]]).read_text("utf-8")) == state
    assert verify_store(open_store(address)) == []
    assert open_store(address).read_record(EVALUATION), "what was made stays, and a resumed run finds it"
    with open_store(address).run_state(KEY) as state:
        assert state.history() == []


def test_a_state_with_times_in_the_future_blocks_nobody(whole: Path, tmp_path: Path) -> None:
    """As after unpacking an archive, or on a disk whose clock was set back."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "store" / "runs" / f"{KEY}.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"lease": LEASE}), "utf-8")
    os.utime(path, (4e9, 4e9))
    assert "works on it" not in said("ls", str(tmp_path / "store"))
    assert "0 files" in said("gc", str(tmp_path / "store"))


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({"a": 0, "a/b": 0}, "'a' is a file and also the folder of 'a/b'"),
        ({"a/b": 0, "a/b/c/d": 0}, "'a/b' is a file and also the folder of 'a/b/c/d'"),
        ({"x" * 300: 0}, "too long"),
        ({"空" * 86: 0}, "too long"),
        ({"/".join(["y" * 200] * 6): 0}, "too long"),
        ({".": 0}, "no name of a file"),
        ({"config.json": 2**70}, "less than or equal to"),
    ],
)
def test_a_manifest_that_no_disk_could_hold_is_damaged(whole: Path, tmp_path: Path, files: dict, fault: str) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    told = {"files": {name: {"sha256": "0" * 64, "size": size} for name, size in files.items()}}
    (tmp_path / "store" / "checkpoints" / f"{'1' * 64}.json").write_text(json.dumps(told), "utf-8")
    store = open_store(str(tmp_path / "store"))
    (found,) = verify_store(store)
    assert found.name == f"checkpoints/{'1' * 64}.json"
    assert fault in found.fault
    assert len(list_store(store).checkpoints) == 2, "the rest is listed"
    with pytest.raises(UserError, match="is no manifest"):
        store.checkpoint("1" * 64)


def test_a_manifest_with_a_wrong_size_is_discarded_and_its_blob_stays(whole: Path, tmp_path: Path) -> None:
    """The blob is needed by others and must stay."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    store = open_store(str(tmp_path / "store"))
    digest = next(listed.digest for listed in list_store(store).checkpoints)
    manifest = store.manifest(digest)
    told = json.loads(manifest.model_dump_json())
    told["files"]["config.json"]["size"] += 1
    store.objects.delete(f"checkpoints/{digest}.json")
    store.objects.write(f"checkpoints/{digest}.json", json.dumps(told).encode(), None)
    store.objects.write(f"tensors/{'2' * 64}.json", manifest.model_dump_json().encode(), None)
    (fault,) = verify_store(store)
    assert (fault.name, fault.needed_by) == (f"checkpoints/{digest}.json", [])
    discard_faults(store)
    assert verify_store(store) == []
    assert store.objects.holds(manifest.files["config.json"].blob)


def test_links_below_a_store_lead_nowhere(whole: Path, tmp_path: Path) -> None:
    """A folder of the store that leads out of it would be cleaned up as if it were the store's own."""
    (tmp_path / "photos" / "ab").mkdir(parents=True)
    (tmp_path / "photos" / "ab" / ("ab" + "0" * 62)).write_text("a photo", "utf-8")
    for name in ("blobs", "runs", "checkpoints", "work"):
        folder = tmp_path / name
        shutil.copytree(whole / "store", folder)
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).symlink_to(tmp_path / "photos")
        store = open_store(str(folder), make=False)
        for work in (
            lambda store=store: collect_garbage(store, 0, dry_run=False),
            lambda store=store: discard_faults(store),
            lambda store=store: remove_run(store, KEY, dry_run=False),
        ):
            with pytest.raises(UserError, match="is a link"):
                work()
    assert names(tmp_path / "photos") == ["ab/ab" + "0" * 62]


def test_a_blob_or_record_that_is_a_link_is_damaged_and_its_target_stays(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    secret = tmp_path / "secret.json"
    secret.write_text("{}", "utf-8")
    store = open_store(str(tmp_path / "store"))
    blob = store.manifest(next(listed.digest for listed in list_store(store).checkpoints)).files["config.json"].blob
    for path in (tmp_path / "store" / blob.name, tmp_path / "store" / "records" / "x.json"):
        path.unlink(missing_ok=True)
        path.symlink_to(secret)
    os.mkfifo(tmp_path / "store" / "records" / "pipe.json")
    found = {fault.name for fault in verify_store(store)}
    assert {blob.name, "records/x.json", "records/pipe.json"} <= found
    discard_faults(store)
    assert verify_store(store) == []
    assert secret.read_text("utf-8") == "{}"


@pytest.mark.parametrize("name", ["work/opening.lock", "lock", "work"])
def test_a_lock_that_is_a_link_is_refused_and_what_it_leads_to_stays(whole: Path, tmp_path: Path, name: str) -> None:
    """Old versions of filelock, which pyproject.toml allows, empty the file that they lock."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    victim = tmp_path / "victim"
    victim.mkdir() if name == "work" else victim.write_text("precious", "utf-8")
    path = tmp_path / "store" / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(victim)
    digest = list_store(open_store(str(whole / "store"), make=False)).checkpoints[0].digest
    with pytest.raises(UserError, match="is a link"):
        open_checkpoint(f"{tmp_path / 'store'}/checkpoints/{digest}")
        said("gc", str(tmp_path / "store"))
        open_store(str(tmp_path / "store")).write_record("x", {})
    assert names(tmp_path / "victim") == [] if name == "work" else victim.read_text("utf-8") == "precious"


def test_other_folders_are_not_stores_and_their_files_are_left_alone(tmp_path: Path) -> None:
    """The cache of Hugging Face has blobs/, too."""
    cache = tmp_path / "models--org--name"
    (cache / "blobs").mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "blobs" / ("1" * 64)).write_text("weights", "utf-8")
    assert "there is no store" in said("gc", str(cache), "--grace", "0")
    (cache / "runs").mkdir()
    said("gc", str(cache), "--grace", "0")
    said("verify", str(cache), "--discard")
    assert (cache / "blobs" / ("1" * 64)).read_text("utf-8") == "weights"


def test_an_object_that_is_too_large_is_not_read(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "store" / "records" / f"{EVALUATION}.json"
    with path.open("r+b") as file:
        file.truncate(200 * 10**9)  # a sparse file
    store = open_store(str(tmp_path / "store"))
    with pytest.raises(UserError, match="has 200000000000 bytes"):
        store.read_record(EVALUATION)
    assert [fault.name for fault in verify_store(store)] == [f"records/{EVALUATION}.json"]
    discard_faults(store)
    assert verify_store(store) == []


def test_an_object_that_is_too_large_is_not_read_from_a_bucket(
    new_bucket: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(new_bucket())
    store.write_record("x", {"a": "b" * 1000})
    assert SMALL > 1000
    monkeypatch.setattr("lmmpress.store.bucket.SMALL", 1000)
    with pytest.raises(UserError, match="has more than 1000 bytes"):
        store.read_record("x")


def test_a_wrong_size_in_a_manifest_does_not_empty_the_cache(new_bucket: Callable[[], str], tmp_path: Path) -> None:
    address = new_bucket()
    store = open_store(address)
    sound = store.add_checkpoint(random_checkpoint(tmp_path / "made", 0))
    told = json.loads(store.manifest(sound).model_dump_json())
    told["files"]["config.json"]["size"] = 5 << 40
    kept = sorted(path.name for path in (tmp_path / "cache" / "blobs").rglob("*"))
    store.objects.write(f"tensors/{'2' * 64}.json", json.dumps(told).encode(), None)
    (fault,) = verify_store(store)
    assert fault.name == f"tensors/{'2' * 64}.json"
    with pytest.raises(UserError, match="is damaged"):
        store._tree("tensors", certain(store._read_manifest(f"tensors/{'2' * 64}.json")))
    assert sorted(path.name for path in (tmp_path / "cache" / "blobs").rglob("*")) == kept


def test_invalid_tensors_are_a_one_line_error(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    store = open_store(str(tmp_path / "store"))
    for name, data in (("tensors.safetensors", b"\xff" * 100), ("tensors.safetensors", b""), ("other", b"x")):
        with store.scratch() as folder:
            (folder / name).write_bytes(data)
            manifest = store._send({name: folder / name})
        store.objects.delete(f"tensors/{IMPORTANCE}.json")
        store._write_manifest(f"tensors/{IMPORTANCE}.json", manifest)
        with pytest.raises(UserError, match="tensors"):
            store.read_tensors(IMPORTANCE)


def test_an_error_of_the_server_is_not_reported_as_damage(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise --discard would remove sound objects."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    store = open_store(str(tmp_path / "store"))
    read = store.objects.read

    def fail(name: str) -> Any:
        if name == f"runs/{KEY}.json":
            raise UserError("access is denied")
        return read(name)

    monkeypatch.setattr(store.objects, "read", fail)
    with pytest.raises(UserError, match="access is denied"):
        verify_store(store)

    def refuse(blob: Blob) -> None:
        raise PermissionError(13, "Permission denied", blob.name)

    monkeypatch.undo()
    monkeypatch.setattr(store.objects, "check", refuse)
    with pytest.raises(PermissionError):
        discard_faults(store)
    monkeypatch.undo()
    assert verify_store(store) == []
