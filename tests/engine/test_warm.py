"""Warm runs on a tiny model: which run they start from, what their jumps make, and what is refused."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from support import task_functions as tasks
from support.certain import certain
from support.forks import Forks, loaded
from support.plans import tiny_plan
from support.results import essence
from support.tasks import prepared, result_of
from support.work import WORK

from lmmpress.engine.compression import compress
from lmmpress.engine.parts.training import lasting
from lmmpress.engine.resume import write_step
from lmmpress.engine.warm import find_schedule, note_ended, warmed
from lmmpress.errors import UserError
from lmmpress.lmm.checkpoint import apply_cuts, load_model, read_checkpoint, save_trained
from lmmpress.lmm.compression_record import cuts_of, read_record
from lmmpress.lmm.inspection import inspect_checkpoint
from lmmpress.plan import Jumps, parse_plan
from lmmpress.result import Result
from lmmpress.settings.distillation import Distillation
from lmmpress.settings.schedule import MOST_STEPS, RunEnds
from lmmpress.store import Store, open_store
from lmmpress.store.housekeeping import copy_store, remove_run, verify_store
from lmmpress.store.records import ENDED

pytestmark = pytest.mark.usefixtures("trusting")
CUT_ANEW = {"jumps": {"carry": False}}


class First(NamedTuple):
    """A run of the first version of a model, in full: its plan, its folder, and its result."""

    raw: dict[str, Any]
    out: Path
    result: Result


@pytest.fixture(scope="module")
def first(taught: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> First:
    out = tmp_path_factory.mktemp("first") / "out"
    raw = tiny_plan(taught, data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lmmpress.engine.parts.load.verify_for_users", lambda checkpoint: None)
        return First(raw, out, compress(parse_plan(raw), out))


@pytest.fixture(scope="module")
def second(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second version of the model, of the same shape."""
    return changed(taught, tmp_path_factory.mktemp("second") / "model", 1.01)


@pytest.fixture
def shared(first: First, tmp_path: Path) -> dict[str, Any]:
    """The plan of the first run, in a copy of its store."""
    copy_store(open_store(str(first.out / "store"), make=False), open_store(str(tmp_path / "store")))
    return first.raw | {"store": str(tmp_path / "store"), "start_from": "previous"}


def changed(source: Path, target: Path, factor: float) -> Path:
    """A model with other weights in each block of its language tower."""
    model = load_model(source)
    for number in range(4):
        model.get_parameter(f"language_model.model.layers.{number}.mlp.down_proj.weight").data.mul_(factor)
    save_trained(model, source, read_checkpoint(source), target, {"format": 1, "history": []})
    (target / "COMPRESSION.json").unlink()
    return target


def test_on_the_same_weights_a_warm_run_ends_with_the_same_shape_after_one_jump(
    first: First, shared: dict[str, Any], tmp_path: Path
) -> None:
    result = compress(parse_plan(shared | CUT_ANEW), tmp_path / "out")
    (jump,) = result.steps
    assert jump.decision == "accepted"
    assert jump.title == "jump over 5 steps (block -2, ffn -16, attention -16, io -8)"
    assert result.compressed.parameters_by_tower == first.result.compressed.parameters_by_tower
    after, before = (read_checkpoint(out / "compressed") for out in (tmp_path / "out", first.out))
    assert after.shapes == before.shapes
    assert certain(result.started_from).run == first.result.run_key
    assert result.run_key != first.result.run_key
    assert len(jump.loss) == 3, "the epochs of half of five steps, rounded up"


