"""Axis `attention`: the width of the heads (Eq. 3). The number of heads stays."""

from itertools import chain

from lmmpress.axes.layout import Attention, TowerLayout
from lmmpress.axes.registry import Axis, register
from lmmpress.axes.slices import AxisAnatomy, Exactness, Group, Shapes, Slice, group_name, inputs_of, outputs_of


def anatomy(layout: TowerLayout, shapes: Shapes) -> AxisAnatomy:
    """One group for each attention of each block. With rotary embeddings the planes of all blocks are one group,
    because a config has one set of frequencies for all blocks."""
    groups, planes = [], []
    for blocks in layout.stacks:
        for number, which, at, head in blocks.attentions_in(shapes):
            query_key = _query_key(head, at, shapes)
            if turns := head.rotary != "none":
                planes += query_key
            slices = ([] if turns else query_key) + _value(head, at, shapes)
            name = group_name(layout.name, "attention", blocks.name, number, which)
            groups.append(Group(name, head.head_dim, tuple(slices), grain=2 if turns else 1))
    first = layout.stacks[0].attentions[0]
    if planes:
        turning = first.turning if first.turning is not None else first.head_dim // 2
        name = group_name(layout.name, "attention", "planes")
        groups.insert(0, Group(name, first.head_dim // 2, tuple(planes), anchored=turning))
    rescaled: Exactness = "exact"
    if any(piece.power for group in groups for piece in group.slices):
        rescaled = "exact after rescale"
    return AxisAnatomy(
        tuple(groups),
        width=first.heads * first.head_dim,
        unit=first.heads * (2 if planes else 1),
        exactness=rescaled,
    )


def _query_key(head: Attention, at: str, shapes: Shapes) -> list[Slice]:
    """Eq. 3, queries and keys: dimension n of every head, or rotary plane n, whose two dimensions stay together."""

    def view(heads: int) -> tuple[int, int, int]:
        return {
            "none": (heads, head.head_dim, 1),
            "halves": (heads * 2, head.head_dim // 2, 1),
            "pairs": (heads, head.head_dim // 2, 2),
        }[head.rotary]

    pieces = []
    for name, heads in head.query_key:
        queries = head.scaled.get(name)
        part = None if queries in (None, heads) else queries * (2 if head.rotary == "halves" else 1)
        pieces += outputs_of(at + name, view(heads), shapes, power=-0.5 if queries else 0.0, scaled=part)
    for name, power in head.norms.items():
        pieces += outputs_of(at + name, view(1), shapes, counted=False, power=power)
    return pieces


def _value(head: Attention, at: str, shapes: Shapes) -> list[Slice]:
    """Eq. 3, values and outputs: dimension n of every head."""
    values = [outputs_of(at + name, (heads, head.head_dim, 1), shapes) for name, heads in head.value]
    return [*chain(*values), *inputs_of(at + head.output, (head.heads, head.head_dim, 1))]


AXIS = register(
    Axis(
        "attention",
        "the width of every head; amounts are totals over the heads of a block",
        component="attention_prune",
        anatomy=anatomy,
        rank=3,
        always_scored=True,
    )
)
