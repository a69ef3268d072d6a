"""A whole run on models of other kinds than the sample's: an encoder-decoder, LLaVA, and a language model alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.certain import certain
from support.plain import plain_answers
from support.training import train_for_a_moment

from lmmpress.data import read_split
from lmmpress.engine.compression import compress
from lmmpress.evaluation.accuracy import answered_right
from lmmpress.lmm.batches import make_batch
from lmmpress.lmm.checkpoint import load_model, read_checkpoint
from lmmpress.lmm.compression_record import read_record
from lmmpress.lmm.examples import encode
from lmmpress.lmm.forward import answer_logits, head_inputs, visual_features
from lmmpress.lmm.processor import load_processor
from lmmpress.plan import parse_plan

KINDS = ("flan-t5", "llava-clip-llama", "text-glm")


@pytest.fixture
def rows(data: Path, tmp_path: Path) -> Callable[[str], Path]:
    """The data set in the form that a kind of model needs: LLaVA's questions hold <image>, text models get no image."""

    def write(kind: str) -> Path:
        folder = tmp_path / "data"
        folder.mkdir()
        shutil.copytree(data / "images", folder / "images")
        lines = []
        for line in (data / "metadata.jsonl").read_text("utf-8").splitlines():
            row = json.loads(line)
            if kind.startswith("llava"):
                row["question"] = "<image>" + row["question"]
            if kind.startswith("text"):
                del row["file_name"]
                row["question"] += row["answer"]
            lines.append(json.dumps(row, ensure_ascii=False))
        (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
        return folder

    return write


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_from_end_to_end(
    make_checkpoint: Callable[..., Path],
    rows: Callable[[str], Path],
    raw_plan: dict[str, Any],
    tmp_path: Path,
    kind: str,
) -> None:
    plan = parse_plan(raw_plan | {"model": str(make_checkpoint(kind)), "data": str(rows(kind))})
    result = compress(plan, tmp_path / "out")
    assert [step.decision for step in result.steps] == ["accepted"] * 5
    assert result.compressed.parameters < result.original.parameters
    record = certain(read_record(tmp_path / "out" / "compressed"))
    assert record["teacher"] == result.original.checkpoint
    assert record["plan"]["tolerance"]["alpha"] == 0.9
    assert sum("cut" in entry for entry in record["history"]) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_one_forward_pass_measures_what_generation_answers(
    make_checkpoint: Callable[..., Path], rows: Callable[[str], Path], kind: str
) -> None:
    checkpoint = make_checkpoint(kind)
    model, processor = load_model(checkpoint), load_processor(checkpoint)
    split = read_split(rows(kind), "distill")
    examples = encode(split, processor, read_checkpoint(checkpoint).config)
    train_for_a_moment(model, examples, read_checkpoint(checkpoint))
    right = answered_right(model, examples, read_checkpoint(checkpoint).projector, None, 8)
    texts = [plain_answers(model, processor, split, [row])[0] for row in split.rows]
    generated = torch.tensor([text.replace(" ", "") == row.answer for text, row in zip(texts, split.rows, strict=True)])
    assert torch.equal(right, generated), texts
    assert right.sum() > 0


@pytest.mark.parametrize("kind", ["flan-t5", "llava-clip-llama"])
def test_cached_features_give_the_same_logits(
    make_checkpoint: Callable[..., Path], rows: Callable[[str], Path], kind: str
) -> None:
    checkpoint = make_checkpoint(kind)
    model, anatomy = load_model(checkpoint), read_checkpoint(checkpoint)
    examples = encode(read_split(rows(kind), "test"), load_processor(checkpoint), anatomy.config)
    features = visual_features(model, examples, anatomy, 4)
    batches = (make_batch(examples, [5, 0, 2], given) for given in (None, features))
    seen, cached = (answer_logits(model, batch, anatomy.projector) for batch in batches)
    assert torch.allclose(seen, cached, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_of_its_own_inputs_gives_the_models_logits(
    make_checkpoint: Callable[..., Path], rows: Callable[[str], Path], kind: str
) -> None:
    """Nothing follows the head in a family; and afterwards the model computes as before."""
    checkpoint = make_checkpoint(kind)
    model, anatomy = load_model(checkpoint), read_checkpoint(checkpoint)
    examples = encode(read_split(rows(kind), "test"), load_processor(checkpoint), anatomy.config)
    batch = make_batch(examples, [5, 0, 2])
    wanted = answer_logits(model, batch, anatomy.projector)
    inputs = head_inputs(model, batch, anatomy.projector)
    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    assert inputs.shape == (len(batch.targets), head.in_features)
    assert torch.equal(head(inputs), wanted)
    assert torch.equal(answer_logits(model, batch, anatomy.projector), wanted)
