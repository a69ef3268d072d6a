"""Two checkpoints on the same rows: their answers, their differences, what they need, how they take turns."""

import gc
import json
import shutil
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.certain import certain
from support.data import write_data
from support.files import edit_json
from support.plans import MOMENT

import lmmpress
from lmmpress import Comparison, UserError
from lmmpress.data import read_split
from lmmpress.data.rows import split_for_measuring
from lmmpress.evaluation import compare_checkpoints as module
from lmmpress.evaluation.comparison import Differing, Said, badness
from lmmpress.evaluation.opened import Opened
from lmmpress.evaluation.timed import Subject
from lmmpress.host.energy import Counter, Meter
from lmmpress.lmm.examples import Examples
from lmmpress.progress import Event
from lmmpress.progress import Said as Line


@pytest.fixture(scope="module")
def cut(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The taught model without three of its four blocks: it still answers a few rows."""
    target = tmp_path_factory.mktemp("cut") / "model"
    lmmpress.prune(taught, target, axis="block", remove=3)
    return target


@pytest.fixture(scope="module")
def found(taught: Path, cut: Path, data: Path) -> Comparison:
    return lmmpress.compare(taught, cut, data, batch_size=5, seconds=MOMENT)


def test_its_accuracies_are_those_of_evaluate(found: Comparison, taught: Path, cut: Path, data: Path) -> None:
    for side, checkpoint in ((found.a, taught), (found.b, cut)):
        alone = lmmpress.evaluate(checkpoint, data, speed=False)
        assert side.accuracy == alone.accuracy
        assert side.accuracy_by_task == alone.accuracy_by_task
        assert (side.parameters, side.parameters_by_tower) == (alone.parameters, alone.parameters_by_tower)
        assert side.checkpoint == lmmpress.inspect(checkpoint).checkpoint
        assert side.bytes == (checkpoint / "model.safetensors").stat().st_size
    assert found.all.drop == pytest.approx(found.a.accuracy - found.b.accuracy)
    assert found.all.rows == found.data.rows == 16
    assert found.data.images == 8
    assert found.data.digest == read_split(data, "test").digest


def test_its_answers_are_those_of_predict(found: Comparison, taught: Path, cut: Path, data: Path) -> None:
    both = [lmmpress.predict(checkpoint, data, batch_size=5) for checkpoint in (taught, cut)]
    assert any(not one.right for one in both[1]), "the cut model answers wrongly"
    lines = {row.line: row for row in found.differing}
    differ = 0
    for row, a, b in zip(read_split(data, "test").rows, *both, strict=True):
        if (a.text, a.ended, a.right) == (b.text, b.ended, b.right):
            assert row.line not in lines
            continue
        differ += 1
        told = lines[row.line]
        assert (told.wanted, told.question, told.file_name) == (row.answer, row.question, row.picture)
        for one, said in ((a, told.a), (b, told.b)):
            assert (said.text, said.right, said.ended) == (one.text, one.right, one.ended)
    assert differ == len(found.differing) > 0
    assert found.all.same_answer == 16 - differ
    assert found.all.agreement == (16 - differ) / 16


def test_the_worst_rows_come_first_and_have_their_pictures(found: Comparison) -> None:
    kinds = [row.kind for row in found.differing]
    assert kinds == sorted(kinds, key=["lost", "changed", "gained"].index)
    lost = [row for row in found.differing if row.kind == "lost"]
    falls = [certain(row.b.log_probability) - certain(row.a.log_probability) for row in lost]
    assert falls == sorted(falls)
    assert all(row.picture and row.picture.startswith(b"\x89PNG") for row in found.differing)


def test_a_likelihood_that_is_no_number_does_not_disturb_the_order() -> None:
    def row(b: float | None) -> Differing:
        said = Said(text="x", right=False, ended=True, log_probability=-1.0)
        texts: dict[str, Any] = {"file_name": None, "task": "t", "question": "q", "wanted": "w"}
        return Differing(kind="changed", line=1, a=said, b=said.model_copy(update={"log_probability": b}), **texts)

    assert badness(row(-9.0)) < badness(row(-2.0)) < badness(row(None))


def test_a_checkpoint_equals_itself(taught: Path, data: Path) -> None:
    heard: list[Event] = []
    found = lmmpress.compare(taught, taught, data, speed=False, progress=heard.append)
    assert (found.all.drop, found.all.p, found.all.agreement, found.differing) == (0.0, 1.0, 1.0, [])
    assert found.a == found.b.model_copy(update={"memory": found.a.memory})
    assert (found.turns, found.a.speed, found.a.energy) == (None, None, None)
    assert "A and B are the same checkpoint" in [event.words for event in heard if isinstance(event, Line)]


def test_all_of_it_is_json_and_comes_back(found: Comparison) -> None:
    told = json.loads(found.model_dump_json())
    again = Comparison.model_validate(told)
    assert again.model_dump() == found.model_dump()
    assert "picture" not in told["differing"][0]
    assert told["format"] == 1


def test_models_that_do_not_fit_together_are_loaded_in_turns(
    taught: Path, cut: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    models: list[weakref.ref[torch.nn.Module]] = []
    really = Opened.loaded

    @contextmanager
    def watched(opened: Opened, examples: Examples) -> Iterator[Subject]:
        gc.collect()
        assert not [model for model in models if model() is not None], "another model is still in memory"
        loaded.append("A" if opened.folder == taught else "B")
        with really(opened, examples) as subject:
            models.append(weakref.ref(subject.model))
            yield subject
            del subject

    monkeypatch.setattr(Opened, "loaded", watched)
    monkeypatch.setattr(module, "available_memory", lambda: 1000)
    heard: list[Event] = []
    found = lmmpress.compare(taught, cut, data, seconds=0.001, progress=heard.append)
    assert loaded == [*"AABB", *"AB", *"ABA"], "answers and memory first; then how many rows; then three turns"
    assert found.turns is not None
    assert not found.turns.together
    assert found.turns.samples_per_second.count == found.turns.latency.count == 3
    assert any("do not fit" in event.words for event in heard if isinstance(event, Line))


def test_speed_is_told_by_turns(found: Comparison) -> None:
    turns = found.turns
    assert turns is not None
    assert turns.together
    timing = certain(certain(found.a.speed).timing)
    assert turns.samples_per_second.count == timing.passes >= 3
    assert turns.latency.count == timing.single_rows >= 1
    gain, sure = turns.gain(certain(found.b.speed))
    assert gain == pytest.approx(certain(found.b.speed).samples_per_second / certain(found.a.speed).samples_per_second)
    assert sure.startswith("95 %: ")
    for ratio in (turns.samples_per_second, turns.latency):
        assert 0 < ratio.low <= ratio.median <= ratio.high


def test_a_counter_is_measured_energy_and_a_stated_power_an_estimate(
    taught: Path, cut: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = 0

    def microjoules() -> int:
        nonlocal total
        total += 3_200_000
        return total

    monkeypatch.setattr(module, "_meter", lambda: Meter("RAPL, 1 processor package", (Counter(microjoules),)))
    a = lmmpress.compare(taught, cut, data, rows=4, watts=50, seconds=MOMENT).a
    energy, timing = certain(a.energy), certain(certain(a.speed).timing)
    assert (energy.kind, energy.how) == ("measured", "RAPL, 1 processor package")
    assert energy.joules_per_sample == pytest.approx(3.2 / timing.rows)
    monkeypatch.setattr(module, "_meter", lambda: None)
    found = lmmpress.compare(taught, cut, data, rows=4, watts=50, seconds=MOMENT)
    energy = certain(found.b.energy)
    assert found.b.speed is not None
    assert energy.kind == "estimated"
    assert "50 W as stated" in energy.how
    assert energy.joules_per_sample == pytest.approx(50 / found.b.speed.samples_per_second)


def test_memory_does_not_depend_on_who_comes_first(make_checkpoint: Callable[..., Path], data: Path) -> None:
    """A model of 70 MB takes more than a tiny one, in either place, by about its size."""
    large, small = make_checkpoint("llama", intermediate_size=30_000), make_checkpoint("llama")
    taken = [lmmpress.compare(*pair, data, rows=2, speed=False) for pair in ((large, small), (small, large))]
    memories = [(one.a.memory.process, one.b.memory.process) for one in taken]
    if None in memories[0]:
        pytest.skip("this system does not tell a block's peak")
    for big, little in (memories[0], memories[1][::-1]):
        assert certain(big) > certain(little) + 40e6
    assert certain(memories[0][0]) == pytest.approx(certain(memories[1][1]), rel=0.5)


def copied(data: Path, target: Path, **changes: str) -> Path:
    """The data, with values of its rows exchanged: split_test="gate" writes gate where split is test."""
    shutil.copytree(data, target)
    text = (target / "metadata.jsonl").read_text("utf-8")
    for change, new in changes.items():
        key, _, old = change.partition("_")
        text = text.replace(f'"{key}": "{old}"', f'"{key}": "{new}"')
    (target / "metadata.jsonl").write_text(text, "utf-8")
    return target


@pytest.mark.parametrize(
    ("changes", "chosen"),
    [
        ({}, "test"),
        ({"split_test": "score"}, "gate"),
        ({"split_test": "distill", "split_gate": "val"}, "val"),
        ({"split_test": "x", "split_gate": "x", "split_distill": "x", "split_score": "x"}, "x"),
    ],
)
def test_a_sound_split_is_chosen(data: Path, tmp_path: Path, changes: dict[str, str], chosen: str) -> None:
    assert split_for_measuring(copied(data, tmp_path / "data", **changes)) == chosen


def test_another_split_than_test_is_said(taught: Path, data: Path, tmp_path: Path) -> None:
    rows = copied(data, tmp_path / "data", split_test="score")
    heard: list[Event] = []
    found = lmmpress.compare(taught, taught, rows, rows=2, speed=False, progress=heard.append)
    assert (found.data.split, found.data.rows) == ("gate", 2)
    assert any("no split 'test'; the rows of 'gate'" in event.words for event in heard if isinstance(event, Line))


def test_rows_that_a_model_may_have_learned_from_are_not_taken_unasked(data: Path, tmp_path: Path) -> None:
    rows = copied(data, tmp_path / "data", split_test="score", split_gate="distill")
    with pytest.raises(UserError, match=r"no split 'test'; say by --split which one to use: distill, score"):
        split_for_measuring(rows)


def test_only_rows_of_a_task_are_compared(taught: Path, data: Path, tmp_path: Path) -> None:
    rows = copied(data, tmp_path / "data")
    lines = (rows / "metadata.jsonl").read_text("utf-8").splitlines()
    lines = [line.replace('"color"', '"hue"') if number % 2 else line for number, line in enumerate(lines)]
    (rows / "metadata.jsonl").write_text("\n".join(lines), "utf-8")
    found = lmmpress.compare(taught, taught, rows, tasks=["hue"], rows=4, speed=False)
    assert (list(found.by_task), found.data.rows, found.data.tasks) == (["hue"], 4, ["hue"])
    with pytest.raises(UserError, match="split 'test' has no task 'shape'; its tasks are color, hue"):
        lmmpress.compare(taught, taught, rows, tasks=["shape"])


def test_rows_without_pictures_are_compared_too(
    make_checkpoint: Callable[..., Path], data: Path, tmp_path: Path
) -> None:
    rows = copied(data, tmp_path / "data")
    lines = [json.loads(line) for line in (rows / "metadata.jsonl").read_text("utf-8").splitlines()]
    text = "\n".join(json.dumps({key: value for key, value in row.items() if key != "file_name"}) for row in lines)
    (rows / "metadata.jsonl").write_text(text, "utf-8")
    one, other = make_checkpoint("text-glm"), make_checkpoint("text-glm", intermediate_size=96)
    found = lmmpress.compare(one, other, rows, speed=False)
    assert found.data.images == 0
    assert all(row.picture is None for row in found.differing)


@pytest.mark.parametrize("kind", ["flan-t5", "llava-clip-llama"])
def test_other_families_are_compared(make_checkpoint: Callable[..., Path], data: Path, kind: str) -> None:
    found = lmmpress.compare(make_checkpoint(kind), make_checkpoint(kind), data, rows=4, speed=False)
    assert (found.all.rows, found.all.agreement) == (4, 1.0)


def test_models_of_two_families_are_compared(make_checkpoint: Callable[..., Path], taught: Path, data: Path) -> None:
    found = lmmpress.compare(taught, make_checkpoint("flan-t5"), data, rows=4, speed=False)
    assert (found.a.accuracy, found.b.accuracy, found.all.lost) == (1.0, 0.0, 4)


def test_models_of_two_kinds_are_refused(make_checkpoint: Callable[..., Path], taught: Path, data: Path) -> None:
    text = make_checkpoint("text-glm")
    with pytest.raises(UserError, match="A takes pictures and B takes text alone: compare checkpoints that answer"):
        lmmpress.compare(taught, text, data)
    with pytest.raises(UserError, match="A takes text alone and B takes pictures"):
        lmmpress.compare(text, taught, data)


def test_a_checkpoint_that_cannot_answer_is_refused_before_any_work(taught: Path, data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(taught, broken)
    (broken / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=f"{broken}: no (processor or )?tokenizer"):
        lmmpress.compare(taught, broken, data)
    shutil.copy(taught / "tokenizer.json", broken)
    edit_json(broken / "config.json", eos_token_id=5)
    config = json.loads((broken / "config.json").read_text("utf-8"))
    config["text_config"]["eos_token_id"] = 5
    (broken / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(UserError, match=r"broken: .*eos_token_id"):
        lmmpress.compare(taught, broken, data)


@pytest.mark.parametrize("what", ["picture", "rows"])
def test_rows_that_change_meanwhile_are_noticed(
    taught: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    rows = copied(data, tmp_path / "data")
    original = module.all_answers

    def changing(*arguments: Any) -> Any:
        if what == "picture":
            Image.new("RGB", (16, 16), (1, 2, 3)).save(rows / read_split(rows, "test").images.names[3])
        else:
            with (rows / "metadata.jsonl").open("a", encoding="utf-8") as file:
                file.write("\n")
        return original(*arguments)

    monkeypatch.setattr(module, "all_answers", changing)
    with pytest.raises(UserError, match="has changed since"):
        lmmpress.compare(taught, taught, rows, out=tmp_path / "out", speed=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("watts", [0, -1, float("nan"), float("inf")])
def test_a_power_is_above_zero(taught: Path, data: Path, watts: float) -> None:
    with pytest.raises(UserError, match="the power of the device"):
        lmmpress.compare(taught, taught, data, watts=watts)


def test_a_split_with_one_row_is_compared(taught: Path, cut: Path, tmp_path: Path) -> None:
    rows = write_data(tmp_path / "data", {"test": 1})
    found = lmmpress.compare(taught, cut, rows, rows=1, seconds=MOMENT)
    assert found.data.rows == 1
    assert (found.all.drop_interval.low, found.all.drop_interval.high) == (-1.0, 1.0)


def test_a_broken_model_is_compared_without_its_likelihoods(taught: Path, data: Path, tmp_path: Path) -> None:
    """Weights that are no numbers: such a model answers nothing right, and JSON has no word for them."""
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(taught, broken)
    tensors = load_file(broken / "model.safetensors")
    save_file(
        {name: torch.full_like(one, float("nan")) for name, one in tensors.items()},
        broken / "model.safetensors",
        {"format": "pt"},
    )
    found = lmmpress.compare(taught, broken, data, rows=4, speed=False)
    assert found.b.accuracy == 0
    assert all(row.b.log_probability is None for row in found.differing)
    json.loads(found.model_dump_json(), parse_constant=pytest.fail)