def test_a_new_version_starts_from_the_run_of_the_old_one_and_says_so(
    first: First, second: Path, shared: dict[str, Any], tmp_path: Path, aloud: None, capsys: pytest.CaptureFixture[str]
) -> None:
    result = compress(parse_plan(shared | CUT_ANEW | {"model": str(second)}), tmp_path / "out")
    said = capsys.readouterr().err
    assert f"warm: starts from run {first.result.run_key[:12]}, which kept 5 steps" in said
    assert "step 1 jump over 5 steps (block -2, ffn -16, attention -16, io -8)" in said
    assert f"warm from run {first.result.run_key[:12]}" in str(result.shown()[-1])
    written = Result.model_validate_json((tmp_path / "out" / "result.json").read_text("utf-8"))
    assert written == result
    record = json.loads((tmp_path / "out" / "compressed" / "COMPRESSION.json").read_text("utf-8"))
    assert record["plan"]["schedule"]["run"] == first.result.run_key
    axes = [entry["cut"]["axis"] for entry in record["history"] if "cut" in entry]
    assert axes == ["block", "ffn", "attention", "io"], "a jump makes one cut for each stage"
    assert sum("distilled_from" in entry for entry in record["history"]) == 1


def test_the_next_version_starts_from_the_warm_run_in_turn(
    second: Path, shared: dict[str, Any], taught: Path, tmp_path: Path
) -> None:
    one = compress(parse_plan(shared | {"model": str(second)}), tmp_path / "one")
    third = changed(taught, tmp_path / "third", 1.02)
    two = compress(parse_plan(shared | {"model": str(third)}), tmp_path / "two")
    assert certain(two.started_from).run == one.run_key
    assert [step.jump for step in two.steps] == [step.jump for step in one.steps]


def test_where_alpha_is_violated_a_shorter_jump_is_tried_and_at_last_single_steps(first: First, tmp_path: Path) -> None:
    """The last step breaks any model: half of its width is removed, and nothing is learned."""
    hopeless = {"epochs": 1, "learning_rate": 1e-9, "batch_size": 8}
    steps = [{"stage": stage, "tower": "language", "removed": removed} for stage, removed in (("ffn", 8), ("io", 24))]
    raw = first.raw | {
        "tolerance": {"alpha": 0.5, "on_violation": "keep"},
        "distillation": hopeless,
        "stages": {"ffn": {"step": 8, "max": 16}, "io": {"step": 24, "max": 24}, "block": {"step": 1, "max": 1}},
        "schedule": {"run": first.result.run_key, "steps": steps},
    }
    result = compress(parse_plan(raw), tmp_path / "out")
    assert [(step.stage, len(step.jump), step.decision) for step in result.steps][:3] == [
        ("ffn", 2, "rolled back"),  # a jump is never kept
        ("ffn", 0, "accepted"),
        ("io", 0, "kept"),
    ]
    assert [step.stage for step in result.steps[3:]] == ["block"], "what comes after goes the gradual way"
    again = compress(parse_plan(raw), tmp_path / "out", resume=True)
    assert essence(again) == essence(result)


