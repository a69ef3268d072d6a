"""NVIDIA's Model Optimizer: what of its pruning runs on a model of transformers on a CPU.

Its `mtp.prune` has two modes; both are tried, and what they say is the row. The importance hooks behind Minitron run
anywhere. They are used here as `modelopt.torch.prune.plugins.mcore_minitron` uses them, of arXiv 2407.14679, section
2.2: the mean over the tokens of a row of the absolute activation, the L2 norm over rows. A head's score is the L2 norm
of those of its channels, and a channel of the stream has the sum of its scores behind all norms of the blocks.
Blocks are ranked there by block influence, which has its row.
"""

from collections.abc import Callable
from typing import Any

import torch

from lmmpress.lmm.batches import Batches, grouped
from peers.blocks import most
from peers.own import by_scores
from peers.peer import TOWER, Case, Peer
from peers.surgery import keep_heads, opened, saved

# modelopt.torch.prune.plugins.mcore_minitron of 0.47.0; rows one by one, because a hook knows no padding
SETTINGS = {"hook": "L2NormHook", "tokens": "mean", "rows": "L2", "batch": 1}
PACKAGE = "nvidia-modelopt"


def minitron(case: Case) -> str:
    model = opened(case)
    llama = model.language_model
    match case.task.axis:
        case "ffn":
            found = _scores(case, model, [block.mlp.down_proj for block in llama.model.layers])
            return by_scores(case, {f"{TOWER}.ffn.{number}": one for number, one in enumerate(found)})
        case "attention":
            found = _scores(case, model, [block.self_attn.o_proj for block in llama.model.layers])
            width: int = llama.config.head_dim
            heads = (llama.config.num_attention_heads * width - case.task.removed) // width
            strength = [one.view(-1, width).norm(dim=1) for one in found]
            keep_heads(llama, [torch.tensor(most(one, heads)) for one in strength])
            return saved(case, model)
        case _:
            readers = [one for block in llama.model.layers for one in (block.self_attn.q_proj, block.mlp.gate_proj)]
            return by_scores(case, {f"{TOWER}.io": torch.stack(_scores(case, model, readers)).sum(0)})


@torch.no_grad()
def _scores(case: Case, model: Any, layers: list[torch.nn.Module]) -> list[torch.Tensor]:
    """What modelopt's hook makes of the inputs of each layer, over the rows for scoring."""
    from modelopt.torch.prune.importance_hooks import L2NormHook

    class TokensFirst(L2NormHook):
        """Its input is [tokens, rows, width], as in Megatron."""

        def _get_input_tensor(self, args: tuple[torch.Tensor, ...]) -> torch.Tensor:
            return args[0].detach().transpose(0, 1)

    hooks = [TokensFirst() for _ in layers]
    handles = [layer.register_forward_hook(hook) for layer, hook in zip(layers, hooks, strict=True)]
    examples = case.materials.examples("score")
    try:
        for batch in Batches(examples, grouped(examples, 1), case.materials.features("score")):
            case.materials.logits(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return [hook.accumulate().double() for hook in hooks]


def its_own(mode: str) -> Callable[[Case], str]:
    """Ask modelopt itself to prune the language tower to the size that the task asks for."""

    def cut(case: Case) -> str:
        import modelopt.torch.prune as mtp

        model = opened(case)
        ids = torch.zeros(1, 4, dtype=torch.long)
        body = case.anatomy.axis(TOWER, case.task.axis)
        share = f"{100 * (1 - case.task.removed / body.width):.0f}%"
        config = {"data_loader": [ids], "score_func": lambda _: 0.0}
        mtp.prune(model.language_model, mode, {"params": share}, ids, config)
        return saved(case, model)

    return cut


PEERS = (
    Peer(
        "modelopt, Minitron's scores",
        minitron,
        ("ffn", "attention", "io"),
        SETTINGS,
        PACKAGE,
        {"block": "its score of a block is block influence, which has a row"},
    ),
    Peer(
        "modelopt, mtp.prune mcore_minitron",
        its_own("mcore_minitron"),
        ("block", "ffn", "attention", "io"),
        {},
        PACKAGE,
    ),
    Peer("modelopt, mtp.prune fastnas", its_own("fastnas"), ("block", "ffn", "attention", "io"), {}, PACKAGE),
)
