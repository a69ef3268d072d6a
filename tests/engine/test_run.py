"""Whole runs on a tiny model that has learned its data: gating, rolling back, resuming, several processes."""

import errno
import json
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from support.certain import certain
from support.forks import Forks, loaded
from support.results import essence

from lmmpress.engine.compression import compress
from lmmpress.errors import UserError
from lmmpress.files.digest import digest_checkpoint
from lmmpress.lmm.checkpoint import load_model
from lmmpress.plan import parse_plan
from lmmpress.progress import Event, Work, listening
from lmmpress.result import Recorder, Result
from lmmpress.store import open_store
from lmmpress.store.housekeeping import list_store

pytestmark = pytest.mark.usefixtures("trusting")


@pytest.fixture
def plan(raw_plan: dict[str, Any], taught: Path) -> dict[str, Any]:
    return raw_plan | {"model": str(taught)}


def test_a_recorder_is_called_before_anything_is_measured(
    plan: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that MLflow runs of a killed process are ended even if the next process fails early."""
    heard: list[str] = []

    class Listener:
        def take_over(self, run_key: str) -> None:
            heard.append(run_key)

    def fails(*_: object) -> None:
        raise UserError("the original cannot be measured")

    monkeypatch.setattr("lmmpress.engine.run.evaluate", fails)
    with pytest.raises(UserError, match="cannot be measured"):
        compress(parse_plan(plan), tmp_path / "out", cast(Recorder, Listener()))
    (state,) = (tmp_path / "out" / "store" / "runs").glob("*.json")
    assert heard == [state.stem]


def test_a_run_leaves_a_smaller_model_that_plain_transformers_loads(plan: dict[str, Any], tmp_path: Path) -> None:
    result = compress(parse_plan(plan), tmp_path / "out")
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out" / "compressed")
    AutoProcessor.from_pretrained(tmp_path / "out" / "compressed")
    assert sum(parameter.numel() for parameter in model.parameters()) == result.compressed.parameters
    assert result.original.accuracy > 0.9
    assert result.compressed.parameters < result.original.parameters
    assert [step.stage for step in result.steps] == ["block", "block", "ffn", "attention", "io"]
    written = Result.model_validate_json((tmp_path / "out" / "result.json").read_text("utf-8"))
    assert written == result
    assert digest_checkpoint(tmp_path / "out" / "compressed") == result.compressed.checkpoint


def too_much(plan: dict[str, Any], **tolerance: Any) -> dict[str, Any]:
    """A plan whose last step breaks any model: half of its width is removed, and nothing is learned."""
    hopeless = {"epochs": 1, "learning_rate": 1e-9, "batch_size": 8}
    stages = plan["stages"] | {"io": {"step": 24, "max": 24}}
    return plan | {"tolerance": {"alpha": 0.01} | tolerance, "distillation": hopeless, "stages": stages}


def test_a_tight_alpha_rolls_back_to_the_last_accepted_checkpoint(plan: dict[str, Any], tmp_path: Path) -> None:
    result = compress(parse_plan(too_much(plan)), tmp_path / "out")
    broken = [step for step in result.steps if step.decision == "rolled back"]
    assert broken
    for step, following in zip(result.steps, result.steps[1:], strict=False):
        assert following.parent == (step.checkpoint if step.decision == "accepted" else step.parent)
        if step.decision == "rolled back":
            assert following.stage != step.stage
    assert all(certain(step.drop) < 0.01 for step in result.steps if step.decision == "accepted")
    assert all(certain(step.drop) >= 0.01 for step in broken)


def test_keep_goes_on_from_the_step_that_broke_alpha(plan: dict[str, Any], tmp_path: Path) -> None:
    result = compress(parse_plan(too_much(plan, on_violation="keep")), tmp_path / "out")
    assert result.steps[-1].decision == "kept"
    for step, following in zip(result.steps, result.steps[1:], strict=False):
        assert following.parent == step.checkpoint


def test_a_loss_that_is_not_finite_is_rolled_back(plan: dict[str, Any], tmp_path: Path) -> None:
    wild = {"epochs": 3, "learning_rate": 1e30, "batch_size": 8, "max_grad_norm": 1e30}
    result = compress(
        parse_plan(plan | {"distillation": wild, "stages": {"ffn": {"step": 16, "max": 32}}}), tmp_path / "out"
    )
    assert [(step.decision, step.checkpoint) for step in result.steps] == [("rolled back", None)]
    assert "not finite" in result.steps[0].reason
    assert result.compressed.checkpoint == result.original.checkpoint


def times(store: Path) -> dict[Path, int]:
    """When each file of a store was written, but for what its processes work on."""
    files = (path for path in store.rglob("*") if path.is_file() and "work" not in path.parts)
    return {path: path.stat().st_mtime_ns for path in files}


def test_a_finished_run_resumed_does_nothing_again(plan: dict[str, Any], tmp_path: Path) -> None:
    first = compress(parse_plan(plan), tmp_path / "out")
    before = times(tmp_path / "out" / "store")
    again = compress(parse_plan(plan), tmp_path / "out", resume=True)
    after = times(tmp_path / "out" / "store")
    assert essence(again) == essence(first)
    changed = {path for path in after if after[path] != before.get(path)}
    assert {path.parent.name for path in changed} <= {"runs", "store"}, "only the lease, and the lock it was taken with"


def test_a_folder_that_holds_a_run_is_not_overwritten(plan: dict[str, Any], tmp_path: Path) -> None:
    few = plan | {"stages": {}}
    compress(parse_plan(few), tmp_path / "out")
    with pytest.raises(UserError, match="--resume"):
        compress(parse_plan(few), tmp_path / "out")
    with pytest.raises(UserError, match="another plan"):
        compress(parse_plan(few | {"seed": 5}), tmp_path / "out", resume=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x", "utf-8")
    with pytest.raises(UserError, match="not empty"):
        compress(parse_plan(few), tmp_path / "full")


def test_a_folder_is_not_resumed_with_another_model_or_other_data(plan: dict[str, Any], tmp_path: Path) -> None:
    """The folder's results belong to another run. A store that both plans name holds both runs."""
    few = plan | {"stages": {}, "model": str(tmp_path / "model"), "data": str(tmp_path / "data")}
    few["store"] = str(tmp_path / "store")
    shutil.copytree(plan["model"], few["model"])
    shutil.copytree(plan["data"], few["data"])
    first = compress(parse_plan(few), tmp_path / "out")
    before = {path: path.read_bytes() for path in sorted((tmp_path / "out").rglob("*")) if path.is_file()}

    def refused(message: str) -> None:
        for resume in (False, True):
            with pytest.raises(UserError, match=message):
                compress(parse_plan(few), tmp_path / "out", resume=resume)
        assert {path: path.read_bytes() for path in sorted((tmp_path / "out").rglob("*")) if path.is_file()} == before

    rows = (tmp_path / "data" / "metadata.jsonl").read_text("utf-8")
    (tmp_path / "data" / "metadata.jsonl").write_text(rows.replace("红色", "黄色"), "utf-8")
    refused("holds a run of other data .the rows to score and to distill and to gate and to test have changed.")
    (tmp_path / "out" / "question.json").unlink()  # as an older lmmpress left it
    before.pop(tmp_path / "out" / "question.json")
    refused("holds a run of another model, or of other data")
    (tmp_path / "data" / "metadata.jsonl").write_text(rows, "utf-8")
    again = compress(parse_plan(few), tmp_path / "out", resume=True)
    assert again.run_key == first.run_key, "an older folder is resumed, and says from then on what it is of"
    before = {path: path.read_bytes() for path in sorted((tmp_path / "out").rglob("*")) if path.is_file()}
    config = json.loads((tmp_path / "model" / "generation_config.json").read_text("utf-8"))
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(config | {"eos_token_id": 3}), "utf-8")
    refused("holds a run of another model .{12}")
    other = compress(parse_plan(few), tmp_path / "other")
    assert other.run_key != first.run_key
    assert {run.run_key for run in list_store(open_store(few["store"])).runs} == {first.run_key, other.run_key}


