"""Decide a step, and record it."""

from lmmpress.components.gate.component import gate

__all__ = ["gate"]
