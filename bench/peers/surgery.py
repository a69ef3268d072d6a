"""Changes a loaded model in place where no axis of lmmpress does, and saves it as transformers does."""

import shutil
from pathlib import Path
from typing import Any

import torch

from lmmpress.lmm.checkpoint import load_model
from peers.peer import Case

_WRITTEN = ("config.json", "generation_config.json", "COMPRESSION.json")


def opened(case: Case) -> Any:
    """The case's checkpoint, loaded with float32 weights."""
    return load_model(case.materials.store.checkpoint(case.start))


def saved(case: Case, model: Any) -> str:
    """Save a changed model in half precision, as the sample is, with the other files of the case's checkpoint; its
    digest."""
    store = case.materials.store
    source = store.checkpoint(case.start)
    with store.scratch() as folder:
        target = folder / "checkpoint"
        model.to(torch.float16).save_pretrained(target)
        for file in _companions(source):
            shutil.copyfile(file, target / file.name)
        return store.add_checkpoint(target)


def _companions(source: Path) -> list[Path]:
    """The files of tokenizer and processor."""
    return [file for file in sorted(source.glob("*.json")) if file.name not in _WRITTEN]


def keep_outputs(linear: torch.nn.Linear, kept: torch.Tensor) -> None:
    """Keep the named outputs of a linear layer."""
    linear.weight = torch.nn.Parameter(linear.weight.detach()[kept])
    if linear.bias is not None:
        linear.bias = torch.nn.Parameter(linear.bias.detach()[kept])
    linear.out_features = len(kept)


def keep_inputs(linear: torch.nn.Linear, kept: torch.Tensor) -> None:
    """Keep the named inputs of a linear layer."""
    linear.weight = torch.nn.Parameter(linear.weight.detach()[:, kept])
    linear.in_features = len(kept)


def keep_heads(llama: Any, by_block: list[torch.Tensor]) -> None:
    """Keep the named heads of every block of a Llama whose queries are not grouped, equally many in each."""
    for block, heads in zip(llama.model.layers, by_block, strict=True):
        attention = block.self_attn
        width = attention.head_dim
        kept = (heads.sort().values[:, None] * width + torch.arange(width)).flatten()
        for linear in (attention.q_proj, attention.k_proj, attention.v_proj):
            keep_outputs(linear, kept)
        keep_inputs(attention.o_proj, kept)
    set_shape(llama)


def set_shape(llama: Any) -> None:
    """Write the shape that a Llama's weights have into its config."""
    first, config = llama.model.layers[0], llama.config
    config.num_attention_heads = first.self_attn.q_proj.out_features // config.head_dim
    config.num_key_value_heads = first.self_attn.k_proj.out_features // config.head_dim
    config.intermediate_size = first.mlp.gate_proj.out_features
    config.hidden_size = first.mlp.gate_proj.in_features
