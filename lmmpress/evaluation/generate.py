"""Generates answers from the same token ids and pixels that scoring, distillation and accuracy use."""

from collections.abc import Sequence
from typing import Any

import torch

from lmmpress.lmm.examples import Examples, Tensors

LONGEST = 32  # an answer that has not ended is cut off after this number of tokens


def questions(model: torch.nn.Module, examples: Examples, chosen: Sequence[int]) -> Tensors:
    """The inputs of `generate` for the chosen examples: prompts padded on the left, and pixels, on the model's
    device."""
    rows = [examples.rows[index] for index in chosen]
    ids = torch.full((len(rows), max(len(row.prompt) for row in rows)), examples.pad)
    attention = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, ids.shape[1] - len(row.prompt) :] = torch.tensor(row.prompt)
        attention[place, ids.shape[1] - len(row.prompt) :] = 1
    inputs = {"input_ids": ids, "attention_mask": attention}
    if examples.pixels is not None:
        inputs["pixel_values"] = examples.pixels[[row.image for row in rows]]
    device = next(model.parameters()).device
    return {name: value.to(device) for name, value in inputs.items()}


@torch.no_grad()
def generate(model: torch.nn.Module, inputs: Tensors, most: int, exactly: bool = False) -> torch.Tensor:
    """The tokens [rows, at most `most`] of plain greedy generation, without the prompts.

    A row that ends before the others is padded. With `exactly` no token ends an answer: every row gets `most` tokens.
    The number is lower if prompt and answer would exceed the model's longest input.
    """
    prompt = inputs["input_ids"]
    most = min(most, _room(model, prompt.shape[1]))
    endless: dict[str, Any] = {"eos_token_id": None} if exactly else {}
    ids: torch.Tensor = model.generate(  # type: ignore[operator]
        **inputs, max_new_tokens=most, do_sample=False, return_dict_in_generate=False, **endless
    )
    if _text(model).is_encoder_decoder:
        return ids[:, 1:]  # the decoder's start token
    echoed = ids.shape[1] > prompt.shape[1] and bool((ids[:, : prompt.shape[1]] == prompt).all())
    return ids[:, prompt.shape[1] :] if echoed else ids


def lengths(tokens: torch.Tensor, ends: frozenset[int]) -> list[int]:
    """The number of tokens of each row, including its end token; all tokens if the row has no end token."""
    return [
        next((place for place, token in enumerate(row, start=1) if token in ends), len(row)) for row in tokens.tolist()
    ]


def _room(model: torch.nn.Module, prompt: int) -> int:
    """The number of tokens that fit after a prompt, at least one."""
    text = _text(model)
    longest: int | None = getattr(text, "max_position_embeddings", None)
    if text.is_encoder_decoder or longest is None:
        return 1 << 30
    return max(1, longest - prompt)


def _text(model: torch.nn.Module) -> Any:
    config: Any = model.config
    return config.get_text_config()
