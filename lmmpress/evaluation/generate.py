"""Generates answers from the same token ids and pixels that scoring, distillation and accuracy use."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from lmmpress.data.workers import by_workers
from lmmpress.lmm.examples import Examples, Tensors
from lmmpress.progress import track

LONGEST_UNKNOWN = 128
"""The tokens after which an answer is cut off where the rows have no answers and nobody gives a number."""

_SHORTEST_REPLY = 32  # tokens
_SHARE = 0.99  # of the right answers may be as long as an answer that is cut off


def longest_answer(examples: Examples, given: int | None = None) -> int:
    """The number of tokens, end token included, after which a generated answer is cut off: the number `given`, or the
    99th percentile of the right answers' lengths."""
    if given is not None:
        return given
    known = np.sort(examples.rows.answers[examples.rows.answers > 0])
    return int(known[math.ceil(_SHARE * len(known)) - 1]) if len(known) else LONGEST_UNKNOWN


def longest_reply(examples: Examples, given: int | None = None) -> int:
    """`longest_answer` where the length of an answer is of interest, or its text if it is wrong: it may well be longer
    than right ones."""
    return max(_SHORTEST_REPLY, 2 * longest_answer(examples)) if given is None else given


@torch.no_grad()
def write_answers(
    model: torch.nn.Module,
    examples: Examples,
    rows: Sequence[int],
    longest: int,
    ends: frozenset[int],
    batch_size: int,
) -> dict[int, list[int]]:
    """The tokens that a model answers to some rows, by their number, with the end token if there is one: plain greedy
    generation of at most `longest` tokens in batches of similar prompts, with a static cache where the model takes one.
    """
    order = sorted(rows, key=examples.rows.prompts.__getitem__)
    parts = [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
    written: dict[int, list[int]] = {}
    asked = track(by_workers(partial(_prompts, examples), parts, 1), f"answer {examples.split.name}", len(parts))
    for chosen, inputs in zip(parts, asked, strict=True):
        tokens = generate(model, _on_device(model, inputs), longest, static=True)
        for row, ids, length in zip(chosen, tokens.tolist(), lengths(tokens, ends), strict=True):
            written[row] = ids[:length]
    return written


def questions(model: torch.nn.Module, examples: Examples, chosen: Sequence[int]) -> Tensors:
    """The inputs of `generate` for the chosen examples: prompts padded on the left, and pixels, on the model's
    device."""
    return _on_device(model, _prompts(examples, chosen))


def _prompts(examples: Examples, chosen: Sequence[int]) -> Tensors:
    rows = [examples.rows[index] for index in chosen]
    ids = torch.full((len(rows), max(len(row.prompt) for row in rows)), examples.pad)
    attention = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, ids.shape[1] - len(row.prompt) :] = torch.tensor(row.prompt)
        attention[place, ids.shape[1] - len(row.prompt) :] = 1
    inputs = {"input_ids": ids, "attention_mask": attention}
    images = examples.images_of(chosen)
    if images and examples.pixels is not None:
        inputs["pixel_values"] = examples.pixels[images]
    return inputs


def _on_device(model: torch.nn.Module, inputs: Tensors) -> Tensors:
    device = next(model.parameters()).device
    return {name: value.to(device) for name, value in inputs.items()}


@torch.no_grad()
def generate(
    model: torch.nn.Module, inputs: Tensors, most: int, exactly: bool = False, static: bool = False
) -> torch.Tensor:
    """The tokens [rows, at most `most`] of plain greedy generation, without the prompts.

    A row that ends before the others is padded. With `exactly` no token ends an answer: every row gets `most` tokens.
    With `static` keys and values are in a cache of a fixed size, if the model takes one, and not in one that grows.
    The number is lower if prompt and answer would exceed the model's longest input.
    """
    prompt = inputs["input_ids"]
    most = min(most, _room(model, prompt.shape[1]))
    how: dict[str, Any] = {"eos_token_id": None} if exactly else {}
    if static and takes_static_cache(model):
        # compiling would take longer than it saves, and needs a compiler
        how |= {"cache_implementation": "static", "disable_compile": True}
    ids: torch.Tensor = model.generate(  # type: ignore[operator]
        **inputs, max_new_tokens=most, do_sample=False, return_dict_in_generate=False, **how
    )
    if _text(model).is_encoder_decoder:
        return ids[:, 1:]  # the decoder's start token
    echoed = ids.shape[1] > prompt.shape[1] and bool((ids[:, : prompt.shape[1]] == prompt).all())
    return ids[:, prompt.shape[1] :] if echoed else ids


def takes_static_cache(model: torch.nn.Module) -> bool:
    """Whether the part of a model that generates takes keys and values of a fixed size; transformers says so of all
    models that it can compile."""
    return bool(getattr(getattr(model, "language_model", model), "_can_compile_fullgraph", False))


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
