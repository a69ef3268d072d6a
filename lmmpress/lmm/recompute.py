"""Makes blocks compute their forward pass again in the backward pass, so that only their inputs are kept."""

from functools import partial

import torch
from torch.utils.checkpoint import checkpoint

from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.blocks import blocks_of


def recompute_blocks(model: torch.nn.Module, anatomy: Anatomy) -> None:
    """Let every block of every tower be computed again in the backward pass.

    The anatomy names the blocks, so this works for every family, and in evaluation mode, which that of transformers
    does not. Blocks have nothing random in them: dropout is off.
    """
    for block in blocks_of(model, anatomy):
        # of this module alone: its class keeps its own
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
