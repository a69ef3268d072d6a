"""Axis `io`: the width of the residual stream, a tower's input and output (Eq. 4)."""

from itertools import chain

from lmmpress.axes.ffn import hidden_units
from lmmpress.axes.layout import Blocks, TowerLayout
from lmmpress.axes.registry import Axis, register
from lmmpress.axes.slices import AxisAnatomy, Group, Shapes, Slice, group_name, inputs_of, outputs_of


def anatomy(layout: TowerLayout, shapes: Shapes) -> AxisAnatomy:
    """The stream is one group. A network outside of the blocks is one more, if the config ties its hidden width to the
    stream's."""
    stream = _outside(layout, shapes)
    for blocks in layout.stacks:
        for number in range(blocks.depth):
            stream += _in_block(layout, blocks, blocks.block(number), shapes)
    name = group_name(layout.name, "io")
    groups = [Group(name, layout.width, tuple(stream), grain=layout.stream_unit)]
    for index, network in enumerate(layout.hidden):
        slices = hidden_units(network, "", shapes)
        groups.append(Group(group_name(name, "hidden", index), layout.width, slices, grain=layout.stream_unit))
    return AxisAnatomy(
        tuple(groups),
        layout.width,
        unit=layout.stream_unit,
        exactness="exact after rescale" if layout.rms else "approximate",
    )


def _in_block(layout: TowerLayout, blocks: Blocks, at: str, shapes: Shapes) -> list[Slice]:
    """Eq. 4: the slices that residual dimension n owns in a block; norms are cut with it, but not counted in scores."""
    view = (1, layout.width, 1)
    pieces: list[Slice] = []
    for head in blocks.attentions:
        if f"{at}{head.output}.weight" not in shapes:
            continue
        readers = dict.fromkeys(name for name, _ in (*head.query_key, *head.value) if name not in head.foreign)
        pieces += chain(*(inputs_of(at + name, view) for name in readers))
        pieces += outputs_of(at + head.output, view, shapes)
    for network in blocks.ffns:
        if f"{at}{network.narrow}.weight" in shapes:
            pieces += chain(*(inputs_of(at + name, view) for name in network.widen))
            pieces += outputs_of(at + network.narrow, view, shapes)
    for norm in blocks.norms:
        pieces += _norm(layout, at + norm, shapes)
    return pieces


def _outside(layout: TowerLayout, shapes: Shapes) -> list[Slice]:
    """The slices that residual dimension n owns outside of the blocks: embeddings, outer norms, projections, heads."""
    view = (1, layout.width, 1)
    pieces = [
        Slice(name, len(shapes[name]) - 1, view, False, power) for name, power in layout.rows.items() if name in shapes
    ]
    for norm in layout.outer_norms:
        pieces += _norm(layout, norm, shapes)
    finals = [blocks.final_norm for blocks in layout.stacks if blocks.final_norm]
    for norm in finals:
        pieces += _norm(layout, norm, shapes, layout.output_power if norm == finals[-1] else 0.0)
    for module in layout.writers:
        pieces += outputs_of(module, view, shapes, counted=False)
    for module in layout.readers:
        if f"{module}.weight" in shapes:
            # the input of a reader may be several states side by side
            repeats = shapes[f"{module}.weight"][1] // layout.width
            pieces += inputs_of(module, (repeats, layout.width, 1), counted=False)
    return pieces


def _norm(layout: TowerLayout, norm: str, shapes: Shapes, more: float = 0.0) -> list[Slice]:
    power = (0.5 if layout.rms else 0.0) + more
    view = (1, layout.width, 1)
    return outputs_of(norm, view, shapes, counted=False, power=power, shift=layout.norm_shift)


AXIS = register(
    Axis(
        "io",
        "the width of the residual stream",
        component="io_prune",
        anatomy=anatomy,
        rank=4,
        always_scored=True,
    )
)
