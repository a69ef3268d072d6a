"""Writes the rotary frequencies that a pruned head keeps into a config.

A rotary plane is a pair of dimensions of a head that are rotated together at one frequency. A plain config has only the
number of planes, from which their frequencies are derived. After planes are removed, the config uses the rotary type
`longrope`, whose factors can express any frequencies (docs/exactness.md).
"""

from typing import Any

import torch

from lmmpress.errors import UserError

Config = dict[str, Any]

_STATIC = ("default", "linear", "llama3", "longrope")


def head_width(config: Config) -> int:
    """The width of a head, from the config's own key or from the hidden size."""
    width: int = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return width


def turning_planes(config: Config) -> int:
    """How many of a head's planes are rotated; the others (in GLM) carry no position."""
    return int(head_width(config) * _rope(config).get("partial_rotary_factor", 1.0)) // 2


def frequencies(config: Config) -> torch.Tensor:
    """The inverse frequencies [rotated planes] of a config with a static rotary type, as float32.

    Raises UserError for types that depend on the length of the input (dynamic, yarn).
    """
    from transformers import AutoConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = _rope(config)
    kind = rope.get("rope_type", "default")
    base: float = rope["rope_theta"]
    if kind == "default":
        width = 2 * turning_planes(config)
        return 1.0 / base ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
    by_length = kind == "longrope" and rope["short_factor"] != rope["long_factor"]
    if kind not in _STATIC or by_length or rope.get("attention_factor") not in (None, 1.0):
        raise UserError(
            f"rotary type {kind!r} depends on the length of the input, so its planes cannot be pruned in the config; "
            "leave out the attention stage"
        )
    typed = AutoConfig.for_model(**config)
    inverse: torch.Tensor = ROPE_INIT_FUNCTIONS[kind](typed, torch.device("cpu"))[0]
    return inverse.float()


def keep_planes(config: Config, planes: list[int]) -> Config:
    """A copy of the config whose heads keep only the given planes; rotated planes keep their frequencies."""
    rope, turning = _rope(config), turning_planes(config)
    kept = frequencies(config)[torch.tensor([plane for plane in planes if plane < turning])].double()
    head_dim, width = 2 * len(planes), 2 * len(kept)
    base = float(rope["rope_theta"])
    derived = base ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
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
    if "partial_rotary_factor" in rope:
        parameters["partial_rotary_factor"] = _share(width, head_dim)
    replaced = ("rope_scaling", "rope_theta", "partial_rotary_factor")
    return {key: value for key, value in config.items() if key not in replaced} | {
        "head_dim": head_dim,
        "rope_parameters": parameters,
    }


def _share(width: int, head_dim: int) -> float:
    """The partial rotary factor that gives `width` when a model multiplies it by `head_dim` and rounds down."""
    share = width / head_dim
    return share if int(head_dim * share) == width else (width + 0.25) / head_dim


def _rope(config: Config) -> Config:
    """The rotary settings, from the keys of either old or new configs."""
    rope: Config = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    rope.setdefault("rope_theta", config.get("rope_theta") or 10000.0)
    if config.get("partial_rotary_factor"):
        rope.setdefault("partial_rotary_factor", config["partial_rotary_factor"])
    return rope
