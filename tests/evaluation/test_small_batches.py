"""Rows that do not fit into the memory in one batch are worth, and answered, the same in smaller ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.small_memory import memory_for, no_memory
from support.training import train_for_a_moment

from lmmpress.data import read_split
from lmmpress.errors import UserError
from lmmpress.evaluation.accuracy import answered_right, divergences, judged, right_tokens
from lmmpress.evaluation.generate import write_answers
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.at_once import remembering
from lmmpress.lmm.batches import grouped
from lmmpress.lmm.checkpoint import load_model, read_checkpoint
from lmmpress.lmm.examples import Examples, encode
from lmmpress.lmm.forward import answer_logits, answer_states, visual_features
from lmmpress.lmm.processor import load_processor
from lmmpress.lmm.tensor_rows import TensorRows

Scene = tuple[torch.nn.Module, Examples, Anatomy]
ENDS = frozenset({2})


@pytest.fixture(scope="module")
def scene(make_checkpoint: Callable[..., Path], data: Path) -> Scene:
    checkpoint = make_checkpoint("llama")
    model, anatomy = load_model(checkpoint), read_checkpoint(checkpoint)
    examples = encode(read_split(data, "test"), load_processor(checkpoint), anatomy.config)
    train_for_a_moment(model, examples, anatomy)
    return model, examples, anatomy


def right(scene: Scene) -> Any:
    model, examples, anatomy = scene
    return answered_right(model, examples, anatomy.projector, None, 5, ENDS)


def tokens(scene: Scene) -> Any:
    model, examples, anatomy = scene
    return right_tokens(model, examples, anatomy.projector, None, 5, ENDS, range(len(examples.rows)))


def divergence(scene: Scene) -> Any:
    model, examples, anatomy = scene
    rows = range(len(examples.rows))

    def other(batch: Any) -> torch.Tensor:
        return answer_logits(model, batch, anatomy.projector) / 2

    return divergences(model, other, examples, anatomy.projector, None, 5, rows)


def likelihood(scene: Scene) -> Any:
    model, examples, anatomy = scene
    return judged(model, examples, anatomy.projector, None, 5, ENDS).likelihood


def states(scene: Scene) -> Any:
    model, examples, anatomy = scene
    found = answer_states(model, examples, anatomy.projector, None, grouped(examples, 5))
    return found[list(range(examples.positions))]


@pytest.mark.parametrize(
    ("measure", "work"),
    [
        (right, "evaluate"),
        (tokens, "evaluate"),
        (divergence, "evaluate"),
        (likelihood, "evaluate"),
        (states, "teacher"),
    ],
)
def test_what_rows_are_worth(scene: Scene, measure: Callable[[Scene], Any], work: str) -> None:
    wanted = measure(scene)
    with memory_for(2, scene[0].get_submodule("language_model")) as seen, remembering({}) as at_once:
        found = measure(scene)
    assert (seen[0], max(seen[1:]), at_once) == (5, 2, {work: 2})
    assert torch.allclose(found.double(), wanted.double(), rtol=1e-4, atol=1e-5)


def test_the_memory_may_run_out_at_the_last_batch(scene: Scene) -> None:
    """Longer rows come later; what was measured before is kept."""
    model, examples, _ = scene
    wanted, batches = tokens(scene), -(-len(examples.rows) // 5)
    with memory_for(1, model.get_submodule("language_model"), after=batches - 1) as seen:
        found = tokens(scene)
    last = (len(examples.rows) - 1) % 5 + 1
    assert seen.count(5) == batches - (last < 5)
    assert torch.allclose(found, wanted)


def test_answers_that_a_model_writes(scene: Scene) -> None:
    model, examples, _ = scene
    rows = range(len(examples.rows))
    wanted = write_answers(model, examples, rows, 6, ENDS, 5)
    with memory_for(2, model.get_submodule("language_model")) as seen, remembering({}) as at_once:
        found = write_answers(model, examples, rows, 6, ENDS, 5)
    assert found == wanted
    assert (seen[0], max(seen[1:]), at_once) == (5, 2, {"answer": 2})


def test_visual_features(scene: Scene) -> None:
    model, examples, anatomy = scene
    wanted = visual_features(model, examples, anatomy, 4)
    seen: list[int] = []

    def small(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(len(args[0] if args else kwargs["pixel_values"]))
        if seen[-1] > 3:
            raise no_memory()

    handle = model.get_submodule("vision_model").register_forward_pre_hook(small, with_kwargs=True)
    found = visual_features(model, examples, anatomy, 4)
    handle.remove()
    assert (seen[0], max(seen[1:])) == (4, 2)
    assert isinstance(wanted, TensorRows)
    assert isinstance(found, TensorRows)
    numbers = np.arange(len(wanted)).tolist()
    assert torch.allclose(found[numbers], wanted[numbers], atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "error", "raised", "words"),
    [
        (0, no_memory(), UserError, "evaluate: the memory is too small for a single row"),
        (2, RuntimeError("a fault of ours"), RuntimeError, "a fault of ours"),
    ],
)
def test_what_no_smaller_batch_mends_is_told(
    scene: Scene, rows: int, error: RuntimeError, raised: type[Exception], words: str
) -> None:
    with memory_for(rows, scene[0].get_submodule("language_model"), error), pytest.raises(raised, match=words):
        right(scene)
