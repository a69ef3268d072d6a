"""Check, register and report the result."""

from lmmpress.components.publish.component import publish

__all__ = ["publish"]
