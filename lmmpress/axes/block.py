"""Axis `block`: depth. A cut removes whole blocks, the last ones first, without scores (section 3.3.1)."""

from lmmpress.axes.layout import Stack, TowerLayout
from lmmpress.axes.registry import Axis, register
from lmmpress.axes.slices import AxisAnatomy, Group, Shapes, Slice


def anatomy(layout: TowerLayout, shapes: Shapes) -> AxisAnatomy:
    """One group for each stack, whose dimensions are its blocks. Every stack loses the same number of blocks."""
    return AxisAnatomy(
        tuple(Group(stack.group, stack.depth, _whole_blocks(stack, shapes)) for stack in layout.block_stacks()),
        width=min(blocks.depth for blocks in layout.stacks),
        silenced=() if layout.post_norm else _block_outputs(layout, shapes),
        maskable=not layout.post_norm,
    )


def _whole_blocks(stack: Stack, shapes: Shapes) -> tuple[Slice, ...]:
    """Every tensor of every block, owned by its block."""
    numbers = {tensor: stack.number(tensor) for tensor in shapes}
    return tuple(
        Slice(tensor, 0, (1, 1, shapes[tensor][0]), counted=len(shapes[tensor]) > 1, offset=number)
        for tensor, number in numbers.items()
        if number is not None
    )


def _block_outputs(layout: TowerLayout, shapes: Shapes) -> tuple[str, ...]:
    """The tensors of blocks that write into the residual stream."""
    modules = [
        f"{blocks.block(number)}{module}"
        for blocks in layout.stacks
        for number in range(blocks.depth)
        for module in (*(head.output for head in blocks.attentions), *(network.narrow for network in blocks.ffns))
    ]
    return tuple(name for module in modules for name in (f"{module}.weight", f"{module}.bias") if name in shapes)


AXIS = register(
    Axis(
        "block",
        "depth: the last blocks are removed",
        component="block_prune",
        anatomy=anatomy,
        needs_scores=False,
        rank=1,
        always_scored=True,
    )
)
