"""Let what was cut learn from the teacher."""

from lmmpress.components.distill.component import distill

__all__ = ["distill"]
