"""Blocks that are computed again in the backward pass, in every family: the same gradients from less that is kept."""

from typing import Any

import pytest
import torch
from support.tiny import MODELS, config_of, make_model

from lmmpress.lmm.blocks import blocks_of
from lmmpress.lmm.kept_tensors import kept_by
from lmmpress.lmm.probe_inputs import probe_inputs
from lmmpress.lmm.read_anatomy import anatomy_of
from lmmpress.lmm.recompute import recompute_blocks


def gradients(model: torch.nn.Module, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(**inputs, use_cache=False).logits.square().sum().backward()
    return {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_the_same_and_every_block_runs_twice(name: str) -> None:
    config = config_of(name)
    model, anatomy = make_model(config), anatomy_of(config)
    inputs, blocks = probe_inputs(model), list(blocks_of(model, anatomy))
    wanted, names = gradients(model, inputs), list(model.state_dict())
    recompute_blocks(model, anatomy)
    runs = [0] * len(blocks)
    for number, block in enumerate(blocks):
        inner = next(one for one in block.modules() if isinstance(one, torch.nn.Linear))

        def count(*_: Any, number: int = number) -> None:
            runs[number] += 1

        inner.register_forward_hook(count)
    found = gradients(model, inputs)
    assert found.keys() == wanted.keys()
    for each, gradient in wanted.items():
        assert torch.allclose(found[each], gradient, rtol=1e-5, atol=1e-6 * float(gradient.abs().max())), each
    assert list(model.state_dict()) == names, "it is saved as before"
    # no more in a tower whose last blocks nothing of the loss comes from, as LLaVA's vision tower
    assert set(runs) <= {0, 1, 2}
    assert runs.count(2) >= len(blocks) - 1


@pytest.mark.parametrize("name", MODELS)
def test_what_a_forward_pass_keeps_grows_with_its_rows(name: str) -> None:
    config = config_of(name)
    model, anatomy = make_model(config), anatomy_of(config)
    inputs = probe_inputs(model, rows=4)

    def kept(rows: int) -> tuple[int, int]:
        some = {key: value[:rows] for key, value in inputs.items()}
        found = kept_by(lambda: model(**some, use_cache=False).logits, model, blocks_of(model, anatomy))
        return found.usual, found.recomputed

    (one, two, four) = map(kept, (1, 2, 4))
    for less, more, most in zip(one, two, four, strict=True):
        assert most - more == pytest.approx(2 * (more - less), rel=0.1), "as much for each row"
    assert four[1] < 0.6 * four[0], "a block of four, and what blocks are given"


def test_what_is_counted_is_what_autograd_holds() -> None:
    """Of two layers in two blocks, numbers that can be told by hand; a tensor that is saved twice counts once."""

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(8, 8, bias=False)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.linear(values)  # keeps its input
            return (found.exp() * values).sin()  # keeps exp's result, both factors, and what sin is of

    blocks = torch.nn.ModuleList([Block(), Block()])
    values = torch.randn(10, 8, requires_grad=True)

    def run() -> torch.Tensor:
        found: torch.Tensor = blocks[1](blocks[0](values))
        return found.square()  # keeps what it squares

    size = 10 * 8 * 4
    found = kept_by(run, blocks, blocks)
    assert found.usual == 7 * size, "three of each block, of which the second's input is one, and the last result"
    assert found.recomputed == 6 * size, "two inputs, one block of three, and the last result"
