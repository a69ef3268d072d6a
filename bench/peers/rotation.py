"""SliceGPT (arXiv 2401.15024) on a Llama that stays one: the residual stream is turned to its principal components, and
the last of them are cut.

The paper gives every block a rotation of its own, and a matrix between them, which no Llama of transformers has. So one
rotation serves all blocks here. The norms' weights are folded into the layers that read the stream, after which a norm
and a rotation may change places. A head that is tied to the embedding can fold nothing, so it is untied; the stream
becomes narrower for that, until the sizes are equal.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from lmmpress.lmm.batches import Batch, Batches, grouped
from peers.peer import Case, Peer
from peers.surgery import opened, saved, set_shape

# section 3.3 of the paper: PCA of the signals behind the norms, on calibration data; no scaling, all tokens alike
SETTINGS = {"rotation": "one for all blocks", "components of": "the norms' outputs", "mean": "not taken off"}


@torch.no_grad()
def fold_norms(llama: Any) -> None:
    """Move the weights of a Llama's norms into the layers that read them. The head gets weights of its own."""
    llama.lm_head.weight = torch.nn.Parameter(llama.lm_head.weight.detach().clone())
    llama.config.tie_word_embeddings = False
    for norm, readers in _norms(llama):
        for reader in readers:
            reader.weight.mul_(norm.weight)
        norm.weight.fill_(1.0)


def _norms(llama: Any) -> list[tuple[Any, list[Any]]]:
    """The norms in their order, each with the layers that read it."""
    found = []
    for block in llama.model.layers:
        attention, mlp = block.self_attn, block.mlp
        found.append((block.input_layernorm, [attention.q_proj, attention.k_proj, attention.v_proj]))
        found.append((block.post_attention_layernorm, [mlp.gate_proj, mlp.up_proj]))
    return [*found, (llama.model.norm, [llama.lm_head])]


@torch.no_grad()
def components(llama: Any, batches: Iterable[Batch], forward: Callable[[Batch], object]) -> torch.Tensor:
    """The principal components [width, width] of what the norms give, as columns, the strongest first."""
    width = llama.config.hidden_size
    squares = torch.zeros(width, width, dtype=torch.float64)
    mask = torch.ones(0)

    def note(output: torch.Tensor) -> None:
        rows = output[mask].double()
        squares.addmm_(rows.T, rows)

    handles = [norm.register_forward_hook(lambda _, args, output: note(output)) for norm, _ in _norms(llama)]
    try:
        for batch in batches:
            mask = batch.inputs["attention_mask"].bool()
            forward(batch)
    finally:
        for handle in handles:
            handle.remove()
    strongest_last: torch.Tensor = torch.linalg.eigh(squares).eigenvectors
    return strongest_last.flip(1)


@torch.no_grad()
def turn(llama: Any, outside: list[torch.nn.Linear], columns: torch.Tensor) -> None:
    """Express the residual stream of a Llama with folded norms by `columns` [width, kept] of a rotation. Layers
    `outside` of it write to the stream, too.

    With all columns the function stays. With fewer, a norm still divides by the mean square over the whole width, of
    which it sees what is kept.
    """
    width, kept = columns.shape
    embedding = llama.get_input_embeddings()
    embedding.weight, embedding.embedding_dim = _changed(embedding.weight, columns.T), kept
    for norm, readers in _norms(llama):
        norm.weight = torch.nn.Parameter(norm.weight.new_full((kept,), (width / kept) ** 0.5))
        norm.variance_epsilon *= width / kept
        for reader in readers:
            reader.weight, reader.in_features = _changed(reader.weight, columns.T), kept
    llama.config.rms_norm_eps *= width / kept
    inside = [layer for block in llama.model.layers for layer in (block.self_attn.o_proj, block.mlp.down_proj)]
    for writer in [*outside, *inside]:
        writer.weight, writer.out_features = (
            torch.nn.Parameter(_changed(writer.weight.T, columns.T).T.contiguous()),
            kept,
        )
        if writer.bias is not None:
            writer.bias = _changed(writer.bias, columns.T)
    set_shape(llama)


def _changed(rows: torch.Tensor, base: torch.Tensor) -> torch.nn.Parameter:
    """Rows [..., width] by their parts along each row of `base` [kept, width]."""
    return torch.nn.Parameter((rows.double() @ base.double().T).to(rows.dtype))


def equal_width(llama: Any, outside: list[torch.nn.Linear], target: int) -> int:
    """The width at which a Llama whose head has been untied is as large as a tied one of width `target`: every
    parameter has one dimension of the stream. Rounded to a multiple of the heads, which a config asks for."""
    untied = sum(one.numel() for one in llama.parameters()) + sum(
        one.numel() for layer in outside for one in layer.parameters()
    )
    tied = untied - llama.lm_head.weight.numel()
    heads: int = llama.config.num_attention_heads
    return int(round(target * tied / untied / heads) * heads)


def by_rotation(case: Case) -> str:
    model, examples = opened(case), case.materials.examples("score")
    llama, outside = model.language_model, [model.language_projection]
    fold_norms(llama)
    model.config.tie_word_embeddings = False
    batches = Batches(examples, grouped(examples, 64), case.materials.features("score"))
    found = components(llama, batches, lambda batch: case.materials.logits(model, batch))
    target = case.anatomy.axis("language", "io").width - case.task.removed
    turn(llama, outside, found[:, : equal_width(llama, outside, target)])
    return saved(case, model)


PEERS = (
    Peer(
        "SliceGPT-style rotation",
        by_rotation,
        ("io",),
        SETTINGS,
        why_not={axis: "it cuts the residual stream alone" for axis in ("block", "ffn", "attention")},
    ),
)
