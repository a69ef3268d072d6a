"""Make all steps of a stage."""

from lmmpress.components.stage.component import stage

__all__ = ["stage"]
