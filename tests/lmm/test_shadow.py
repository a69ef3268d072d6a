"""Shadows of models: what their meter counts is what the models themselves take."""

from collections.abc import Iterator

import pytest
import torch
from support.tiny import config_of, make_model

from lmmpress.lmm.batches import Batch
from lmmpress.lmm.forward import logits_of
from lmmpress.lmm.read_anatomy import anatomy_of
from lmmpress.lmm.shadow import Meter, Taken, shadow_of, shadows

ROWS, TOKENS, IMAGES = 3, 12, 3


def test_a_meter_counts_products_bytes_and_memory() -> None:
    left, right = torch.ones(4, 8), torch.ones(8, 16)
    with Meter() as meter:
        meter.hold([left, right])
        product = left @ right
        _ = product.T.view(16, 4)  # another view of it is no work
        before = meter.taken
        del product, _
    held = 4 * (4 * 8 + 8 * 16)
    assert before == Taken(flops=2 * 4 * 8 * 16, moved=held + 4 * 64, calls=1, peak=held + 4 * 64, left=held + 4 * 64)
    assert meter.taken.left == held, "what nothing needs any more is let go of"
    assert meter.taken.peak == before.peak


def test_a_shadow_takes_no_memory() -> None:
    config = anatomy_of(config_of("llama", hidden_size=1 << 14, intermediate_size=1 << 16)).config
    with shadows():
        model = shadow_of(config, torch.bfloat16)
        assert sum(one.numel() for one in model.parameters()) > 10**10
        assert {one.dtype for one in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("name", ["llama", "flan-t5", "blip2-opt", "llava-siglip-mistral"])
def test_a_shadow_takes_what_its_model_takes(name: str) -> None:
    """Forwards and backwards, attention and the image side included."""
    config = config_of(name)
    anatomy = anatomy_of(config)

    def taken(model: torch.nn.Module) -> Iterator[Taken]:
        ids = torch.full((ROWS, TOKENS), 5)
        pixels = None
        if anatomy.projector is not None:
            ids[:, :4] = 3  # the token of an image, which has four places
            pixels = torch.ones(IMAGES, 3, 16, 16)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        inputs["attention_mask"][0, -1] = 0  # where nothing is padded, transformers goes without a mask
        if name == "flan-t5":
            inputs["decoder_input_ids"] = torch.full((ROWS, 2), 5)
        none = torch.empty(0)
        batch = Batch([], inputs, none, none, none, none, pixels)
        with Meter() as meter:
            meter.hold(model.parameters())
            logits = logits_of(model, batch, anatomy.projector)
            yield meter.taken
            logits.sum().backward()
            yield meter.taken

    real = list(taken(make_model(config)))
    with shadows():
        shadow = list(taken(shadow_of(anatomy.config)))
    assert [one.flops for one in shadow] == [one.flops for one in real]
    assert [one.peak for one in shadow] == [pytest.approx(one.peak, rel=1e-3) for one in real]
