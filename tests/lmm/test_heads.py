"""A head that is loaded alone is the head of the whole model."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.cuts import cut_of
from support.tiny import MODELS, config_of, make_model, save_model

from lmmpress.lmm.checkpoint import apply_cuts, load_model, read_checkpoint
from lmmpress.lmm.heads import load_head


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_computes_the_same_logits(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    save_model(make_model(config_of(name)), tmp_path)
    head = load_head(tmp_path, read_checkpoint(tmp_path), dtype)
    whole: torch.nn.Module = load_model(tmp_path, dtype).get_output_embeddings()  # type: ignore[operator]
    states = torch.randn(5, whole.in_features, dtype=dtype)  # type: ignore[call-overload]
    assert torch.equal(head(states), whole(states))
    assert not any(parameter.requires_grad for parameter in head.parameters())


def test_of_a_checkpoint_with_a_type_of_our_own(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    source = make_checkpoint("opt")
    anatomy = read_checkpoint(source)
    apply_cuts(source, anatomy, [cut_of(anatomy, "language", "attention")], tmp_path / "cut")
    head = load_head(tmp_path / "cut", read_checkpoint(tmp_path / "cut"), torch.float32)
    whole: torch.nn.Module = load_model(tmp_path / "cut").get_output_embeddings()  # type: ignore[operator]
    assert torch.equal(next(head.parameters()), next(whole.parameters()))
