"""Torch-Pruning: its dependency graph and grouped Taylor importance on the language tower."""

from typing import Any
from unittest.mock import patch

import torch
from transformers.models.llama import modeling_llama

from lmmpress.lmm.batches import Batches, grouped
from lmmpress.pruning.importance import answer_loss
from peers.peer import Case, Peer
from peers.surgery import opened, saved, set_shape

# https://github.com/VainF/Torch-Pruning/blob/master/examples/LLMs/prune_llm.py: local pruning, whole heads for the
# rotary embedding's sake, lm_head not pruned. The importance there is that of norms; Taylor's defaults are used here.
# The graph is built without the rotary embedding: 1.6.1 does not come to an end on how transformers 5 writes it. Whole
# heads stay or go, so nothing depends on it.
SETTINGS = {"importance": "GroupTaylorImportance", "global_pruning": False, "prune_num_heads": True}


def by_taylor(case: Case) -> str:
    import torch_pruning as tp

    model = opened(case)
    llama, axis = model.language_model, case.task.axis
    _add_gradients(case, model)
    blocks = llama.model.layers
    reads = [getattr(block.self_attn, name) for block in blocks for name in ("q_proj", "k_proj", "v_proj")]
    widens = [getattr(block.mlp, name) for block in blocks for name in ("gate_proj", "up_proj")]
    writes = [layer for block in blocks for layer in (block.self_attn.o_proj, block.mlp.down_proj)]
    stream = [llama.model.embed_tokens, *writes]
    share = case.task.removed / case.anatomy.axis("language", axis).width
    roots = {"ffn": widens, "attention": reads, "io": stream}
    with patch.object(modeling_llama, "apply_rotary_pos_emb", lambda query, key, *_: (query, key)):
        pruner = tp.pruner.BasePruner(
            llama,
            example_inputs=torch.zeros(1, 4, dtype=torch.long),
            output_transform=lambda output: output.logits,
            importance=tp.importance.GroupTaylorImportance(),
            pruning_ratio=share,
            ignored_layers=[llama.lm_head, *(one for name, of in roots.items() if name != axis for one in of)],
            num_heads=dict.fromkeys(reads, llama.config.num_attention_heads),
            prune_num_heads=axis == "attention",
            prune_head_dims=False,
            head_pruning_ratio=share if axis == "attention" else 0.0,
            round_to=llama.config.num_attention_heads if axis == "io" else None,
        )
    gone: list[int] = []
    for group in pruner.step(interactive=True):
        gone += group[0].idxs
        group.prune()
    if axis == "io":  # the projector writes to the stream, and is no part of the tower
        tp.prune_linear_out_channels(model.language_projection, gone)
    set_shape(llama)
    llama.tie_weights()
    return saved(case, model)


def _add_gradients(case: Case, model: Any) -> None:
    """The gradient of the answers' loss, summed over the rows for scoring."""
    examples = case.materials.examples("score")
    for batch in Batches(examples, grouped(examples, 64), case.materials.features("score")):
        loss = answer_loss(case.materials.logits(model, batch), batch)
        (loss * len(batch.examples) / len(examples.rows)).backward()


PEERS = (
    Peer(
        "torch-pruning, Taylor",
        by_taylor,
        ("ffn", "attention", "io"),
        SETTINGS,
        "torch-pruning",
        {"block": "it removes channels and heads of layers, and no blocks"},
    ),
)
