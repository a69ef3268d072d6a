"""Whether plain greedy generation answers what the model's logits say.

Accuracy is measured in one forward pass, as the arg-max of the logits. `generate(do_sample=False)` gives the same
answer only while nothing in the checkpoint's generation settings changes logits or moves the end of an answer.
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

# Settings that change what greedy generation answers, with the values that do not (None never does).
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
    """The settings that `generate` takes from a checkpoint when transformers loads it, and the place that they are
    written in.

    Raises UserError where generation_config.json is none.
    """
    from transformers import GenerationConfig

    config = read_config(checkpoint)
    if family_of(config).model_type == "blip-2":
        # its generate() is the text model's own, which is made from its part of the config alone
        return GenerationConfig.from_model_config(complete(config)["text_config"]), "config.json, text_config"
    path = checkpoint / GENERATION
    if not path.is_file():
        return GenerationConfig.from_model_config(config), "config.json"
    try:
        settings = json.loads(path.read_text("utf-8"))
        if not isinstance(settings, dict):
            raise ValueError("it holds no mapping")
        return GenerationConfig.from_dict(settings), GENERATION
    except Exception as error:  # whatever strange settings make transformers raise is the fault of the file
        told = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path}: transformers cannot read these generation settings: {told}; mend or remove it"
        ) from None


def end_tokens(checkpoint: Path) -> frozenset[int]:
    """The tokens at which `generate` ends an answer of a checkpoint; none where nothing but the length ends it."""
    settings, place = generation_settings(checkpoint)
    found = settings.eos_token_id
    ends = found if isinstance(found, list) else [] if found is None else [found]
    if any(not isinstance(end, int) or isinstance(end, bool) or end < 0 for end in ends):
        raise UserError(f"{checkpoint}: {place}: eos_token_id is {found!r}, which is no token or list of tokens")
    return frozenset(ends)


def check_greedy(checkpoint: Path, tokenizer: Any) -> None:
    """Raise UserError, a line for each fault, where plain greedy generation of a checkpoint would not answer what its
    logits say, ended by the tokenizer's end token."""
    settings, place = generation_settings(checkpoint)
    faults = [
        f"{place} sets {name} to {_short(value)}: with it plain greedy generation answers otherwise than by the most "
        "likely token, which is what is measured; take it out there, and pass it to generate() where it is wanted"
        for name, neutral in CHANGES_ANSWERS.items()
        if (value := getattr(settings, name, None)) is not None and value not in neutral
    ]
    end = tokenizer.eos_token_id
    if end is not None and end not in end_tokens(checkpoint):
        faults.append(
            f"{place} has eos_token_id {_short(settings.eos_token_id)}, the tokenizer's end token is "
            f"{tokenizer.eos_token!r} ({end}): plain generation would not stop where an answer ends; add {end} to "
            "eos_token_id, or make the token that the model ends with the tokenizer's eos_token"
        )
    config = complete(read_config(checkpoint))
    text = config.get("text_config", config)
    begin = settings.bos_token_id if settings.decoder_start_token_id is None else settings.decoder_start_token_id
    if text.get("is_encoder_decoder") and begin != text.get("decoder_start_token_id"):
        faults.append(
            f"{place} lets an answer begin with token {begin}, config.json says decoder_start_token_id "
            f"{text.get('decoder_start_token_id')}; make them the same"
        )
    if faults:
        raise UserError(*(f"{checkpoint}: {fault}" for fault in faults))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
