"""Cut the least important dimensions of the residual stream."""

from lmmpress.components.io_prune.component import io_prune

__all__ = ["io_prune"]
