"""Caches within a budget: what has no room or is damaged costs time, and no run."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.certain import certain, one_tensor, whole

from lmmpress.engine import materials as materials_module
from lmmpress.engine.materials import Materials
from lmmpress.engine.parts.distill import distill
from lmmpress.engine.parts.lesson import lesson_of
from lmmpress.engine.parts.once import inputs_of
from lmmpress.lmm import tensor_rows
from lmmpress.lmm.batches import Batches, make_batch
from lmmpress.lmm.tensor_rows import TensorRows
from lmmpress.plan import parse_plan
from lmmpress.progress import Event, Said, listening
from lmmpress.store import open_store
from lmmpress.store.housekeeping.verify import verify_store

pytestmark = pytest.mark.usefixtures("trusting")
KINDS = ("features", "states")


@pytest.fixture
def materials(raw_plan: dict[str, Any], tmp_path: Path) -> Callable[..., Materials]:
    """Another process of a run, whose plan says this of caches; with some `others` of its distillation."""

    def make(caches: bool | dict[str, Any] = True, **others: Any) -> Materials:
        plan = parse_plan(raw_plan | {"distillation": raw_plan["distillation"] | others | {"caches": caches}})
        store = open_store(str(tmp_path / "store"))
        return Materials(plan, store, store.add_checkpoint(Path(plan.model)))

    return make


def of(materials: Materials, kind: str) -> TensorRows | None:
    found = materials.features("distill") if kind == "features" else materials.teacher_states
    assert found is None or isinstance(found, TensorRows)
    return found


def said(work: Callable[[], Any]) -> list[str]:
    """The lines that some work says."""
    events: list[Event] = []
    with listening(events.append):
        work()
    return [event.words for event in events if isinstance(event, Said)]


def kept(folder: Path) -> list[str]:
    """The kinds of the caches that the store has."""
    files = (folder / "store" / "tensors").glob("*.json")
    return sorted(kind for kind in (file.name.partition("-")[0] for file in files) if kind in KINDS)


def blob_of(materials: Materials, kind: str, folder: Path) -> Path:
    """The file in the store of a cache."""
    there = os.fstat(certain(of(materials, kind))._file.fileno()).st_ino
    (found,) = (path for path in (folder / "store" / "blobs").rglob("*") if path.stat().st_ino == there)
    return found


def left_over(folder: Path) -> list[Path]:
    """Files that somebody has begun to write."""
    return [path for path in (folder / "store" / "work").rglob("*") if "new-" in str(path) or "aside-" in str(path)]


def teacher_logits(materials: Materials) -> torch.Tensor:
    examples = materials.lessons("distill")
    return materials.teacher_logits(make_batch(examples, [3, 0, 5], materials.features("distill")))


# --- a budget ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("disk", [0, 1, "1kB"])
def test_what_does_not_fit_is_computed_in_each_step_which_a_line_says(
    materials: Callable[..., Materials], tmp_path: Path, disk: int | str
) -> None:
    mine = materials({"disk": disk})
    features, states = said(lambda: of(mine, "features")), said(lambda: of(mine, "states"))
    assert (of(mine, "features"), of(mine, "states")) == (None, None)
    assert len(features) == len(states) == 1
    assert "every step runs the image towers over all pictures" in features[0]
    assert "every step runs the teacher over all rows" in states[0]
    assert all("distillation.caches.disk is 1" in line for line in features + states) or disk == 0
    assert kept(tmp_path) == left_over(tmp_path) == []
    torch.testing.assert_close(teacher_logits(mine), teacher_logits(materials(False)))


def test_the_line_says_how_many_bytes_there_would_be(materials: Callable[..., Materials]) -> None:
    size = whole(of(materials(), "states")).nbytes
    (line,) = said(lambda: of(materials({"disk": 1, "dtype": "bfloat16"}), "states"))[1:]
    assert f"they have {size / 2000:.2f} kB" in line


def test_the_budget_is_that_of_all_caches_of_the_run(materials: Callable[..., Materials], tmp_path: Path) -> None:
    """Whichever process has made them; other runs in the store do not count."""
    disk = sum(whole(of(materials(), kind)).nbytes for kind in KINDS) - 1
    for file in (tmp_path / "store" / "tensors").glob("*"):
        file.unlink()
    mine = materials({"disk": disk})
    assert of(mine, "features") is not None
    (line,) = said(lambda: of(mine, "states"))
    assert "of other caches, and distillation.caches.disk is" in line
    assert kept(tmp_path) == ["features"]
    other = materials({"disk": disk})
    for record in (tmp_path / "store" / "records").glob("features-*.json"):
        record.write_text(record.read_text("utf-8").replace(other.digest("distill"), "0" * 64), "utf-8")
    assert of(other, "states") is not None


def test_what_the_store_has_is_read_whatever_the_budget_is(materials: Callable[..., Materials]) -> None:
    wanted = whole(of(materials(), "states"))
    assert torch.equal(whole(of(materials({"disk": 0}), "states")), wanted)


def test_a_process_that_makes_no_part_makes_no_caches(materials: Callable[..., Materials], tmp_path: Path) -> None:
    """Of several that distil together none makes what had no room before."""
    mine = materials()
    mine.makes = frozenset()
    assert said(lambda: of(mine, "states")) == []
    assert of(mine, "states") is None
    assert kept(tmp_path) == []


def test_a_step_without_room_learns_what_it_learns_without_caches(materials: Callable[..., Materials]) -> None:
    one, other = materials({"disk": 0}, epochs=1), materials(False, epochs=1)
    found = [certain(distill(mine, mine.original).loss) for mine in (one, other)]
    assert found[0] == pytest.approx(found[1], rel=1e-3)


# --- a full disk ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "writes"), [("features", 0), ("features", 1), ("states", 3)])
def test_a_disk_that_is_full_in_the_middle_ends_no_run(
    materials: Callable[..., Materials], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, writes: int
) -> None:
    mine, write, done = materials(), os.pwrite, [0]
    monkeypatch.setattr("lmmpress.engine.materials._BATCH", 3)
    if kind == "states":
        of(mine, "features")

    def pwrite(*arguments: Any) -> int:
        done[0] += 1
        if done[0] > writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(*arguments)

    monkeypatch.setattr(tensor_rows.os, "pwrite", pwrite)
    (line,) = said(lambda: of(mine, kind))
    assert "no space left on the disk" in line
    assert "every step runs" in line
    monkeypatch.setattr(tensor_rows.os, "pwrite", write)
    assert of(mine, kind) is None, "a process tries it once"
    assert kind not in kept(tmp_path)
    assert left_over(tmp_path) == []
    assert list((tmp_path / "store" / "records").glob(f"{kind}-*")) == []
    torch.testing.assert_close(teacher_logits(mine), teacher_logits(materials(False)))
    assert of(materials(), kind) is not None, "the next process has room"


def test_what_the_disk_has_no_room_for_is_not_begun(
    materials: Callable[..., Materials], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its size is known with the first batch, before hours of work."""
    monkeypatch.setattr("lmmpress.engine.caches.shutil.disk_usage", lambda _: type("", (), {"free": 100}))
    monkeypatch.setattr("os.pwrite", None)
    (line,) = said(lambda: of(materials(), "features"))
    assert "100 B are free on the store's disk" in line


