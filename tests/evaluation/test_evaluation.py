"""One forward pass per row measures what greedy generation would answer."""

from pathlib import Path

import pytest
import torch
from support.clocks import give_time
from support.plain import plain_answers

from lmmpress.data import Row, Split, read_split
from lmmpress.data.facts import facts_of
from lmmpress.evaluation.accuracy import answered_right
from lmmpress.evaluation.evaluate_checkpoint import evaluate_checkpoint
from lmmpress.lmm.checkpoint import apply_cuts, load_model, read_checkpoint
from lmmpress.lmm.examples import encode
from lmmpress.lmm.forward import visual_features
from lmmpress.lmm.processor import load_processor
from lmmpress.plan import Evaluation
from lmmpress.pruning.choose import choose
from lmmpress.sample import MODEL
from lmmpress.sample.dataset import build


@pytest.fixture(scope="module")
def adverts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("adverts") / "data", sizes={"score": 4, "distill": 4, "gate": 4, "test": 24})


@pytest.mark.parametrize("blocks_removed", [0, 5])
def test_forward_accuracy_equals_greedy_generation_row_by_row(
    adverts: Path, tmp_path: Path, blocks_removed: int
) -> None:
    """The sample model, and the same with blocks missing, which answers wrongly in many ways."""
    checkpoint = MODEL
    if blocks_removed:
        checkpoint = tmp_path / "cut"
        apply_cuts(
            MODEL,
            read_checkpoint(MODEL),
            [choose(read_checkpoint(MODEL), "language", "block", blocks_removed, None)],
            checkpoint,
        )
    model, processor = load_model(checkpoint), load_processor(checkpoint)
    split = read_split(adverts, "test")
    examples = encode(split, processor, read_checkpoint(checkpoint).config)
    right = answered_right(model, examples, read_checkpoint(checkpoint).projector, None, 32)
    answers = []
    for at in range(0, len(split.rows), 40):
        rows = split.rows[at : at + 40]
        answers += plain_answers(model, processor, split, rows)
    generated = torch.tensor([text == row.answer for text, row in zip(answers, split.rows, strict=True)])
    assert torch.equal(right, generated)
    assert right.sum() > 0
    assert (right.sum() < len(right)) or not blocks_removed


def test_cached_features_measure_the_same(adverts: Path) -> None:
    model, anatomy = load_model(MODEL), read_checkpoint(MODEL)
    examples = encode(read_split(adverts, "test"), load_processor(MODEL), read_checkpoint(MODEL).config)
    features = visual_features(model, examples, anatomy, 16)
    seen = answered_right(model, examples, anatomy.projector, None, 32)
    assert torch.equal(seen, answered_right(model, examples, anatomy.projector, features, 32))


def test_a_checkpoint_is_measured_as_a_whole(adverts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give_time(monkeypatch)
    settings = Evaluation(samples=8, batch_size=4, latency_samples=2, seconds=1)
    found = evaluate_checkpoint(MODEL, adverts, "test", settings)
    assert found.rows == 120
    assert found.accuracy == pytest.approx(sum(found.accuracy_by_task.values()) / 5)
    assert found.speed is not None
    assert found.speed.latency_ms.p50 <= found.speed.latency_ms.p95
    assert found.tokens == pytest.approx(found.natural_tokens, rel=0.1), "it ends its answers where it should"
    assert found.accuracy_interval.low <= found.accuracy <= found.accuracy_interval.high
    assert list(found.accuracy_interval_by_task) == list(found.accuracy_by_task)
    for task, accuracy in found.accuracy_by_task.items():
        interval = found.accuracy_interval_by_task[task]
        assert interval.low <= accuracy <= interval.high
    assert sum(found.parameters_by_tower.values()) == found.parameters


def test_accuracy_by_task_averages_to_the_whole(adverts: Path) -> None:
    examples = encode(read_split(adverts, "gate"), load_processor(MODEL), read_checkpoint(MODEL).config)
    right = torch.arange(len(examples.rows)) % 3 > 0
    tasks = facts_of(examples.split).by_task(right.numpy())
    assert len(tasks) == 5
    assert sum(tasks.values()) / 5 == pytest.approx(float(right.double().mean()))


def test_rows_whose_pictures_are_connected_are_one_group(tmp_path: Path) -> None:
    """Rows of several pictures: whoever shares one with another is not independent of it."""
    pictures = [("a",), ("b", "c"), ("d",), ("c", "e"), ("e",), ("f", "a")]
    rows = tuple(Row("?", "!", "task", names) for names in pictures)
    owners = facts_of(Split("test", tmp_path, rows, "digest")).owners().tolist()
    groups = {frozenset(row for row in range(6) if owners[row] == owner) for owner in owners}
    assert groups == {frozenset({0, 5}), frozenset({1, 3, 4}), frozenset({2})}
