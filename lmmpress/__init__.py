"""Compresses large multimodal models in stages: prune a little, distil, measure, keep what stays within alpha."""

import os
import sys

# the command, or `python -m lmmpress.cli`, which is called so until it has been found: before anything is imported
if [os.path.basename(name) for name in sys.argv[:1]] in (["lmmpress"], ["-m"]):
    from lmmpress.host.safe_path import forget_current_directory

    forget_current_directory()

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmmpress.engine.compression import compress
    from lmmpress.plan import Plan

__version__ = "0.1.0"
__all__ = ["Plan", "compress"]


def __getattr__(name: str) -> Any:
    """Import what is heavy only when it is asked for."""
    if name == "compress":
        from lmmpress.engine.compression import compress

        return compress
    if name == "Plan":
        from lmmpress.plan import Plan

        return Plan
    raise AttributeError(name)
