"""Greedy generation in rounds: when half of the rows have ended they leave the batch, and the others carry on.

Rows keep their keys and values from round to round, so no token is computed twice, and a batch of n rows has at most
log2(n) + 1 rounds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lmmpress.lmm.examples import Tensors


def writer_of(model: torch.nn.Module) -> Any:
    """The module that generates: of BLIP-2 the text model, to which it gives what it has made of pictures and prompt;
    else the model itself."""
    inner = getattr(model, "language_model", None)
    return inner if hasattr(inner, "generate") else model


def end_ids(model: torch.nn.Module) -> list[int]:
    """The tokens at which a model ends an answer."""
    ends = writer_of(model).generation_config.eos_token_id
    return ends if isinstance(ends, list) else [] if ends is None else [ends]


@torch.no_grad()
def generate_in_rounds(model: torch.nn.Module, inputs: Tensors, most: int) -> torch.Tensor:
    """The tokens [rows, at most `most`] of plain greedy generation, without the prompts; after a row's end they have no
    meaning. Prompts are padded on the left."""
    writer, ends = writer_of(model), end_ids(model)
    prompt, mask = inputs["input_ids"], inputs["attention_mask"]
    ending = torch.tensor(ends, device=prompt.device)
    written = prompt.new_full((len(prompt), most), ends[0])
    rows = torch.arange(len(prompt), device=prompt.device)
    with _encoded(writer) as encoded:
        found = model.generate(**inputs, **_how(ending, len(rows), most))  # type: ignore[operator]
    tokens = answers_in(writer, found.sequences, prompt)
    while True:
        count = tokens.shape[1]
        written[rows, :count] = tokens
        left = (~torch.isin(tokens, ending).any(1)).nonzero()[:, 0]
        if count >= most or not len(left):
            return written[:, :count]
        cache = found.past_key_values
        cache.batch_select_indices(left)
        rows, tokens = rows[left], tokens[left]
        found = writer.generate(
            **_so_far(writer, prompt[rows], mask[rows], tokens, [states[rows] for states in encoded]),
            past_key_values=cache,
            **_how(ending, len(rows), most - count),
        )
        tokens = answers_in(writer, found.sequences, prompt[rows])


def answers_in(writer: Any, sequences: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
    """The tokens that were generated, in what `generate` has returned: after the decoder's start token, or after the
    prompt where it is repeated."""
    if writer.config.is_encoder_decoder:
        return sequences[:, 1:]
    length = prompt.shape[1]
    echoed = sequences.shape[1] > length and bool((sequences[:, :length] == prompt).all())
    return sequences[:, length:] if echoed else sequences


def _how(ends: torch.Tensor, rows: int, most: int) -> dict[str, Any]:
    from transformers import StoppingCriteriaList

    return {
        "max_new_tokens": most,
        "do_sample": False,
        "use_cache": True,
        "return_dict_in_generate": True,
        "stopping_criteria": StoppingCriteriaList([_half_have_ended(ends, rows)]),
    }


def _half_have_ended(ends: torch.Tensor, rows: int) -> Any:
    """A criterion that ends generation, of all rows at once, when at least half of them have ended."""
    ended = torch.zeros(rows, dtype=torch.bool, device=ends.device)

    def stops(input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        ended.logical_or_(torch.isin(input_ids[:, -1], ends))
        return (2 * ended.sum() >= rows).expand(rows)

    return stops


def _so_far(
    writer: Any, prompt: torch.Tensor, mask: torch.Tensor, tokens: torch.Tensor, encoded: list[torch.Tensor]
) -> dict[str, Any]:
    """What rows have read and written, as inputs of `generate`. Of it only the last token is computed: the cache has
    the others."""
    if not writer.config.is_encoder_decoder:
        whole = torch.cat([mask, torch.ones_like(tokens)], 1)
        return {"input_ids": torch.cat([prompt, tokens], 1), "attention_mask": whole}
    from transformers.modeling_outputs import BaseModelOutput

    start = tokens.new_full((len(tokens), 1), writer.config.decoder_start_token_id)
    decoded = torch.cat([start, tokens], 1)
    return {
        "encoder_outputs": BaseModelOutput(last_hidden_state=encoded[0]),
        "attention_mask": mask,
        "decoder_input_ids": decoded,
        "decoder_attention_mask": torch.ones_like(decoded),
    }


@contextmanager
def _encoded(writer: Any) -> Iterator[list[torch.Tensor]]:
    """The states that the encoder computes in this context; none without an encoder."""
    states: list[torch.Tensor] = []
    if not writer.config.is_encoder_decoder:
        yield states
        return
    handle = writer.get_encoder().register_forward_hook(lambda _, __, output: states.append(output[0]))
    try:
        yield states
    finally:
        handle.remove()
