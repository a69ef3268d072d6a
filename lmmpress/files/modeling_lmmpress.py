"""OPT, BLIP-2 and LLaVA whose attention heads have a width of their own, which their configs have no word for.

This file travels with checkpoints that need it and depends on transformers alone. In such a checkpoint `head_dim` in a
config (of the model, its vision tower, its Q-Former or its text model) is the width of a head, whatever `hidden_size`
divided by the number of heads may be. Everything else is transformers' own: the attention modules are built with other
shapes, and compute what they always compute.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
    OPTConfig,
    OPTForCausalLM,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.blip_2 import modeling_blip_2
from transformers.models.clip import modeling_clip
from transformers.models.opt import modeling_opt
from transformers.models.siglip import modeling_siglip


def _as_wide_as_its_heads(config: Any) -> Any:
    """The config of an attention whose hidden size is what its heads hold together."""
    wide = copy.copy(config)
    wide.hidden_size = config.num_attention_heads * config.head_dim
    return wide


def _has_own_width(config: Any) -> bool:
    return getattr(config, "head_dim", None) is not None


def _reshape(module: nn.Module, name: str, inputs: int | None = None, outputs: int | None = None) -> None:
    """Give a module's linear layer of that name as many inputs or outputs as given."""
    old = getattr(module, name)
    bias = old.bias is not None
    setattr(module, name, nn.Linear(inputs or old.in_features, outputs or old.out_features, bias=bias))


def _own_width(attention: type[nn.Module]) -> type[nn.Module]:
    """An attention of the form that OPT, CLIP and SigLIP share, with heads as wide as its config says."""

    class OwnWidth(attention):  # type: ignore[valid-type, misc]
        def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
            own = _has_own_width(config)
            super().__init__(_as_wide_as_its_heads(config) if own else config, *args, **kwargs)
            if own:
                self.config, self.embed_dim = config, config.hidden_size
                for name in ("q_proj", "k_proj", "v_proj"):
                    _reshape(self, name, inputs=config.hidden_size)
                _reshape(self, "out_proj", outputs=config.hidden_size)

    OwnWidth.__name__ = attention.__name__
    return OwnWidth


class _Blip2Attention(modeling_blip_2.Blip2Attention):
    def __init__(self, config: Any) -> None:
        own = _has_own_width(config)
        super().__init__(_as_wide_as_its_heads(config) if own else config)
        if own:
            self.config, self.embed_dim = config, config.hidden_size
            _reshape(self, "qkv", inputs=config.hidden_size)
            _reshape(self, "projection", outputs=config.hidden_size)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        batch, length, _ = hidden_states.shape
        qkv = self.qkv(hidden_states).view(batch, length, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, modeling_blip_2.eager_attention_forward
        )
        dropout = self.attention_dropout if self.training else 0.0
        mixed, weights = attend(
            self, *qkv.unbind(0), attention_mask=None, dropout=dropout, scaling=self.scale, **kwargs
        )
        return self.projection(mixed.reshape(batch, length, -1).contiguous()), weights


class _QFormerAttention(modeling_blip_2.Blip2QFormerMultiHeadAttention):
    def __init__(self, config: Any, is_cross_attention: bool = False) -> None:
        own = _has_own_width(config)
        super().__init__(_as_wide_as_its_heads(config) if own else config, is_cross_attention)
        if own:
            self.config = config
            _reshape(self, "query", inputs=config.hidden_size)
            read = config.encoder_hidden_size if is_cross_attention else config.hidden_size
            _reshape(self, "key", inputs=read)
            _reshape(self, "value", inputs=read)


class _QFormerOutput(modeling_blip_2.Blip2QFormerSelfOutput):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if _has_own_width(config):
            _reshape(self, "dense", inputs=config.num_attention_heads * config.head_dim)


_IN_PLACE_OF = (
    (modeling_opt, "OPTAttention", _own_width(modeling_opt.OPTAttention)),
    (modeling_clip, "CLIPAttention", _own_width(modeling_clip.CLIPAttention)),
    (modeling_siglip, "SiglipAttention", _own_width(modeling_siglip.SiglipAttention)),
    (modeling_blip_2, "Blip2Attention", _Blip2Attention),
    (modeling_blip_2, "Blip2QFormerMultiHeadAttention", _QFormerAttention),
    (modeling_blip_2, "Blip2QFormerSelfOutput", _QFormerOutput),
)


@contextmanager
def _heads_of_own_width() -> Iterator[None]:
    """Within this context transformers' model classes build the attentions of this file."""
    before = [getattr(module, name) for module, name, _ in _IN_PLACE_OF]
    for module, name, ours in _IN_PLACE_OF:
        setattr(module, name, ours)
    try:
        yield
    finally:
        for (module, name, _), theirs in zip(_IN_PLACE_OF, before, strict=True):
            setattr(module, name, theirs)


class LmmpressOPTConfig(OPTConfig):
    model_type = "lmmpress-opt"


class LmmpressOPTForCausalLM(OPTForCausalLM):
    config_class = LmmpressOPTConfig

    def __init__(self, config: Any) -> None:
        with _heads_of_own_width():
            super().__init__(config)


class LmmpressBlip2Config(Blip2Config):
    model_type = "lmmpress-blip-2"


class LmmpressBlip2ForConditionalGeneration(Blip2ForConditionalGeneration):
    config_class = LmmpressBlip2Config

    def __init__(self, config: Any) -> None:
        with _heads_of_own_width():
            super().__init__(config)


class LmmpressLlavaConfig(LlavaConfig):
    model_type = "lmmpress-llava"


class LmmpressLlavaForConditionalGeneration(LlavaForConditionalGeneration):
    config_class = LmmpressLlavaConfig

    def __init__(self, config: Any) -> None:
        with _heads_of_own_width():
            super().__init__(config)