def test_a_previous_run_that_is_not_there_is_said_in_a_line_and_the_run_is_the_gradual_one(
    first: First, tmp_path: Path, aloud: None, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = parse_plan(first.raw | {"start_from": "previous", "stages": {"ffn": {"step": 16, "max": 16}}})
    result = compress(plan, tmp_path / "out")
    lines = [line for line in capsys.readouterr().err.splitlines() if "start_from" in line]
    assert len(lines) == 1
    assert "this run goes the gradual way" in lines[0]
    assert result.started_from is None
    again = compress(plan, tmp_path / "out", resume=True)
    assert again.run_key == result.run_key, "it does not start from itself, now that it has ended"
    plain = compress(plan.model_copy(update={"start_from": None}), tmp_path / "out", resume=True)
    assert plain.run_key == result.run_key


def test_a_resumed_run_keeps_its_schedule_whatever_has_ended_since(
    first: First, second: Path, shared: dict[str, Any], tmp_path: Path
) -> None:
    begun = shared | {"model": str(second)}
    store = open_store(shared["store"])
    warmed(parse_plan(begun), store, second).note(store)
    shorter = shared | {"start_from": None, "distillation": shared["distillation"] | {"epochs": 2}}
    other = compress(parse_plan(shorter), tmp_path / "other")
    result = compress(parse_plan(begun), tmp_path / "out", resume=True)
    assert certain(result.started_from).run == first.result.run_key
    assert compress(parse_plan(begun), tmp_path / "out", resume=True).run_key == result.run_key
    last = compress(parse_plan(begun | {"seed": 1}), tmp_path / "new")
    assert certain(last.started_from).run in (other.run_key, result.run_key), "a new question takes the newest"


def test_killed_in_the_middle_of_a_jump_a_run_resumes_to_the_same_checkpoint(
    first: First, second: Path, tmp_path: Path
) -> None:
    raw = first.raw | CUT_ANEW | {"model": str(second), "start_from": str(first.out)}
    expected = compress(parse_plan(raw), tmp_path / "whole")
    out = tmp_path / "killed"
    kills = within = after = 0
    with Forks("support.killed", *loaded("transformers", "accelerate")) as forks:
        while True:
            after += 7 * (kills + 1)
            ended = forks.call("support.killed", "resume_and_die", raw, str(out), after)
            if ended == 0:
                break
            assert ended == -signal.SIGKILL
            kills += 1
            cuts = len(list((out / "store" / "records").glob("prune-*")))
            within += 0 < cuts < 4
    found = Result.model_validate_json((out / "result.json").read_text("utf-8"))
    assert kills >= 3
    assert within >= 1, "between two cuts of the jump"
    assert essence(found) == essence(expected)
    assert found.compressed.checkpoint == expected.compressed.checkpoint


def test_by_stage_a_pipeline_makes_the_same_jump_and_by_step_it_is_refused(
    first: First,
    second: Path,
    shared: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raw = shared | {"model": str(second)}
    one = compress(parse_plan(raw | {"store": None, "start_from": str(first.out)}), tmp_path / "one")
    store, run, _ = prepared(raw)
    with pytest.raises(SystemExit):
        tasks.prune(store, run, "block", 0)
    assert "a pipeline by step makes no jumps" in capsys.readouterr().err
    for stage in raw["stages"]:
        outcome = tasks.compress_stage(store, run, stage)
        assert outcome.address.endswith(str(one.compressed.checkpoint))
    tasks.publish(store, run, str(tmp_path / "page.html"))
    found = result_of(raw)
    assert essence(found) == essence(one)
    assert (found.run_key, found.started_from) == (one.run_key, one.started_from)
    page = (tmp_path / "page.html").read_text("utf-8")
    assert f"<dt>Warm from run</dt><dd><code>{first.result.run_key}</code>" in page
    assert "jump over 5 steps (block -2, ffn -16, attention -16, io -8)" in page


def test_a_warm_run_that_has_ended_does_nothing_again(
    first: First, second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = first.raw | {"model": str(second), "start_from": str(first.out / "result.json")}
    result = compress(parse_plan(raw), tmp_path / "out")

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("it was done before")

    for place in WORK:
        monkeypatch.setattr(place, forbidden)
    assert essence(compress(parse_plan(raw), tmp_path / "out", resume=True)) == essence(result)


def test_the_sizes_of_a_plan_say_which_run_it_would_start_from(first: First, tmp_path: Path) -> None:
    from lmmpress import plan_sizes

    named = plan_sizes(first.raw | {"start_from": str(first.out)})
    wanted = "first a jump over 5 steps (block -2, ffn -16, attention -16, io -8), then shorter ones"
    assert named.shown()[1] == f"start_from: run {first.result.run_key[:12]}: {wanted} if the gate does not accept it"
    none = plan_sizes(first.raw | {"start_from": "previous", "store": str(tmp_path / "store")})
    assert none.start.endswith("steps are made one by one")
    assert plan_sizes(first.raw).start == ""
    assert list(tmp_path.iterdir()) == [], "it makes no store"


# --- what a jump carries over --------------------------------------------------------------------------------------


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "model.safetensors")


def test_carried_to_the_same_weights_without_an_epoch_it_is_the_earlier_result(
    first: First, shared: dict[str, Any], tmp_path: Path
) -> None:
    result = compress(parse_plan(shared | {"jumps": {"carry_epochs": 0}}), tmp_path / "out")
    (jump,) = result.steps
    assert (jump.decision, jump.loss, jump.seconds["importance"]) == ("accepted", [], 0)
    assert result.compressed.checkpoint == first.result.compressed.checkpoint
    record = read_record(tmp_path / "out" / "compressed")
    before = read_record(first.out / "compressed")
    assert cuts_of(certain(record)) == cuts_of(certain(before))


def test_cuts_that_the_original_came_with_are_not_carried_over_again(first: First, tmp_path: Path) -> None:
    stages = {"block": {"step": 1, "max": 1}, "ffn": {"step": 8, "max": 8}}
    raw = first.raw | {"model": str(first.out / "compressed"), "stages": stages, "store": str(tmp_path / "store")}
    further = compress(parse_plan(raw), tmp_path / "further")
    again = compress(parse_plan(raw | {"start_from": "previous", "jumps": {"carry_epochs": 0}}), tmp_path / "again")
    assert [step.title for step in again.steps] == ["jump over 2 steps (block -1, ffn -8)"]
    assert again.compressed.checkpoint == further.compressed.checkpoint
    histories = [cuts_of(certain(read_record(tmp_path / out / "compressed"))) for out in ("further", "again")]
    assert histories[0] == histories[1]


def test_what_was_learned_is_added_to_the_new_version_cut_in_the_same_way(
    first: First, second: Path, shared: dict[str, Any], tmp_path: Path
) -> None:
    """Against the arithmetic in plain torch: the new weights, cut, and the change that distilling made to the old."""
    none = {"model": str(second), "jumps": {"carry_epochs": 0}}
    compress(parse_plan(shared | none), tmp_path / "out")
    compressed, cuts = first.out / "compressed", cuts_of(certain(read_record(first.out / "compressed")))
    for name, source in (("old", Path(first.raw["model"])), ("new", second)):
        apply_cuts(source, read_checkpoint(source), cuts, tmp_path / name)
    old, new, learned = (weights(folder) for folder in (tmp_path / "old", tmp_path / "new", compressed))
    found = weights(tmp_path / "out" / "compressed")
    assert found.keys() == learned.keys()
    for name, value in found.items():
        assert torch.equal(value, (new[name].double() + (learned[name].double() - old[name].double())).float()), name
    assert any(not torch.equal(found[name], new[name]) for name in found), "something was learned"
    assert any(not torch.equal(found[name], learned[name]) for name in found), "the second version differs"


def scaled(source: Path, target: Path) -> Path:
    """A model that answers as another does, by weights of other sizes: what was learned does not fit them."""
    model = load_model(source)
    for number in range(4):
        model.get_parameter(f"language_model.model.layers.{number}.mlp.up_proj.weight").data.mul_(1e4)
        model.get_parameter(f"language_model.model.layers.{number}.mlp.down_proj.weight").data.mul_(1e-4)
    save_trained(model, source, read_checkpoint(source), target, {"format": 1, "history": []})
    (target / "COMPRESSION.json").unlink()
    return target


def test_a_carried_jump_is_distilled_where_the_gate_asks_for_it_and_inspect_says_what_was_done(
    first: First, taught: Path, shared: dict[str, Any], tmp_path: Path
) -> None:
    other = scaled(taught, tmp_path / "scaled")
    changes = {"model": str(other), "jumps": {"carry_epochs": 2}, "start_from": str(first.out)}
    result = compress(parse_plan(shared | changes | {"tolerance": {"alpha": 0.5}}), tmp_path / "out")
    assert [(step.decision, len(step.loss)) for step in result.steps] == [("rolled back", 0), ("accepted", 2)]
    assert result.steps[0].jump == result.steps[1].jump
    shown = inspect_checkpoint(tmp_path / "out" / "compressed")
    *cuts, carried, distilled = shown.history
    assert {"axis" in cut for cut in cuts} == {True}
    assert carried == {"made_from": first.result.compressed.checkpoint, "carried": True}
    assert distilled["distilled"]
    assert "carried over" in str(shown.shown())


def test_from_another_store_the_ends_of_the_earlier_run_are_brought_along(
    first: First, second: Path, tmp_path: Path
) -> None:
    raw = first.raw | {"model": str(second), "start_from": str(first.out), "store": str(tmp_path / "store")}
    compress(parse_plan(raw), tmp_path / "out")
    store = open_store(str(tmp_path / "store"))
    assert store.holds(first.result.compressed.checkpoint)
    assert verify_store(store) == []


def test_where_the_earlier_result_is_gone_the_jump_scores_and_cuts_anew(
    first: First, second: Path, shared: dict[str, Any], tmp_path: Path
) -> None:
    store = open_store(shared["store"])
    (Path(shared["store"]) / "checkpoints" / f"{first.result.compressed.checkpoint}.json").unlink()
    plan = parse_plan(shared | {"model": str(second)})
    schedule = certain(find_schedule(plan, store, read_checkpoint(second)))
    assert schedule.ends is None
    result = compress(plan, tmp_path / "out")
    assert result.steps[0].seconds["importance"] > 0


def test_only_a_jump_over_the_whole_schedule_is_carried(first: First) -> None:
    ends = {"original": "a" * 64, "result": "b" * 64}
    steps = [{"stage": "block", "tower": "language", "removed": 1}] * 2
    schedule = {"run": first.result.run_key, "steps": steps, "ends": ends}
    plan = parse_plan(first.raw | {"schedule": schedule, "jumps": {"carry_epochs": 7}})
    assert (plan.carried_over(1), plan.carried_over(2)) == (None, RunEnds.model_validate(ends))
    assert plan.epochs_over(2) == 7
    assert plan.model_copy(update={"jumps": Jumps(carry=False)}).carried_over(2) is None


# --- which run ----------------------------------------------------------------------------------------------------


def ended(store: Store, key: str, first: First, at: float, **changes: Any) -> None:
    """Note in a store that a run has ended, as the first one did, `at` seconds of the store's clock; `changes` are
    settings of its plan, or the steps of the note."""
    steps = changes.pop("steps", None)
    plan, anatomy = parse_plan(first.raw | changes), read_checkpoint(Path(first.raw["model"]))
    note_ended(store, key, plan, anatomy, first.result)
    path = Path(store.root_address) / "records" / f"ended-{key}.json"
    if steps is not None:
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"steps": steps}), "utf-8")
    os.utime(path, (at, at))