def test_a_run_killed_while_it_claimed_its_folder_can_start_there_again(plan: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".plan.json.new").write_text('{"mod', "utf-8")
    compress(parse_plan(plan | {"stages": {}}), tmp_path / "out", resume=True)


def test_a_result_that_does_not_fit_on_the_disk_leaves_nothing_half_written(
    plan: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = parse_plan(plan | {"stages": {}})

    def full(source: str, target: str) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", target)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr("lmmpress.engine.delivery.shutil.copyfile", full)
        compress(few, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"plan.json", "question.json", "store"}
    compress(few, tmp_path / "out", resume=True)
    assert (tmp_path / "out" / "compressed" / "config.json").is_file()


def test_caches_do_not_change_the_outcome(plan: dict[str, Any], tmp_path: Path) -> None:
    with_caches = compress(parse_plan(plan), tmp_path / "with")
    without = plan | {"distillation": plan["distillation"] | {"caches": False}}
    for one, other in zip(with_caches.steps, compress(parse_plan(without), tmp_path / "without").steps, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-4)


def test_two_processes_learn_what_one_learns(plan: dict[str, Any], tmp_path: Path) -> None:
    one_stage = plan | {"stages": {"ffn": {"step": 16, "max": 16}}}
    alone = compress(parse_plan(one_stage), tmp_path / "alone")
    two = one_stage | {"distillation": plan["distillation"] | {"processes": 2}}
    heard: list[Event] = []
    with listening(heard.append):
        together = compress(parse_plan(two), tmp_path / "together")
    assert together.steps[0].loss == pytest.approx(alone.steps[0].loss, rel=1e-3)
    models = [load_model(tmp_path / name / "compressed").state_dict() for name in ("alone", "together")]
    for name, value in models[0].items():
        assert torch.allclose(value, models[1][name], atol=2e-3), name
    (ended,) = (one for one in heard if isinstance(one, Work) and one.label == "distil" and one.over)
    assert (ended.done, ended.part and ended.part.step) == (ended.total, "ffn, step 1 of 1"), (
        "they tell how far they are"
    )


def test_killed_at_any_moment_a_run_resumes_to_the_same_checkpoints(
    plan: dict[str, Any], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """kill -9 before a file is made, written to, put in its place or removed, at ever later ones, until the run is
    through: between the parts of a step, and in the middle of writing what one of them made."""
    expected = compress(parse_plan(plan), tmp_path / "whole")
    out = tmp_path / "killed"
    chance = random.Random(0)
    kills = inside = after = 0
    with Forks("support.killed", *loaded("transformers", "accelerate")) as forks:
        while True:
            after += chance.randint(1, 10 * (kills + 1))
            ended = forks.call("support.killed", "resume_and_die", plan, str(out), after)
            if ended == 0:
                break
            assert ended == -signal.SIGKILL
            kills += 1
            inside += _being_written(out / "store" / "work")
    record_property("kills", kills)
    record_property("kills_inside_a_write", inside)
    found = Result.model_validate_json((out / "result.json").read_text("utf-8"))
    assert kills >= 4
    assert inside >= 1
    assert essence(found) == essence(expected)
    assert found.compressed.checkpoint == digest_checkpoint(out / "compressed")


def _being_written(work: Path) -> bool:
    """Whether any process has files in a scratch folder of the store."""
    owned = [folder for own in _listed(work) if own.name.startswith("own-") for folder in _listed(own)]
    return any(_listed(folder) for folder in owned if folder.name.startswith("new-"))


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
