"""An axis from another package: the last hidden units of every FFN go, without scores."""

from lmmpress.axes import Axis
from lmmpress.axes.cut import Cut
from lmmpress.axes.ffn import hidden_units
from lmmpress.axes.layout import TowerLayout
from lmmpress.axes.registry import Config, Expressed
from lmmpress.axes.slices import AxisAnatomy, Group, Shapes, group_name


def anatomy(layout: TowerLayout, shapes: Shapes) -> AxisAnatomy:
    """One group for each FFN of each block, whose dimensions are its hidden units."""
    groups = tuple(
        Group(
            group_name(layout.name, "tail", blocks.name, number, which),
            network.width,
            hidden_units(network, at, shapes),
        )
        for blocks in layout.stacks
        for number, which, at, network in blocks.ffns_in(shapes)
    )
    return AxisAnatomy(groups, layout.stacks[0].ffns[0].width)


def resize(config: Config, cut: Cut, by_family: Expressed) -> Config:
    """Families know this cut as one along `ffn`."""
    keep = {name.replace(".tail.", ".ffn.", 1): kept for name, kept in cut.keep.items()}
    return by_family(config, cut.model_copy(update={"axis": "ffn", "keep": keep}))


AXIS = Axis(
    "tail",
    "the hidden width of every FFN: the last units go",
    component="tail_component:tail_prune",
    anatomy=anatomy,
    needs_scores=False,
    resize=resize,
)
