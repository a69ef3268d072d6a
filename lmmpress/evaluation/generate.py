"""Generates answers from the same token ids and pixels that scoring, distillation and accuracy use."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch

from lmmpress.evaluation.rounds import answers_in, end_ids, generate_in_rounds, writer_of
from lmmpress.lmm.at_once import AtOnce, ran_out_of_memory
from lmmpress.lmm.examples import Examples, Tensors
from lmmpress.lmm.portions import Portions
from lmmpress.progress import say_once, track

LONGEST_UNKNOWN = 128
"""The tokens after which an answer is cut off where the rows have no answers and nobody gives a number."""

BACKENDS = {"cuda": "inductor"}
"""The types of devices on which the step that makes a token may be compiled, and by what."""

_WORTH_COMPILING = 4000  # steps; compiling takes about a minute
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
    generation of at most `longest` tokens in batches of similar prompts, the longest first. Where there are many on a
    GPU, the step that makes a token is compiled.
    """
    order = sorted(rows, key=examples.rows.prompts.__getitem__, reverse=True)
    parts = [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
    at_once = AtOnce(batch_size, "answer", "evaluation.batch_size")

    def can_compile(size: int) -> bool:
        return compiling_works(model, questions(model, examples, order[:size]), longest)

    def answers(_: int, portions: Iterator[Tensors]) -> list[list[int]]:
        found: list[list[int]] = []
        for inputs in portions:
            # another number of rows would be compiled anew
            alike = compiled and len(inputs["input_ids"]) == at_once.rows
            tokens = generate(model, inputs, longest, compiled=alike)
            found += [ids[:length] for ids, length in zip(tokens.tolist(), lengths(tokens, ends), strict=True)]
        return found

    with compiling(model):
        compiled = len(parts) * longest >= _WORTH_COMPILING and at_once.fit(can_compile, len(parts[0]))
        asked = Portions(parts, partial(_prompts, examples), partial(_on_device, model))
        written = track(asked.fitting(answers, at_once), f"answer {examples.split.name}", len(parts))
        return dict(zip(order, chain.from_iterable(written), strict=True))


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
        pixels = examples.pixels[images]
        assert isinstance(pixels, torch.Tensor), "generation takes images of one size"
        inputs["pixel_values"] = pixels
    return inputs


def _on_device(model: torch.nn.Module, inputs: Tensors) -> Tensors:
    device = next(model.parameters()).device
    return {name: value.to(device) for name, value in inputs.items()}


@torch.no_grad()
def generate(
    model: torch.nn.Module, inputs: Tensors, most: int, exactly: bool = False, compiled: bool = False
) -> torch.Tensor:
    """The tokens [rows, at most `most`] of plain greedy generation, without the prompts.

    Rows that have ended leave the batch; after its end a row's tokens have no meaning. With `exactly` no token ends an
    answer: every row gets `most` tokens. The number is lower if prompt and answer would exceed the model's longest
    input.

    With `compiled`, where `compiling_works`, keys and values are in a cache of a fixed size, and the step that
    makes a token is compiled; all rows stay. The cache keeps the size of the longest call so far, so begin with the
    longest: another size or another number of rows is compiled anew.
    """
    prompt = inputs["input_ids"]
    most = min(most, _room(model, prompt.shape[1]))
    if not (exactly or compiled) and len(prompt) > 1 and end_ids(model):
        return generate_in_rounds(model, inputs, most)
    how: dict[str, Any] = {"eos_token_id": None} if exactly else {}
    if compiled:
        how |= {"cache_implementation": "static", "compile_config": _compiling(model)}
    ids: torch.Tensor = model.generate(  # type: ignore[operator]
        **inputs, max_new_tokens=most, do_sample=False, return_dict_in_generate=False, **how
    )
    return answers_in(writer_of(model), ids, prompt)


def compiling_works(model: torch.nn.Module, inputs: Tensors, most: int) -> bool:
    """Whether the step that makes a token can be compiled, on a GPU; tried on what will be the longest inputs and
    answers. If that fails, a line says why. To be asked within `compiling`."""
    if not _backend_for(model) or not takes_static_cache(model):
        return False
    try:
        generate(model, inputs, most, exactly=True, compiled=True)
    except Exception as error:  # whatever compilers and drivers raise: plain generation gives the same answers
        if ran_out_of_memory(error):
            raise
        reason = next(iter(str(error).strip().splitlines()), "")
        say_once(f"generation is not compiled: {type(error).__name__}: {reason[:200]}")
        return False
    return True


def takes_static_cache(model: torch.nn.Module) -> bool:
    """Whether the part of a model that generates takes keys and values of a fixed size; transformers says so of all
    models that it can compile."""
    return bool(getattr(getattr(model, "language_model", model), "_can_compile_fullgraph", False))


@contextmanager
def compiling(model: torch.nn.Module) -> Iterator[None]:
    """What is compiled in this context is forgotten after it: graphs hold memory, and torch compiles a function only a
    few times, for however many models."""
    if not _backend_for(model):
        yield
        return
    torch.compiler.reset()
    try:
        yield
    finally:
        torch.compiler.reset()


def _compiling(model: torch.nn.Module) -> Any:
    """How a step is compiled: with CUDA it becomes a graph that is captured once."""
    from transformers import CompileConfig

    config = CompileConfig(backend=_backend_for(model), dynamic=False)
    config._compile_all_devices = True
    return config


def _backend_for(model: torch.nn.Module) -> str | None:
    return BACKENDS.get(next(model.parameters()).device.type)


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