def keys(*letters: str) -> list[str]:
    return [letter * 64 for letter in letters]


def test_previous_is_the_run_that_ended_last_with_the_same_stages_towers_and_tolerance(
    first: First, tmp_path: Path
) -> None:
    store, anatomy = open_store(str(tmp_path / "store")), read_checkpoint(Path(first.raw["model"]))
    oldest, newest, alpha, towers, stages, nothing, torn = keys(*"abcdef0")
    other_data = {"distillation": {"epochs": 3}, "seed": 5, "importance": {"criterion": "magnitude"}}
    ended(store, oldest, first, 1000)
    ended(store, newest, first, 2000, **other_data)
    ended(store, alpha, first, 3000, tolerance={"alpha": 0.8, "allow_zero": True})
    ended(store, towers, first, 3000, towers=["largest"])
    ended(store, stages, first, 3000, stages=first.raw["stages"] | {"block": {"step": 2, "max": 2}})
    ended(store, nothing, first, 3000, steps=[])
    ended(store, torn, first, 3000)
    (tmp_path / "store" / "records" / f"ended-{torn}.json").write_text("{", "utf-8")
    found = find_schedule(parse_plan(first.raw | {"start_from": "previous"}), store, anatomy)
    assert certain(found).run == newest
    on_vision = parse_plan(first.raw | {"start_from": "previous", "towers": ["vision"]})
    assert find_schedule(on_vision, store, anatomy) is None


