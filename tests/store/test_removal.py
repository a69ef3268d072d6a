"""`lmmpress store rm` removes a run with what only it uses, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.cli import refused, run_store
from support.decisions import decision
from support.store_worker import random_checkpoint

from lmmpress.engine.compression import compress
from lmmpress.errors import UserError
from lmmpress.plan import parse_plan
from lmmpress.store import Store, open_store
from lmmpress.store.housekeeping import list_store, remove_run, verify_store
from lmmpress.store.pins import Pin, write_pin
from lmmpress.store.records import OF, RUN, RunNote, Subjects

OURS, THEIRS = "a" * 64, "b" * 64
OUR_DATA, THEIR_DATA = "1" * 64, "2" * 64


def note(store: Store, key: str, teacher: str, data: str, taken_in: bool = True) -> None:
    store.write_record(f"{RUN}{key}", RunNote(teacher=teacher, data=[data], taken_in=taken_in).model_dump())


def part(store: Store, name: str, subject: str, data: str | None, **found: Any) -> str:
    """The record of a part of a step, as the engine writes it."""
    subjects = Subjects(checkpoints=[subject], data=[data] if data else [])
    store.write_record(name, found | {OF: subjects.model_dump(), "seconds": 1.0})
    return f"records/{name}.json"


class Steps:
    """Two runs of one teacher on different data, which share their first cut: our distilled, their distilled."""

    def __init__(self, store: Store, folder: Path, taken_in: bool = True) -> None:
        made = [store.add_checkpoint(random_checkpoint(folder / str(number), number)) for number in range(4)]
        self.teacher, self.cut, self.ours, self.theirs = made
        for key, data, result in ((OURS, OUR_DATA, self.ours), (THEIRS, THEIR_DATA, self.theirs)):
            note(store, key, self.teacher, data, taken_in)
            with store.run_state(key) as state:
                state.decide(0, decision(self.teacher, result))
        self.shared = part(store, "prune-1", self.teacher, None, checkpoint=self.cut)
        self.of_ours = [
            part(store, "distill-1", self.cut, OUR_DATA, checkpoint=self.ours, loss=[]),
            part(store, "evaluate-1", self.teacher, OUR_DATA, right="1"),
            part(store, "evaluate-2", self.ours, OUR_DATA, right="1"),
        ]
        part(store, "distill-2", self.cut, THEIR_DATA, checkpoint=self.theirs, loss=[])
        part(store, "evaluate-3", self.teacher, THEIR_DATA, right="1")


def names(store: Store) -> set[str]:
    return {
        entry.name
        for kind in ("runs/", "records/", "checkpoints/", "tensors/")
        for entry in store.objects.entries(kind)
    }


def test_removing_a_run_removes_all_that_only_it_uses(store: Store, address: str, tmp_path: Path) -> None:
    steps = Steps(store, tmp_path)
    store.write_record(f"dtype-{OURS}", {"dtype": "float32"})
    store.write_record("submission-" + OURS[:12] + "-12345678", {"submission": json.dumps({"key": OURS})})
    for submission in (OURS[:12], THEIRS[:12]):
        store.write_record(f"tried-{submission}-gate-0", {"why": "failed", "run": f"{submission}-12345678"})
    before = names(store)
    removed = {
        f"runs/{OURS}.json",
        f"records/tried-{OURS[:12]}-gate-0.json",
        f"records/{RUN}{OURS}.json",
        f"records/dtype-{OURS}.json",
        f"records/submission-{OURS[:12]}-12345678.json",
        f"checkpoints/{steps.ours}.json",
        *steps.of_ours,
    }
    blobs = {file.blob.name for file in store.manifest(steps.ours).files.values() if file.size}
    told = json.loads(run_store("rm", address, "aaaa", "--dry-run", "--json"))
    assert names(store) == before, "a dry run removes nothing"
    assert set(told["names"]) == removed | blobs
    assert told["kept"] == {steps.teacher: [THEIRS], steps.cut: [THEIRS]}
    assert "removed run aaaaaaaaaaaa" in run_store("rm", address, OURS)
    assert before - names(store) == removed
    assert not {entry.name for entry in store.objects.entries("blobs/")} & blobs
    assert verify_store(store) == []


def test_removing_the_last_run_of_a_teacher_removes_the_teacher_too(store: Store, tmp_path: Path) -> None:
    Steps(store, tmp_path)
    for key in (OURS, THEIRS):
        remove_run(store, key, dry_run=False)
    assert names(store) == set()
    assert list(store.objects.entries("blobs/")) == []


def test_a_teacher_that_was_in_the_store_before_stays(store: Store, tmp_path: Path) -> None:
    """Its copy in the store may be the only one."""
    steps = Steps(store, tmp_path, taken_in=False)
    for key in (OURS, THEIRS):
        remove_run(store, key, dry_run=False)
    assert names(store) == {f"checkpoints/{steps.teacher}.json"}
    assert verify_store(store) == []


def test_the_teacher_of_another_run_stays(store: Store, tmp_path: Path) -> None:
    """The result of a run that has become the teacher of another."""
    steps = Steps(store, tmp_path)
    note(store, "c" * 64, steps.ours, THEIR_DATA, taken_in=False)
    with store.run_state("c" * 64):
        pass
    assert remove_run(store, OURS, dry_run=False).kept[steps.ours] == ["c" * 64]
    assert store.manifest(steps.ours)
    assert verify_store(store) == []


def test_of_a_run_of_an_older_version_only_what_is_surely_its_own_is_removed(store: Store, tmp_path: Path) -> None:
    """Its records do not name their subjects, and its data is unknown."""
    steps = Steps(store, tmp_path)
    for name in [*steps.of_ours, f"records/{RUN}{OURS}.json", f"records/{RUN}{THEIRS}.json"]:
        store.objects.delete(name)
    store.write_record("distill-1", {"checkpoint": steps.ours, "loss": [], "seconds": 1.0})
    removal = remove_run(store, OURS, dry_run=False)
    assert {name for name in removal.names if not name.startswith("blobs/")} == {
        f"checkpoints/{steps.ours}.json",
        "records/distill-1.json",
        f"runs/{OURS}.json",
    }
    assert verify_store(store) == []


def test_the_rest_of_an_unfinished_step_is_removed_with_the_last_run_that_could_have_made_it(
    store: Store, tmp_path: Path
) -> None:
    steps = Steps(store, tmp_path)
    pending = store.add_checkpoint(random_checkpoint(tmp_path / "pending", 9))
    part(store, "prune-9", steps.teacher, None, checkpoint=pending)
    assert remove_run(store, OURS, dry_run=False).kept[pending] == [THEIRS]
    assert f"checkpoints/{pending}.json" in remove_run(store, THEIRS, dry_run=False).names
    assert names(store) == set()


def test_nothing_is_removed_while_a_run_is_worked_on(store: Store, tmp_path: Path) -> None:
    Steps(store, tmp_path)
    for key in (OURS, THEIRS):
        with store.run_state(key), pytest.raises(UserError, match=f"works on runs/{key}.json; nothing is removed"):
            remove_run(store, OURS, dry_run=False)


def test_what_is_pinned_is_refused_in_one_line_that_says_for_what(store: Store, address: str, tmp_path: Path) -> None:
    steps = Steps(store, tmp_path)
    before = names(store)
    write_pin(store.objects, "m", Pin(checkpoints={steps.ours: "version 5 of AntGMM-compressed is in service"}))
    said = refused("store", "rm", address, OURS)
    assert said == (
        f"{address}: checkpoint {steps.ours[:12]} is still needed: version 5 of AntGMM-compressed is in service; "
        "nothing is removed; --force removes the run all the same"
    )
    write_pin(store.objects, "m", Pin(runs={OURS: "claim lmmpress-antgmm-8-1 is not at its end"}))
    assert f": run {OURS[:12]} is still needed: claim lmmpress-antgmm-8-1" in refused("store", "rm", address, OURS)
    assert names(store) == before
    write_pin(store.objects, "m", Pin(checkpoints={steps.theirs: "theirs", steps.teacher: "stays", "e" * 64: "gone"}))
    assert "removed run aaaaaaaaaaaa" in run_store("rm", address, OURS), "nothing that goes with it is pinned"
    assert "theirs" in refused("store", "rm", address, THEIRS)
    assert "removed run bbbbbbbbbbbb" in run_store("rm", address, THEIRS, "--force")


def test_a_pin_that_cannot_be_read_holds_everything(store: Store, tmp_path: Path) -> None:
    Steps(store, tmp_path)
    for damaged in (b"{]", b'{"checkpoints": {"x": "y"}}'):
        store.objects.write("pins/m.json", damaged, None)
        with pytest.raises(UserError, match=r"pins/m\.json says what is still needed, and cannot be read") as caught:
            remove_run(store, OURS, dry_run=False)
        assert len(caught.value.lines) == 1
        store.objects.delete("pins/m.json")
    write_pin(store.objects, "m", Pin(runs={OURS: "x\x1b[31m"}))
    with pytest.raises(UserError, match="needed: x") as caught:
        remove_run(store, OURS, dry_run=False)
    assert "\x1b" not in str(caught.value)
    write_pin(store.objects, "m", Pin())
    assert list(store.objects.entries("pins/")) == [], "nothing is left of a pin that says nothing"
    remove_run(store, OURS, dry_run=False)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("dddd", "holds no run dddd"),
        ("", "names no run"),
        ("a", "names no run"),
        ("aaaa", "2 runs begin with aaaa: aaaaaaaaaaaaaaaa, aaaabbbb"),
        ("../runs", "holds no run"),
    ],
)
def test_a_prefix_of_a_key_must_match_one_run(tmp_path: Path, asked: str, message: str) -> None:
    store = open_store(str(tmp_path / "store"))
    Steps(store, tmp_path)
    with store.run_state("aaaabbbb" * 8):
        pass
    before = names(store)
    with pytest.raises(UserError, match=message):
        remove_run(store, asked, dry_run=False)
    assert names(store) == before


def test_nothing_is_removed_where_references_cannot_be_read(store: Store, tmp_path: Path) -> None:
    Steps(store, tmp_path)
    for name in ("runs/c.json", "records/c.json", f"checkpoints/{'c' * 64}.json"):
        store.objects.write(name, b"{]", None)
        with pytest.raises(UserError, match="nothing is removed; `lmmpress store verify --discard`"):
            remove_run(store, OURS, dry_run=False)
        store.objects.delete(name)
    remove_run(store, OURS, dry_run=False)


def test_records_of_unknown_form_stay(store: Store, tmp_path: Path) -> None:
    Steps(store, tmp_path)
    for number, found in enumerate([{"checkpoint": [1]}, {"checkpoint": {}, "of": 3}, {"submission": "[" * 10_000}]):
        store.objects.write(f"records/strange-{number}.json", json.dumps(found).encode(), None)
    store.objects.delete("records/strange-1.json")  # this one is damaged, and would have to be set aside first
    remove_run(store, OURS, dry_run=False)
    assert {"records/strange-0.json", "records/strange-2.json"} <= names(store)


def test_a_removal_that_was_cut_off_is_finished_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0
    while True:
        store = open_store(str(tmp_path / f"store-{count}"))
        Steps(store, tmp_path / f"made-{count}")
        left = iter(range(count))
        delete = store.objects.delete

        def fail_after_some(name: str, left: Any = left, delete: Any = delete) -> None:
            if next(left, None) is None:
                raise OSError("pulled the plug")
            delete(name)

        monkeypatch.setattr(store.objects, "delete", fail_after_some)
        whole = remove_run(store, OURS, dry_run=True)
        if count == len(whole.names):
            break
        with pytest.raises(OSError, match="pulled the plug"):
            remove_run(store, OURS, dry_run=False)
        monkeypatch.undo()
        remove_run(store, OURS, dry_run=False)
        assert not names(store) & set(whole.names)
        assert verify_store(store) == []
        remove_run(store, THEIRS, dry_run=False)
        assert names(store) == set()
        count += 1
    assert count > 8


def test_each_of_two_real_runs_is_removed_without_harm_to_the_other(
    raw_plan: dict[str, Any], trusting: None, tmp_path: Path
) -> None:
    """After the first removal everything that the other run needs is left; after both nothing is left."""
    address = str(tmp_path / "store")
    raw_plan |= {"store": address, "stages": {"block": {"step": 1, "max": 1}, "ffn": {"step": 16, "max": 16}}}
    first, other = parse_plan(raw_plan), parse_plan(raw_plan, ("distillation.learning_rate=0.002",))
    ours = compress(first, tmp_path / "ours").run_key
    theirs = compress(other, tmp_path / "theirs").run_key
    store = open_store(address)
    remove_run(store, ours, dry_run=False)
    assert verify_store(store) == []
    assert [run.run_key for run in list_store(store).runs] == [theirs]
    before = names(store)
    compress(other, tmp_path / "theirs", resume=True)
    assert names(store) == before, "all that a resumed run looks for is still there"
    remove_run(store, theirs, dry_run=False)
    assert names(store) == set()
    assert list(store.objects.entries("blobs/")) == []
