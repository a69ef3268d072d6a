"""Checks that plain greedy generation gives the answers that accuracy is measured on.

Accuracy is measured in one forward pass, from the arg-max of the logits. `generate(do_sample=False)` gives the same
answer only if no generation setting of the checkpoint changes the logits or the end of an answer.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmpress.errors import UserError
from lmmpress.lmm.families.registry import family_of
from lmmpress.lmm.read_anatomy import complete, read_config

if TYPE_CHECKING:
    from transformers import GenerationConfig

GENERATION = "generation_config.json"

# Settings that change the answers of greedy generation, each with its neutral values (None is always neutral).
CHANGES_ANSWERS: dict[str, tuple[Any, ...]] = {
    # where an answer ends
    "min_length": (0,),
    "min_new_tokens": (0,),
    "max_time": (),
    "stop_strings": (),
    "exponential_decay_length_penalty": (),
    # other logits
    "repetition_penalty": (1,),
    "encoder_repetition_penalty": (1,),
    "no_repeat_ngram_size": (0,),
    "encoder_no_repeat_ngram_size": (0,),
    "bad_words_ids": (),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "sequence_bias": (),
    "guidance_scale": (1,),
    "watermarking_config": (),
    "token_healing": (False,),
    # another search than the greedy one
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "num_return_sequences": (1,),
    "penalty_alpha": (0,),
    "constraints": (),
    "force_words_ids": (),
    "dola_layers": (),
    "use_mtp": (False,),
    "prompt_lookup_num_tokens": (),
    "assistant_early_exit": (),
    "speculation_type": (),
    # keys and values in few bits
    "cache_implementation": (
        "dynamic",
        "static",
        "offloaded",
        "offloaded_static",
        "sliding_window",
        "hybrid",
        "hybrid_chunked",
        "offloaded_hybrid",
        "offloaded_hybrid_chunked",
    ),
}


def generation_settings(checkpoint: Path) -> "tuple[GenerationConfig, str]":
    """The generation settings of a checkpoint when transformers loads it, and the name of the file that sets them.

    Raises UserError if transformers cannot read generation_config.json.
    """
    from transformers import GenerationConfig

    config = read_config(checkpoint)
    if family_of(config).model_type == "blip-2":
        # BLIP-2's generate() is the text model's, which is built from its part of the config only
        return GenerationConfig.from_model_config(complete(config)["text_config"]), "config.json, text_config"
    path = checkpoint / GENERATION
    if not path.is_file():
        return GenerationConfig.from_model_config(config), "config.json"
    try:
        settings = json.loads(path.read_text("utf-8"))
        if not isinstance(settings, dict):
            raise ValueError("it holds no mapping")
        return GenerationConfig.from_dict(settings), GENERATION
    except Exception as error:  # any exception of transformers here is caused by the untrusted file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path}: transformers cannot read these generation settings: {reason}; correct or remove the file"
        ) from None


def end_tokens(checkpoint: Path) -> frozenset[int]:
    """The tokens at which `generate` ends an answer of a checkpoint; empty if only the length ends it."""
    settings, place = generation_settings(checkpoint)
    value = settings.eos_token_id
    ends = value if isinstance(value, list) else [] if value is None else [value]
    if any(not isinstance(end, int) or isinstance(end, bool) or end < 0 for end in ends):
        raise UserError(f"{checkpoint}: {place}: eos_token_id is {value!r}, which is no token or list of tokens")
    return frozenset(ends)


def check_greedy(checkpoint: Path, tokenizer: Any) -> None:
    """Raise UserError, with a line for each fault, if plain greedy generation of a checkpoint would not give the
    arg-max of its logits up to the tokenizer's end token."""
    settings, place = generation_settings(checkpoint)
    faults = [
        f"{place} sets {name} to {_short(value)}: then plain greedy generation does not always choose the most likely "
        "token, but this is what is measured; remove it there, and pass it to generate() where you need it"
        for name, neutral in CHANGES_ANSWERS.items()
        if (value := getattr(settings, name, None)) is not None and value not in neutral
    ]
    end = tokenizer.eos_token_id
    if end is not None and end not in end_tokens(checkpoint):
        faults.append(
            f"{place} has eos_token_id {_short(settings.eos_token_id)}, but the tokenizer's end token is "
            f"{tokenizer.eos_token!r} ({end}): plain generation would not stop where an answer ends; add {end} to "
            "eos_token_id, or set the tokenizer's eos_token to the token that the model ends answers with"
        )
    config = complete(read_config(checkpoint))
    text = config.get("text_config", config)
    begin = settings.bos_token_id if settings.decoder_start_token_id is None else settings.decoder_start_token_id
    if text.get("is_encoder_decoder") and begin != text.get("decoder_start_token_id"):
        faults.append(
            f"{place} lets an answer begin with token {begin}, but config.json says decoder_start_token_id "
            f"{text.get('decoder_start_token_id')}; make them the same"
        )
    if faults:
        raise UserError(*(f"{checkpoint}: {fault}" for fault in faults))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