@pytest.mark.parametrize(("key", "many"), [("zz", 1), ("zz", 0), ("a" * 64, MOST_STEPS + 1)])
def test_records_of_a_strange_store_are_passed_over_or_refused_in_a_line(
    key: str, many: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmmpress.engine.warm.shape_of", lambda anatomy: "0" * 64)
    store = open_store(str(tmp_path / "store"))
    plan = parse_plan({"model": "m", "data": "d", "stages": {"block": {"step": 1, "max": 2}}, "start_from": "previous"})
    steps = [{"stage": "block", "tower": "language", "removed": 1}] * many
    note = {"plan": plan.model_dump_json(), "teacher": "0" * 64, "result": "0" * 64, "family": "f", "shape": "0" * 64}
    store.write_record(f"{ENDED}{key}", note | {"steps": steps} if many else {"a": 1})
    (tmp_path / "store" / "blobs").mkdir()
    nobody: Any = None
    assert find_schedule(plan, store, nobody) is None
    named = plan.model_copy(update={"start_from": f"{store.root_address}/runs/{'a' * 64}"})
    with pytest.raises(UserError, match=r"holds no run|no such record"):
        find_schedule(named, store, nobody)


@pytest.mark.parametrize("kind", ["another family", "another depth"])
def test_previous_passes_over_models_of_another_shape(
    first: First, make_checkpoint: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    store = open_store(str(tmp_path / "store"))
    ended(store, "a" * 64, first, 1000)
    (tmp_path / "store" / "blobs").mkdir(exist_ok=True)
    other = make_checkpoint("opt") if kind == "another family" else changed_shape(first, tmp_path)
    plan = parse_plan(first.raw | {"start_from": "previous"})
    assert find_schedule(plan, store, read_checkpoint(other)) is None
    named = plan.model_copy(update={"start_from": f"{store.root_address}/runs/{'a' * 64}"})
    with pytest.raises(UserError, match="compressed a model of another shape"):
        find_schedule(named, store, read_checkpoint(other))


def changed_shape(first: First, folder: Path) -> Path:
    """The first model after one cut."""
    from lmmpress import prune

    prune(first.raw["model"], folder / "smaller", axis="block", remove=1)
    return folder / "smaller"


@pytest.mark.parametrize("how", ["key", "beginning", "folder", "result.json"])
def test_a_run_is_named_by_its_store_and_key_or_by_its_folder(first: First, how: str) -> None:
    store, key = first.out / "store", first.result.run_key
    address = {
        "key": f"{store}/runs/{key}",
        "beginning": f"{store}/runs/{key[:6]}",
        "folder": str(first.out),
        "result.json": str(first.out / "result.json"),
    }[how]
    plan = parse_plan(first.raw | {"start_from": address})
    found = certain(find_schedule(plan, None, read_checkpoint(Path(first.raw["model"]))))
    assert found.run == key
    assert [step.stage for step in found.steps] == ["block", "block", "ffn", "attention", "io"]


def test_a_path_in_a_plan_file_is_taken_from_its_folder_and_previous_is_none(first: First, tmp_path: Path) -> None:
    from lmmpress.plan import read_plan

    for written, meant in (("out/first", str(tmp_path / "out" / "first")), ("previous", "previous")):
        text = json.dumps(first.raw | {"start_from": written})
        (tmp_path / "plan.yaml").write_text(text, "utf-8")
        assert read_plan(tmp_path / "plan.yaml").start_from == meant


def test_a_named_run_that_cannot_be_started_from_is_refused_in_a_line(first: First, tmp_path: Path) -> None:
    store = tmp_path / "store"
    copy_store(open_store(str(first.out / "store"), make=False), open_store(str(store)))
    anatomy, key = read_checkpoint(Path(first.raw["model"])), first.result.run_key
    good = f"{store}/runs/{key}"

    def refused(address: str, match: str, **changes: Any) -> None:
        with pytest.raises(UserError, match=match) as caught:
            find_schedule(parse_plan(first.raw | {"start_from": address} | changes), None, anatomy)
        assert len(caught.value.lines) == 1

    refused("yesterday", "is no run: give previous, STORE/runs/KEY, or the folder of a run")
    refused(f"{tmp_path}/nowhere/runs/{key}", "there is no store")
    refused(f"{store}/runs/{'0' * 64}", "holds no run whose key begins with 0000")
    refused(good, "has other stages than this plan", stages={"ffn": {"step": 16, "max": 16}})
    refused(good, "has other towers than this plan", towers=["largest"])
    find_schedule(parse_plan(first.raw | {"start_from": good, "tolerance": {"alpha": 0.1}}), None, anatomy)
    (tmp_path / "begun").mkdir()
    shutil.copy(first.out / "plan.json", tmp_path / "begun")
    refused(str(tmp_path / "begun"), "has not ended: it has no result.json")
    (tmp_path / "begun" / "result.json").write_text("{}", "utf-8")
    refused(str(tmp_path / "begun"), "holds no run that can be read")
    record = store / "records" / f"ended-{key}.json"
    whole = record.read_text("utf-8")
    for damaged in ("{", whole.replace('"ffn"', '"glm"'), whole.replace('"removed": 16', '"removed": -1')):
        record.write_text(damaged, "utf-8")
        plan = parse_plan(first.raw | {"start_from": good})
        with pytest.raises(UserError, match=r"records/ended|no stage of the plan"):
            warmed(plan, None, Path(first.raw["model"]))
    record.unlink()
    refused(good, "has not ended, or the store has lost the record of its end")


def test_a_run_that_is_refused_leaves_nothing(first: First, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no store"):
        compress(parse_plan(first.raw | {"start_from": f"{tmp_path}/nowhere/runs/abcdef"}), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# --- what stays as it was ----------------------------------------------------------------------------------------


def test_steps_of_other_runs_are_stored_as_before(first: First) -> None:
    """Names of results are hashes of inputs, and older versions read the state of a run: neither may change."""
    entry = write_step(first.result.steps[0])
    assert not {"jump", "metrics", "drop_by_task"} & entry.keys()
    assert sorted(lasting(Distillation())) == [
        "batch_size", "epochs", "gamma", "hard_labels", "kl", "learning_rate", "max_grad_norm", "pairwise", "rows",
        "warmup", "weight_decay",
    ]  # fmt: skip
    found = parse_plan(first.raw).key_settings()
    assert sorted(found["distillation"]) == sorted(
        {*lasting(Distillation()), "caches", "micro_batch_size", "processes"}
    )
    assert sorted(found) == [
        "distillation", "dtype", "importance", "seed", "splits", "stages", "tolerance", "towers", "trust_remote_code",
    ]  # fmt: skip


def test_a_store_with_warm_runs_is_whole_and_a_run_is_removed_with_its_notes(
    first: First, second: Path, shared: dict[str, Any], tmp_path: Path
) -> None:
    result = compress(parse_plan(shared | {"model": str(second)}), tmp_path / "out")
    store = open_store(shared["store"])
    assert verify_store(store) == []
    removal = remove_run(store, result.run_key, dry_run=False)
    assert any("ended-" in name for name in removal.names)
    assert any("warm-" in name for name in removal.names)
    assert (Path(shared["store"]) / "records" / f"ended-{first.result.run_key}.json").is_file()
    assert verify_store(store) == []
