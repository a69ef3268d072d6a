"""Read the plan: how many steps may a stage have?"""

from lmmpress.components.steps.component import steps

__all__ = ["steps"]
