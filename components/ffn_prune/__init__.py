"""Cut the least important hidden dimensions of every FFN."""

from lmmpress.components.ffn_prune.component import ffn_prune

__all__ = ["ffn_prune"]