# --- damage --------------------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 16]))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a flipped bit": flip,
    "a file that is cut short": lambda path: os.truncate(path, 900),
    "an empty file": lambda path: os.truncate(path, 0),
    "a missing file": Path.unlink,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_made_anew_which_a_line_says(
    materials: Callable[..., Materials], tmp_path: Path, kind: str, damage: str
) -> None:
    mine = materials()
    wanted, path = whole(of(mine, kind)), blob_of(mine, kind, tmp_path)
    path.chmod(0o644)
    DAMAGES[damage](path)
    other = materials()
    (line,) = said(lambda: of(other, kind))
    assert "is missing" in line if damage == "a missing file" else "is damaged" in line
    assert "computed anew" in line
    assert torch.equal(whole(of(other, kind)), wanted)
    assert said(lambda: of(materials(), kind)) == [], "the store has it again"
    assert verify_store(other.store) == []


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_may_make_the_same_at_once(
    materials: Callable[..., Materials], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, damaged: bool
) -> None:
    """The second begins and ends while the first is at work."""
    if damaged:
        path = blob_of(materials(), kind, tmp_path)
        path.chmod(0o644)
        flip(path)
    mine, other = materials(), materials()
    name = {"features": "visual_features", "states": "answer_states"}[kind]
    really = getattr(materials_module, name)
    found: list[torch.Tensor] = []

    def in_between(*arguments: Any) -> Any:
        monkeypatch.setattr(materials_module, name, really)
        found.append(whole(of(other, kind)))
        return really(*arguments)

    monkeypatch.setattr(materials_module, name, in_between)
    assert torch.equal(whole(of(mine, kind)), *found)
    assert torch.equal(whole(of(materials(), kind)), *found)
    assert verify_store(mine.store) == []


