"""Generation without lmmpress, as users do it: the checkpoint's processor makes the inputs, `generate` the answer."""

from collections.abc import Sequence
from typing import Any

import torch

from lmmpress.data import Row, Split, open_image


def plain_tokens(model: torch.nn.Module, processor: Any, split: Split, rows: Sequence[Row], most: int = 32) -> Any:
    """The token ids [rows, tokens] that plain greedy generation gives to some rows, without the prompts."""
    getattr(processor, "tokenizer", processor).padding_side = "left"
    images = [open_image(split, row.picture) for row in rows if row.picture is not None]
    given = {"images": images} if images else {}
    inputs = processor(text=[row.question for row in rows], return_tensors="pt", padding=True, **given)
    ids = model.generate(**inputs, max_new_tokens=most, do_sample=False)  # type: ignore[operator]
    if model.config.get_text_config().is_encoder_decoder:  # type: ignore[union-attr,operator]
        return ids[:, 1:]
    return ids[:, inputs["input_ids"].shape[1] :]


def plain_answers(model: torch.nn.Module, processor: Any, split: Split, rows: Sequence[Row]) -> list[str]:
    """The texts of these answers."""
    tokens = plain_tokens(model, processor, split, rows)
    texts = getattr(processor, "tokenizer", processor).batch_decode(tokens, skip_special_tokens=True)
    return [text.strip() for text in texts]
