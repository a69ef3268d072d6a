"""Compresses large multimodal models in stages: prune a little, distil, measure, keep what stays within alpha."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmmpress.compression import compress
    from lmmpress.plan import Plan

__version__ = "0.1.0"
__all__ = ["Plan", "compress"]


def __getattr__(name: str) -> Any:
    """Import what is heavy only when it is asked for."""
    if name == "compress":
        from lmmpress.compression import compress

        return compress
    if name == "Plan":
        from lmmpress.plan import Plan

        return Plan
    raise AttributeError(name)