# --- another dtype -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_a_smaller_dtype_hold_rounded_rows_and_have_another_name(
    materials: Callable[..., Materials], tmp_path: Path, kind: str
) -> None:
    plain, small = materials(), materials({"dtype": "bfloat16"})
    if kind == "states":  # of the same features
        small.features = plain.features  # type: ignore[method-assign]
    assert torch.equal(whole(of(small, kind)), whole(of(plain, kind)).bfloat16())
    assert kept(tmp_path).count(kind) == 2
    sizes = [blob_of(mine, kind, tmp_path).stat().st_size for mine in (plain, small)]
    assert sizes[0] / sizes[1] == pytest.approx(2, rel=0.1)
    assert torch.equal(whole(of(materials({"dtype": "bfloat16"}), kind)), whole(of(small, kind)))


def test_results_depend_on_a_dtype_that_rounds_and_on_nothing_else_of_caches(
    materials: Callable[..., Materials],
) -> None:
    def inputs(mine: Materials) -> dict[str, Any]:
        return inputs_of(mine, mine.original, mine.digest("distill"))

    usual = inputs(materials())
    for caches in (False, {}, {"disk": "1GB", "memory": 5}, {"dtype": "float32"}):
        assert inputs(materials(caches)) == usual
    assert inputs(materials({"dtype": "bfloat16"})) == usual | {"caches": "torch.bfloat16"}


# --- reading -------------------------------------------------------------------------------------------------------


def test_a_lesson_reads_the_states_with_its_batches(materials: Callable[..., Materials]) -> None:
    """In the threads that make them: the loss reads nothing from the disk."""
    mine = materials()
    lesson = lesson_of(mine, mine.original, "whole", mine.plan.distillation, None)
    states = whole(of(mine, "states"))
    for batch in Batches(lesson.examples, [[3, 0], [5]], lesson.features):
        assert torch.equal(one_tensor(batch.goals), states[batch.number])
        assert torch.equal(mine.teacher_states_of(batch).inputs, states[batch.number])


def test_a_step_that_only_repairs_asks_for_no_states(materials: Callable[..., Materials], tmp_path: Path) -> None:
    mine = materials(epochs=0, refit_rows=4)
    assert lesson_of(mine, mine.original, "whole", mine.plan.distillation, None).examples.goals is None
    assert kept(tmp_path) == ["features"]


def test_the_teacher_does_not_see_by_another_image_side(materials: Callable[..., Materials], tmp_path: Path) -> None:
    """If its states have no room, it runs on batches whose features are those of a student's image side."""
    mine = materials(image_side="features")
    mine.__dict__["frozen"] = ()  # as if a tower of the image side were cut
    examples, own = mine.lessons("distill"), mine.features("distill", mine.original)
    batch = make_batch(examples, [3, 0, 5], own)
    wanted = materials(False).teacher_logits(make_batch(examples, [3, 0, 5]))
    mine._states_of = lambda *_: None  # type: ignore[method-assign]
    assert own is not None
    blind = torch.zeros(len(own), *one_tensor(batch.features).shape[1:])
    found = mine.teacher_logits(make_batch(examples, [3, 0, 5], blind))
    torch.testing.assert_close(found, wanted)
