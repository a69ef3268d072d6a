"""Rotary position embeddings in a config: which frequencies a pruned head keeps.

A rotary plane is a pair of dimensions of a head that turn together at one frequency. A config knows only how many
planes there are and derives their frequencies; one that lost some says so as `longrope`, whose factors can name any
frequency (docs/exactness.md).
"""

from typing import Any

import torch

from lmmpress.errors import UserError

Config = dict[str, Any]

_STATIC = ("default", "linear", "llama3", "longrope")


def frequencies(config: Config) -> torch.Tensor:
    """The inverse frequencies [planes] of a config whose rotary type is static, as float32.

    Raises UserError for types that depend on the length of the input (dynamic, yarn).
    """
    from transformers import AutoConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = _rope(config)
    kind = rope.get("rope_type", "default")
    head_dim = _head_dim(config)
    base: float = rope["rope_theta"]
    if kind == "default":
        return 1.0 / base ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    lossy = kind == "longrope" and rope["short_factor"] != rope["long_factor"]
    if kind not in _STATIC or lossy or rope.get("attention_factor") not in (None, 1.0):
        raise UserError(
            f"rotary type {kind!r} depends on the length of the input, so its planes cannot be pruned in the config; "
            "leave out the attention stage"
        )
    typed = AutoConfig.for_model(**config)
    found: torch.Tensor = ROPE_INIT_FUNCTIONS[kind](typed, torch.device("cpu"))[0]
    return found.float()


def keep_planes(config: Config, planes: list[int]) -> Config:
    """A copy of the config whose heads keep only the given planes, at their own frequencies."""
    rope, kept = _rope(config), frequencies(config)[torch.tensor(planes)].double()
    head_dim = 2 * len(planes)
    base = float(rope["rope_theta"])
    derived = base ** (torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    factor = (1.0 / (kept * derived)).tolist()
    parameters = {
        "rope_type": "longrope",
        "rope_theta": base,
        "short_factor": factor,
        "long_factor": factor,
        "factor": 1.0,
        "attention_factor": 1.0,
        "original_max_position_embeddings": config["max_position_embeddings"],
    }
    return {key: value for key, value in config.items() if key not in ("rope_scaling", "rope_theta")} | {
        "head_dim": head_dim,
        "rope_parameters": parameters,
    }


def _head_dim(config: Config) -> int:
    width: int = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return width


def _rope(config: Config) -> Config:
    """The rotary settings, from where configs of either generation keep them."""
    rope: Config = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    rope.setdefault("rope_theta", config.get("rope_theta") or 10000.0)
    return rope
