"""From what a family says of a tower to the tower: its groups and slices along every axis."""

from dataclasses import replace

from lmmpress.axes import axes
from lmmpress.axes.layout import TowerLayout
from lmmpress.axes.slices import AxisAnatomy, Shapes
from lmmpress.lmm.anatomy import Tower


def build_tower(layout: TowerLayout, shapes: Shapes) -> Tower:
    """A tower along every axis that it has something of."""
    bodies: dict[str, AxisAnatomy] = {}
    for axis in axes():
        if (body := axis.anatomy(layout, shapes)) is None:
            continue
        if strange := [group.name for group in body.groups if not _is_named(group.name, f"{layout.name}.{axis.name}")]:
            raise ValueError(f"group {strange[0]} of axis {axis.name} is named without {layout.name}.{axis.name}")
        bodies[axis.name] = replace(body, inexpressible=layout.inexpressible.get(axis.name, body.inexpressible))
    final_norms = tuple(blocks.final_norm for blocks in layout.stacks if blocks.final_norm)
    return Tower(layout.name, layout.block_stacks(), bodies, final_norms)


def _is_named(group: str, stem: str) -> bool:
    """Whether a group's name begins with its tower and axis, by which cuts are composed."""
    return group == stem or group.startswith(f"{stem}.")
