"""Measure a step, the original, or the result."""

from lmmpress.components.evaluate.component import evaluate

__all__ = ["evaluate"]
