"""Wait until a person lets the run go on."""

from lmmpress.components.approval.component import approval

__all__ = ["approval"]
