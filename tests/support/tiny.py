"""Tiny random models of the real classes, one config for each family; every parameter has an effect."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from support.data import make_processor

# what each text family has that others have not
TEXTS: dict[str, dict[str, Any]] = {
    # gated FFN, tied head, grouped queries
    "llama": {"num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 64, "tie_word_embeddings": True},
    # plain GELU FFN, biases, untied head
    "arcee": {"head_dim": 16, "intermediate_size": 64, "hidden_act": "gelu", "attention_bias": True, "mlp_bias": True},
    # a width that heads do not divide
    "mistral": {"hidden_size": 44, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 64},
    # biases on query, key and value; tied head
    "qwen2": {"num_key_value_heads": 2, "intermediate_size": 64, "tie_word_embeddings": True},
    # norms over a head's width
    "qwen3": {"num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 64},
    # norms that add one, scaled and tied embeddings, one key and value for all queries
    "gemma": {"num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 64},
    # neighbours turn, in half of a head; gate and up in one tensor
    "glm": {"num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 64, "attention_bias": True},
    # the same, and norms after attention and FFN
    "glm4": {"num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 64, "attention_bias": True},
    # LayerNorm, a plain FFN, biases, tied head
    "starcoder2": {"num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 64},
    # ReLU, learned positions, LayerNorm, biases, tied head
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 48, "max_position_embeddings": 96},
    # the 350m form: embeddings of another width, normalised after each network
    "opt-350m": {
        "ffn_dim": 64,
        "word_embed_proj_dim": 20,
        "max_position_embeddings": 96,
        "do_layer_norm_before": False,
    },
    # encoder and decoder, relative positions, tied head whose input is scaled
    "t5": {"d_ff": 64, "d_kv": 8, "feed_forward_proj": "relu", "tie_word_embeddings": True},
    # the same with a gated FFN and a head of its own
    "flan-t5": {"d_ff": 64, "d_kv": 8, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}
TYPES = {"opt-350m": "opt", "flan-t5": "t5"}
VISIONS = ("clip", "siglip")
TEXT_MODELS = tuple(TEXTS)
BLIP2_TEXTS = ("opt", "glm", "llama", "qwen2", "flan-t5")
LLAVA_TEXTS = ("llama", "mistral", "qwen2")
MODELS = (
    *TEXT_MODELS,
    *(f"blip2-{text}" for text in BLIP2_TEXTS),
    *(f"llava-{vision}-{text}" for vision, text in zip(("clip", "siglip", "clip"), LLAVA_TEXTS, strict=True)),
)
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def text_config(kind: str, vocabulary: int = 64, **changes: Any) -> dict[str, Any]:
    model_type = TYPES.get(kind, kind)
    if model_type == "t5":
        shape = {"d_model": 48, "num_layers": 4, "num_heads": 4, "decoder_start_token_id": 0}
    else:
        shape = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4}
    return {"model_type": model_type, "vocab_size": vocabulary} | shape | TOKENS | TEXTS[kind] | changes


def blip2_config(text: dict[str, Any]) -> dict[str, Any]:
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 16,
        "patch_size": 8,
    }
    qformer = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 40,
        "encoder_hidden_size": 32,
        "vocab_size": 8,
    }
    return {
        "model_type": "blip-2",
        "vision_config": vision,
        "qformer_config": qformer,
        "text_config": text,
        "num_query_tokens": 4,
        "image_token_index": 3,
    }


def llava_config(vision: str, text: dict[str, Any], **changes: Any) -> dict[str, Any]:
    tower = {
        "model_type": f"{vision}_vision_model",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 16,
        "patch_size": 8,
    }
    if vision == "siglip":
        tower["vision_use_head"] = False
    strategy = "default" if vision == "clip" else "full"
    return {
        "model_type": "llava",
        "vision_config": tower,
        "text_config": text,
        "image_token_index": 3,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": strategy,
        "tie_word_embeddings": text.get("tie_word_embeddings", False),
    } | changes


def config_of(name: str, vocabulary: int = 64, **changes: Any) -> dict[str, Any]:
    """The raw config of a tiny model: a text family (or `text-<family>`), `blip2-<text>` or `llava-<vision>-<text>`."""
    kind, _, rest = name.partition("-")
    if kind == "blip2":
        return blip2_config(text_config(rest, vocabulary, **changes))
    if kind == "llava":
        vision, _, text = rest.partition("-")
        return llava_config(vision, text_config(text, vocabulary, **changes))
    return text_config(name.removeprefix("text-"), vocabulary, **changes)


def make_model(config: dict[str, Any], seed: int = 0) -> torch.nn.Module:
    """A model of that config, in which all parameters are random and have an effect, norms and biases too."""
    import transformers

    from lmmpress.lmm.families.registry import family_of

    torch.manual_seed(seed)
    typed = transformers.AutoConfig.for_model(**config)
    make: Callable[..., torch.nn.Module] = getattr(transformers, family_of(config).auto_class).from_config
    model = make(typed).eval()
    for name, parameter in model.named_parameters():
        centre = 1.0 if parameter.ndim == 1 and "bias" not in name and config["model_type"] != "gemma" else 0.0
        parameter.data.normal_(centre, 0.15)
    return model


def save_model(model: torch.nn.Module, folder: Path, **settings: Any) -> None:
    """`save_pretrained`, which all models of transformers have and `torch.nn.Module` does not declare."""
    model.save_pretrained(folder, **settings)  # type: ignore[operator]


def generate(model: torch.nn.Module, **inputs: Any) -> torch.Tensor:
    """`generate`, which is not declared either; token ids [rows, tokens]."""
    tokens: torch.Tensor = model.generate(**inputs)  # type: ignore[operator]
    return tokens


def input_embedding(model: torch.nn.Module) -> torch.nn.Parameter:
    """The weight of the token embedding."""
    weight: torch.nn.Parameter = model.get_input_embeddings().weight  # type: ignore[operator]
    return weight


def output_embedding(model: torch.nn.Module) -> torch.nn.Parameter:
    """The weight of the output head."""
    weight: torch.nn.Parameter = model.get_output_embeddings().weight  # type: ignore[operator]
    return weight


IN_FULL = ("llava-clip-llama", "text-glm", "text-llama")
"""Kinds of `write_checkpoint` that are names of `config_of`; all others are text families inside BLIP-2."""


def write_checkpoint(folder: Path, kind: str = "llama", **changes: Any) -> Path:
    """A tiny checkpoint with tokenizer and processor: a text family inside BLIP-2, or one of `IN_FULL`."""
    processor = make_processor(kind)
    tokenizer = getattr(processor, "tokenizer", processor)
    name = kind if kind in IN_FULL else f"blip2-{kind}"
    save_model(make_model(config_of(name, len(tokenizer), **changes)), folder)
    processor.save_pretrained(folder)
    return folder
