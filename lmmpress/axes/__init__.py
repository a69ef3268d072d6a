"""The axes: what a stage can make smaller. Each axis is declared in one file, and all other code reads that
declaration: see docs/adding-an-axis.md."""

from lmmpress.axes.registry import Axis, axes, axis_named, register, unusable

__all__ = ["Axis", "axes", "axis_named", "register", "unusable"]
