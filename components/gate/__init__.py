"""Decide a step, and write the decision to the run's state."""

from lmmpress.components.gate.component import gate

__all__ = ["gate"]
