"""Cut the least important head dimensions."""

from lmmpress.components.attention_prune.component import attention_prune

__all__ = ["attention_prune"]
