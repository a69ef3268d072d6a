"""Cut the last blocks."""

from lmmpress.components.block_prune.component import block_prune

__all__ = ["block_prune"]
