"""Compare the result with the original."""

from lmmpress.components.compare.component import compare

__all__ = ["compare"]
