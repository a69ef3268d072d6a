"""Axis `ffn`: the hidden width of the feed-forward networks (Eq. 2)."""

from itertools import chain

from lmmpress.axes.layout import Ffn, TowerLayout
from lmmpress.axes.registry import Axis, register
from lmmpress.axes.slices import AxisAnatomy, Group, Shapes, Slice, group_name, inputs_of, outputs_of


def anatomy(layout: TowerLayout, shapes: Shapes) -> AxisAnatomy:
    """One group for each FFN of each block."""
    groups = tuple(
        Group(
            group_name(layout.name, "ffn", blocks.name, number, which), network.width, hidden_units(network, at, shapes)
        )
        for blocks in layout.stacks
        for number, which, at, network in blocks.ffns_in(shapes)
    )
    return AxisAnatomy(groups, layout.stacks[0].ffns[0].width)


def hidden_units(network: Ffn, at: str, shapes: Shapes) -> tuple[Slice, ...]:
    """Eq. 2: the slices that hidden dimension n of an FFN owns; the names of its modules begin with `at`."""
    widened = [outputs_of(at + name, (network.fused, network.width, 1), shapes) for name in network.widen]
    return (*chain(*widened), *inputs_of(at + network.narrow, (1, network.width, 1)))


AXIS = register(
    Axis(
        "ffn",
        "the hidden width of every FFN",
        component="ffn_prune",
        anatomy=anatomy,
        rank=2,
        always_scored=True,
    )
)
