"""Score the checkpoint that a step cuts."""

from lmmpress.components.importance.component import importance

__all__ = ["importance"]
